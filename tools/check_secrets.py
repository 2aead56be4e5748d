"""Names each text that looks like a token, a key or a password: in sources, in notebooks' cells and their outputs.

python tools/check_secrets.py         every file of the checkout
python tools/check_secrets.py FILE …  these files

Prints `file:line: whose`, never the secret itself, and exits 1 if there was one.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from helpers.platforms.scrub import FORMS

ROOT = Path(__file__).resolve().parents[1]
PATTERNS = {
    whose: re.compile(rf"\b{start}{rest}{{{least},}}".encode()) for whose, (start, rest, least) in FORMS.items()
}
PATTERNS |= {  # in bytes: no file is left out because of its encoding
    "a key of kaggle.json": re.compile(rb"(?i:kaggle_key|\bkey)\W{1,8}[0-9a-f]{32}\b"),
    "a private key": re.compile(rb"-----BEGIN (?:\w+ )*PRIVATE KEY-----"),
    "a password in a URL": re.compile(rb"://[^\s/:@\"'<>{}$]+:[^\s/@\"'<>{}$]{6,}@"),
}


def check_file(path: Path) -> Iterator[tuple[int, str]]:
    """Yields the line and the kind of each secret in a file."""
    content = path.read_bytes()
    for whose, pattern in PATTERNS.items():
        for match in pattern.finditer(content):
            yield content.count(b"\n", 0, match.start()) + 1, whose


def files() -> list[Path]:
    """Returns the checkout's files: what git tracks or would."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [ROOT / name for name in sorted(set(listed)) if (ROOT / name).is_file()]


def main(arguments: list[str] | None = None) -> int:
    """Prints where a secret stands and returns the exit code."""
    paths = [Path(name) for name in (sys.argv[1:] if arguments is None else arguments)] or files()
    lines = [f"{path}:{line}: {whose}" for path in paths for line, whose in sorted(check_file(path))]
    print("\n".join(lines).replace(f"{ROOT}/", ""), end="\n" * bool(lines))
    if lines:
        print("Withdraw it where it was issued, take it out of the file, and read it with helpers.platforms.secrets")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
