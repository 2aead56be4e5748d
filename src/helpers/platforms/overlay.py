"""Packages beside the platform's own: a folder in front of its packages, made once per session from the lock.

Kaggle's and Colab's images stay as they are. What they lack, or hold in a version that does not work here, is installed
into one folder of the scratch space; this process, its kernels and its child processes look there first.

A folder, and not an environment with --system-site-packages: that needs a kernel of its own, which a notebook that has
been opened and runs cannot change to. What either takes is in docs/kaggle-and-colab.md.
"""

import contextlib
import hashlib
import importlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FOLDER = "SAHANUBHUTI_PACKAGES"  # where the session's packages are, for its kernels and child processes
COMPLETE = ".complete"  # in the folder, its last file
LOCK = "requirements.lock"
REQUIREMENTS = ("requirements.txt", "requirements-unsloth.txt")
# What the live kernel has imported, or the platform itself uses: never replaced.
PLATFORM = """
    certifi debugpy decorator ipykernel ipython ipywidgets jedi jinja2 jupyter-client jupyter-core jupyter-server
    markupsafe matplotlib matplotlib-inline nbclient nbconvert nbformat nest-asyncio numpy packaging pandas parso pip
    pillow platformdirs prompt-toolkit protobuf psutil pyarrow pygments pyparsing python-dateutil pyzmq scipy
    setuptools six tornado torch torchvision traitlets triton wcwidth wheel
"""
_PIN = re.compile(
    r"^(?P<pin>[A-Za-z0-9][\w.-]*==[^\\\n]+)(?:\\\n[^\\\n]*)*", re.MULTILINE
)  # with the lines of its hashes
_OFFLINE = re.compile(r"connect|resolve|network|dns|timed out|offline|not done in|no matching", re.IGNORECASE)
INSTALL_SECONDS = 900
_INHERITED = ("UV_CONSTRAINT", "UV_BUILD_CONSTRAINT", "UV_OVERRIDE", "PIP_CONSTRAINT", "PIP_TARGET", "PIP_USER")


def use_overlay(root: Path) -> Path | None:
    """Puts the folder of packages in front of this process's and its children's; makes it, once per session.

    `root` is the checkout with the requirements and the lock. Returns the folder, None where the image has all.
    Raises RuntimeError when this kernel has already imported a package that has to differ, and when the packages
    cannot be installed.
    """
    began, name = time.monotonic(), f"sahanubhuti-packages-{_fingerprint(root)}"
    kept = Path(os.environ.get(FOLDER, ""))
    folder = kept if kept.name == name else Path(tempfile.gettempdir()) / name
    if not is_complete(folder):
        build_overlay(root, folder)
        if read_versions(folder):
            print(f"{describe_overlay(folder)}, {time.monotonic() - began:.0f} s")
    if not read_versions(folder):
        return None
    refuse_imported(folder)
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
        importlib.invalidate_caches()
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path != str(folder)]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), *paths])
    os.environ[FOLDER] = str(folder)
    return folder


def is_complete(folder: Path) -> bool:
    """Returns whether a folder was made to its end, by this user: nobody else's packages are imported."""
    return (folder / COMPLETE).is_file() and folder.stat().st_uid == os.getuid()


def image_paths() -> list[str]:
    """Returns the folders of the platform's own packages."""
    return [path for path in sys.path if path != os.environ.get(FOLDER)]


def read_versions(*paths: str | Path) -> dict[str, str]:
    """Returns {name: version} of the packages in folders; the first folder that has a package counts."""
    versions: dict[str, str] = {}
    for package in importlib.metadata.distributions(path=list(map(str, paths))):
        metadata = package.metadata  # read and parsed at each access: 150 ms of a hundred packages
        if metadata["Name"]:
            versions.setdefault(canonicalize_name(metadata["Name"]), metadata["Version"])
    return versions


def read_requirements(root: Path) -> list[Requirement]:
    """Returns what the suite asks for, from its requirement files; a Space has one of them."""
    files = [root / name for name in REQUIREMENTS if (root / name).is_file()]
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return [Requirement(text) for line in lines if (text := line.split("#")[0].strip())]


def read_lock(root: Path) -> dict[str, tuple[str, str]]:
    """Returns {name: (version, its lines with hashes)} of the lock's packages for this Python."""
    pins = {}
    for match in _PIN.finditer((root / LOCK).read_text(encoding="utf-8")):
        pin = Requirement(match["pin"].strip())
        if pin.marker is None or pin.marker.evaluate():
            pins[canonicalize_name(pin.name)] = (next(iter(pin.specifier)).version, match[0])
    return pins


def is_met(requirement: Requirement, versions: dict[str, str]) -> bool:
    """Returns whether a package is there in a version that a requirement takes."""
    version = versions.get(canonicalize_name(requirement.name))
    return version is not None and requirement.specifier.contains(version, prereleases=True)


def build_overlay(root: Path, folder: Path) -> None:
    """Installs into `folder` what the image lacks or has in another version, and what that needs in turn.

    The folder appears complete or not at all. What the platform has in a version that was not tested, and keeps, is
    named. Raises RuntimeError as `install_packages` does.
    """
    from filelock import FileLock

    lock, image = read_lock(root), read_versions(*image_paths())
    missing = [requirement for requirement in read_requirements(root) if not is_met(requirement, image)]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"), contextlib.ExitStack() as cleanup:
        if is_complete(folder):  # another process made it meanwhile
            return
        if folder.exists():
            shutil.rmtree(folder)
        for left in folder.parent.glob(f"{folder.name}-*"):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        scratch = tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent)
        cleanup.callback(shutil.rmtree, scratch, ignore_errors=True)
        added: dict[str, str] = {}
        while names := select_packages(missing, added, lock):
            install_packages([lock[name][1] for name in names], Path(scratch))
            added = read_versions(scratch)
            missing = [need for need in dependencies(scratch) if not is_met(need, image | added)]
        if unmet := [need for need in read_requirements(root) if not is_met(need, image | added)]:
            print(f"tested with {', '.join(map(str, unmet))}: the image has others, and keeps them")
        (Path(scratch) / COMPLETE).touch()
        Path(scratch).rename(folder)


def select_packages(missing: Iterable[Requirement], added: dict[str, str], lock: dict) -> list[str]:
    """Returns the packages of the lock that `missing` asks for and that are neither added nor the platform's.

    A version that the lock itself overrules (Unsloth's certifi, TRL's datasets) is no reason to add a package.
    """
    names = dict.fromkeys(
        name
        for need in missing
        if (name := canonicalize_name(need.name)) in lock and need.specifier.contains(lock[name][0], prereleases=True)
    )
    return [name for name in names if name not in added and name not in PLATFORM.split()]


def dependencies(folder: str) -> Iterator[Requirement]:
    """Returns what the packages in a folder ask for, without their extras."""
    for package in importlib.metadata.distributions(path=[folder]):
        for text in package.requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                yield requirement


def install_packages(pins: list[str], folder: Path) -> None:
    """Installs exactly these lines of the lock into a folder, each file checked by its hash: by uv, else by pip.

    Raises RuntimeError with the installer's last words.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _INHERITED}
    tools = [[uv, "pip", "install", "--python", sys.executable]] if (uv := shutil.which("uv")) else []
    tools += [[sys.executable, "-m", "pip", "install", "--no-compile", "--disable-pip-version-check"]]
    problems = []
    print(f"installing {len(pins)} packages beside the image's …", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "pins.txt"
        file.write_text("\n".join(pins) + "\n", encoding="utf-8")
        for tool in tools:
            command = [*tool, "-q", "--target", str(folder), "--no-deps", "--require-hashes", "-r", str(file)]
            try:
                done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=INSTALL_SECONDS)
            except subprocess.TimeoutExpired:
                problems.append(f"not done in {INSTALL_SECONDS} seconds")
                continue
            if done.returncode == 0:
                return
            problems.append(" ".join(done.stderr.split())[-400:])
    problem, free = "; then ".join(problems), shutil.disk_usage(folder.parent).free / 2**30
    hint = "Switch the internet on (Kaggle: Settings, Internet) and run" if _OFFLINE.search(problem) else "Run"
    raise RuntimeError(
        f"{len(pins)} packages could not be installed beside the image's, in {folder.parent} with {free:.1f} GiB free: "
        f"{problem}. {hint} this cell again."
    )


def refuse_imported(folder: Path) -> None:
    """Raises RuntimeError when this process has imported a package of the folder from elsewhere.

    Half of the old package would then work with half of the new one.
    """
    for package in importlib.metadata.distributions(path=[str(folder)]):
        for module in _modules(package):
            origin = getattr(sys.modules.get(module), "__file__", None)
            if origin and not Path(origin).is_relative_to(folder):
                loaded = read_versions(*image_paths()).get(canonicalize_name(package.name), "another version")
                raise RuntimeError(
                    f"this kernel has already imported {package.name} {loaded}, and the suite needs {package.version}: "
                    f"restart the kernel (Kaggle: Run, Restart & clear; Colab: Runtime, Restart session) and run this "
                    f"cell before any other."
                )


def _modules(package: importlib.metadata.Distribution) -> set[str]:
    """Returns the names of a package's top modules."""
    files = [str(file).split("/") for file in package.files or ()]
    names = {top.removesuffix(".py") for top, *below in files if below or top.endswith(".py")}
    return {name for name in names if name.isidentifier()}


def _fingerprint(root: Path) -> str:
    """Returns a text that changes with what decides the folder's content: the image, the lock, the requirements."""
    facts = [sys.version, sorted(read_versions(*image_paths()).items())]
    facts += [(root / name).read_text(encoding="utf-8") for name in (LOCK, *REQUIREMENTS)]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:12]


def describe_overlay(folder: Path) -> str:
    """Returns the number of packages in a folder, their size in MB, and those whose versions decide a run's numbers."""
    packages = read_versions(folder)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    known = [name for name in ("transformers", "trl", "peft", "datasets", "unsloth") if name in packages]
    versions = ", ".join(f"{name} {packages[name]}" for name in known)
    return f"{len(packages)} packages beside the image's ({versions}): {size:.0f} MB in {folder}"
