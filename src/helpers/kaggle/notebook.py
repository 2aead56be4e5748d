"""The notebook of one session: the whole suite, the command, and the list of the files it leaves."""

import base64
import io
import sys
import tarfile
from functools import lru_cache
from pathlib import Path

from helpers.kaggle.job import Job
from helpers.platforms.environment import ROOT
from helpers.platforms.errors import REFUSED, Refused
from helpers.platforms.overlay import LOCK, REQUIREMENTS
from helpers.platforms.processes import run_child
from helpers.runs.checkpoints import list_files
from helpers.runs.files import write_json
from helpers.runs.record import Run

SUITE = ("src/helpers", "notebooks", *REQUIREMENTS, LOCK, "pyproject.toml")
LINE = 4000  # characters of the packed suite in a line of the notebook: short ones would add an eighth to Kaggle's 1 MB
PLACE = "the packed suite"  # where it goes in the notebook's code
LISTING = "files.json"  # a session's last file: size and SHA-256 of all others of the run


def suite_files() -> dict[str, Path]:
    """Returns {place in the suite: file} of what a run needs: of a notebook's pair the .ipynb. Raises Refused outside a
    checkout."""
    files = []
    for name in SUITE:
        if not (ROOT / name).exists():
            raise Refused(f"{ROOT / name} is missing: start in a checkout of the suite.")
        files += sorted(path for path in (ROOT / name, *(ROOT / name).rglob("*")) if path.is_file())
    twins = {*(ROOT / "notebooks").glob("*.py")}
    return {
        str(path.relative_to(ROOT)): path for path in files if "__pycache__" not in path.parts and path not in twins
    }


def pack_suite() -> bytes:
    """Returns the suite as a tar.xz, the same for the same files. Raises Refused outside a checkout."""
    return pack_files(tuple((name, path.read_bytes()) for name, path in suite_files().items()))


@lru_cache(maxsize=1)  # the sessions of a chain take the same
def pack_files(files: tuple[tuple[str, bytes], ...]) -> bytes:
    """Returns files as a tar.xz."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as tar:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def session_notebook(job: Job, number: int, hours: float) -> str:
    """Returns the .ipynb text of session `number`: the whole suite, and the command that it runs.

    `hours` limits the session, 0 means Kaggle's own limit.
    """
    import jinja2
    import jupytext

    template = Path(__file__).with_name("session_notebook.py.j2").read_text(encoding="utf-8")
    arguments = [*job.arguments, *(["--set", f"shared.session.hours={hours:.2f}"] if hours else [])]
    packed = base64.b85encode(pack_suite()).decode()  # a sixteenth shorter than in base 64
    suite = "".join(f"{packed[place : place + LINE]}\n" for place in range(0, len(packed), LINE))
    source = jinja2.Template(template).render(run_name=job.run.name, number=number, arguments=arguments, suite=PLACE)
    notebook = jupytext.reads(source, fmt="py:percent")
    code = notebook.cells[1]
    code.source = code.source.replace(PLACE, suite)  # only now: jupytext would read so long a text for seconds
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    for place, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{place}"  # else random: the same session would have another text every time
    return jupytext.writes(notebook, fmt="ipynb")


def kernel_metadata(job: Job, number: int, source: str, image: str) -> dict:
    """Returns kernel-metadata.json for session `number`, which resumes from the output of the notebook `source`.

    `image` is the docker image that it runs on, "" for Kaggle's newest. The notebook keeps it, so that it can be asked.
    """
    return {
        "id": job.kernel(number),
        "title": job.slug(number).replace("-", " "),
        "code_file": f"{job.slug(number)}.ipynb",
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": job.gpu,
        "enable_internet": True,
        "machine_shape": "NvidiaTeslaT4" if job.gpu else "",
        "dataset_sources": job.datasets,
        "kernel_sources": [source] if source else [],
        "docker_image_pinning_type": "original",
        **({"docker_image": image} if image else {}),
    }


def run_session(arguments: list[str], run_name: str) -> None:
    """Runs the suite in the working folder of a session's notebook, and lists the files it leaves.

    A failed stage ends the session without an error, so that Kaggle keeps the output: run.json has the reason.
    Raises RuntimeError when there is nothing to keep.
    """
    code = run_child([sys.executable, "-m", "helpers", "run", *arguments])
    run = Run.named("outputs", run_name)
    if code == REFUSED or not run.exists():
        raise RuntimeError(f"nothing was run (exit code {code}): the reason is above.")
    files = list_files(run.folder)
    files.pop(LISTING, None)  # of an earlier session
    write_json(run / LISTING, files)
