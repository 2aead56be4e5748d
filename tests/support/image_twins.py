"""Twins of the platforms' images: environments that hold their versions, and kernels that start as theirs do."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import papermill

from helpers.kaggle.notebook import SUITE
from helpers.platforms.environment import ROOT
from helpers.runs.session import SESSION_START, boot_clock

IMAGES = ROOT / "tests/platforms/images"
UV = Path(sys.executable).with_name("uv")
DRIVE = "import pathlib\ndef mount(place):\n    (pathlib.Path(place) / 'MyDrive').mkdir(parents=True, exist_ok=True)\n"
VARIABLES = {  # Kaggle's image, which is built on Colab's, sets COLAB_* too
    "kaggle": {"KAGGLE_KERNEL_RUN_TYPE": "Interactive", "COLAB_RELEASE_TAG": "release-colab-external-images"},
    "colab": {"COLAB_RELEASE_TAG": "release-colab-external-images", "COLAB_GPU": ""},
}


def build_twin(image: str) -> Path:
    """Returns the Python of an environment with the versions of tests/platforms/images, made where there is none."""
    pins = (IMAGES / f"{image}.txt").read_text(encoding="utf-8")
    folder = Path(sys.prefix) / "images" / image
    python, built = folder / "bin/python", folder / "built-from.txt"
    if not built.is_file() or built.read_text(encoding="utf-8") != pins:
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        listed = folder / "listed.txt"
        listed.write_text(
            "".join(line for line in pins.splitlines(True) if not line.startswith(("python==", "torch==")))
        )
        install = [UV, "pip", "install", "-q", "--python", python, "--no-deps", "-r", listed]
        subprocess.run(install, check=True, env={**os.environ, "UV_SYSTEM_CERTS": "1", "UV_NO_CONFIG": "1"})
        subprocess.run([python, "-m", "pip", "install", "-q", "torch==2.13.0"], check=True)  # the local build
        built.write_text(pins, encoding="utf-8")
    return python


@dataclass
class PlatformSession:
    """One session on a twin: its folders and variables. The suite is a folder of its working folder, as a clone is."""

    image: str
    root: Path
    python: Path = field(init=False)
    environment: dict[str, str] = field(init=False)

    def __post_init__(self):
        self.python = build_twin(self.image)
        for folder in ("working", "input", "tmp", "home", "site/google/colab"):
            (self.root / folder).mkdir(parents=True)
        for name in SUITE:
            (self.suite / name).parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_file():
                shutil.copy(ROOT / name, self.suite / name)
            else:
                shutil.copytree(ROOT / name, self.suite / name, ignore=shutil.ignore_patterns("__pycache__"))
        (self.root / "site/google/colab/__init__.py").write_text("from . import drive\n")
        (self.root / "site/google/colab/drive.py").write_text(DRIVE)
        profile = self.root / "home/.ipython/profile_default"
        profile.mkdir(parents=True)
        (profile / "ipython_config.py").write_text("c = get_config()\nc.IPKernelApp.matplotlib = 'inline'\n")
        (self.root / "bin").mkdir()
        (self.root / "bin/uv").symlink_to(UV)
        kept = {name: os.environ[name] for name in ("LANG", "PIP_INDEX_URL", "UV_INDEX_URL") if name in os.environ}
        self.environment = {
            **kept,
            **VARIABLES[self.image],
            "HOME": str(self.root / "home"),
            "HF_HUB_OFFLINE": "1",
            "IPYTHONDIR": str(profile.parent),
            "JUPYTER_PLATFORM_DIRS": "1",
            "PATH": f"{self.python.parent}:{self.root / 'bin'}:/usr/bin:/bin",
            "PYTHONPATH": str(self.root / "site"),
            "SAHANUBHUTI_CACHE": os.environ["SAHANUBHUTI_CACHE"],
            "SAHANUBHUTI_KAGGLE": str(self.root),
            SESSION_START: str(boot_clock()),  # there the machine's own start; this one may be up for days
            "TMPDIR": str(self.root / "tmp"),
            "UV_SYSTEM_CERTS": "1",
        }

    @property
    def working(self) -> Path:
        """The folder that the platform starts notebooks in."""
        return self.root / "working"

    @property
    def suite(self) -> Path:
        """The copy of the suite."""
        return self.working / "sahanubhuti"

    def run(self, *arguments: str) -> subprocess.CompletedProcess:
        """Runs a command of the twin's Python in the working folder, with the suite on its path."""
        environment = {**self.environment, "PYTHONPATH": f"{self.suite / 'src'}:{self.environment['PYTHONPATH']}"}
        command = [str(self.python), *map(str, arguments)]
        return subprocess.run(command, cwd=self.working, env=environment, capture_output=True, text=True, timeout=1200)

    def open_notebook(self, notebook: Path, parameters: dict, first_cell: str = "") -> nbformat.NotebookNode:
        """Runs all cells in a fresh kernel of the twin, which starts as the platform's does; returns the notebook.

        `first_cell` is what the user runs before. Raises papermill.PapermillExecutionError as the notebook fails.
        """
        kernels = self.root / "jupyter/kernels/twin"
        kernels.mkdir(parents=True, exist_ok=True)
        arguments = [str(self.python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        start = [shutil.which("env"), "-i", *(f"{name}={value}" for name, value in self.environment.items())]
        spec = {"argv": [*start, *arguments], "display_name": "twin", "language": "python"}
        (kernels / "kernel.json").write_text(json.dumps(spec))
        source = nbformat.read(notebook, as_version=4)
        if first_cell:
            source.cells.insert(0, nbformat.v4.new_code_cell(first_cell))
        opened, executed = self.root / notebook.name, self.root / f"executed-{notebook.name}"
        nbformat.write(source, opened)
        with contextlib.ExitStack() as stack:
            environment = stack.enter_context(_changed(os.environ, JUPYTER_PATH=str(kernels.parents[1])))
            environment.pop("JUPYTER_PREFER_ENV_PATH", None)
            return papermill.execute_notebook(
                opened, executed, parameters, kernel_name="twin", cwd=str(self.working), progress_bar=False
            )


@contextlib.contextmanager
def _changed(environment, **variables):
    before = dict(environment)
    environment.update(variables)
    try:
        yield environment
    finally:
        environment.clear()
        environment.update(before)


def list_image(python: Path) -> dict[str, tuple[int, int]]:
    """Returns {file: (size, time of change)} of all that a twin's environment holds but compiled code."""
    folder = python.parents[1]
    files = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def printed_text(notebook: nbformat.NotebookNode) -> str:
    """Returns all that a notebook's cells printed."""
    return "".join(out.get("text", "") for cell in notebook.cells for out in cell.get("outputs", []))
