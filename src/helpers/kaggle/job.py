"""A run to be driven on Kaggle, checked here before anything is pushed."""

import re
from dataclasses import dataclass, replace

from helpers.planning.calibration import PLANNED_GPU
from helpers.planning.config import configure_training
from helpers.planning.plan import Plan, plan_preset
from helpers.platforms.errors import Refused
from helpers.runs.files import expand_home
from helpers.runs.record import Run
from helpers.runs.settings import Settings, resolve_settings


@dataclass(frozen=True)
class Job:
    """A run to be driven: its settings, and where its output is put here."""

    run: Run
    settings: Settings
    arguments: list[str]  # of `python -m helpers run` on Kaggle
    owner: str = ""  # Kaggle account
    plan: Plan | None = None  # on T4s; None where they are not needed

    @property
    def gpu(self) -> bool:
        """Whether a session needs the T4s: the embedded model does not."""
        return self.settings["train"]["base_model"] != "embedded"

    def kernel(self, number: int) -> str:
        """Returns the name of a session's notebook, OWNER/SLUG."""
        return f"{self.owner}/{self.slug(number)}"

    def slug(self, number: int) -> str:
        """Returns the part after the owner; Kaggle takes 50 characters."""
        return f"sahanubhuti-{re.sub('[^a-z0-9]+', '-', self.run.name.lower()).strip('-')}-{number}"


def make_job(preset: str, run_name: str, outputs: str, sets: list[str], tiny: bool) -> Job:
    """Returns the job of a preset. Raises Refused for whatever can be known not to work there."""
    settings = resolve_settings(preset, run_name, "outputs", sets, tiny)
    run = Run.named(expand_home(outputs), settings["report"]["run_name"])
    arguments = ["--preset", preset, "--run-name", run.name, *["--tiny"] * tiny, *(["--set", *sets] if sets else [])]
    job = Job(run, settings, arguments)
    if len(job.slug(99)) > 50:
        raise Refused(f"--run-name {run.name!r} makes a notebook's name longer than Kaggle's 50 characters.")
    dataset = settings["prepare_data"]["dataset"]
    if dataset != "embedded" and not dataset.startswith(("kaggle:", "hf:")):
        raise Refused(
            f"prepare_data.dataset is {dataset!r}, a file of this machine: make it a Kaggle data set and pass "
            f"'kaggle:owner/name'."
        )
    try:
        configure_training(settings["train"])
        return replace(job, plan=plan_preset(settings, run, gpu=PLANNED_GPU)) if job.gpu else job
    except ValueError as error:
        raise Refused(str(error)) from error
