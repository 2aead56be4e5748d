"""Puts a run's report into docs/: report.html, and its first screen as report.png, for the README.

python tools/build_gallery.py outputs/demo   (`make gallery` makes that run first; needs Chromium)
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"
SCREEN = "1280,900"  # CSS pixels


def without_links(page: str) -> str:
    """Returns a report without the links to the run's other pages, which are not in docs/, and the notes on them."""
    page = re.sub(r'<a [^>]*href="\.\./[^>]*>(.*?)</a>', r"\1", page)
    return re.sub(r'<(p|span) class="inside">.*?</\1>', "", page)


def main(run: Path) -> int:
    """Copies the report of `run`, without its links to other pages, and photographs it; returns the exit code."""
    report = run / "report/index.html"
    if not report.is_file():
        print(f"{report} is missing: expected the folder of a finished run. Run: make demo")
        return 2
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        print("no Chromium is installed: apt-get install chromium")
        return 2
    (DOCS / "report.html").write_text(without_links(report.read_text(encoding="utf-8")), encoding="utf-8")
    picture = [f"--window-size={SCREEN}", f"--screenshot={DOCS / 'report.png'}", "--hide-scrollbars"]
    command = [browser, "--headless", "--no-sandbox", *picture, f"file://{DOCS / 'report.html'}"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    print(f"written: docs/report.html, docs/report.png, of {run}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
