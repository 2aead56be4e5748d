"""A run to be driven on Kaggle, checked here before anything is pushed."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from helpers.planning.calibration import PLANNED_GPU
from helpers.planning.config import configure_training
from helpers.planning.plan import Plan, plan_preset
from helpers.planning.precision import check_planned_activations
from helpers.platforms.errors import Refused
from helpers.preference.config import check_settings
from helpers.preference.plan import estimate_preference
from helpers.preference.sources import check_dataset, is_on_kaggle
from helpers.runs.files import expand_home
from helpers.runs.record import Run
from helpers.runs.settings import Settings, resolve_settings
from helpers.runs.stages import MAIN_STAGES, sort_stages

UPLOAD = (
    "Upload it with `python -m helpers kaggle upload --file FILE`, and set prefer.dataset to the 'kaggle:owner/name' "
    "that this prints."
)
INSTEAD = {  # what to do about a source that no session can read
    "thumbs": "`python -m helpers experiments` writes the thumbs to preferences.jsonl beside the database. The chat "
    f"page tells people that these stay on its computer: ask them first. {UPLOAD}",
    "ratings": "Ratings are of test rows, which have to leave the evaluation: pull the run, and run prefer where the "
    "ratings and a GPU are, such as in colab.ipynb.",
}


@dataclass(frozen=True)
class Job:
    """A run to be driven: its settings, and where its output is put here."""

    run: Run
    settings: Settings
    arguments: list[str]  # of `python -m helpers run` on Kaggle
    owner: str = ""  # Kaggle account
    plan: Plan | None = None  # on T4s; None where they are not needed
    stages: tuple[str, ...] = MAIN_STAGES  # that a session runs
    prefer_hours: float = 0.0  # that a training by preferences is planned to take, and the evaluation of its model

    @property
    def gpu(self) -> bool:
        """Whether a session needs the T4s: the embedded model does not."""
        return self.settings["train"]["base_model"] != "embedded"

    @property
    def datasets(self) -> list[str]:
        """The data sets on Kaggle that a session reads, OWNER/NAME."""
        named = [self.settings["prepare_data"]["dataset"]]
        named += self.settings["prefer"]["dataset"] if "prefer" in self.stages else []
        return [name.removeprefix("kaggle:") for name in named if name.startswith("kaggle:")]

    def kernel(self, number: int) -> str:
        """Returns the name of a session's notebook, OWNER/SLUG."""
        return f"{self.owner}/{self.slug(number)}"

    def slug(self, number: int) -> str:
        """Returns the part after the owner; Kaggle takes 50 characters."""
        return f"sahanubhuti-{re.sub('[^a-z0-9]+', '-', self.run.name.lower()).strip('-')}-{number}"


def make_job(preset: str, run_name: str, outputs: str, sets: list[str], tiny: bool, stages: Iterable[str] = ()) -> Job:
    """Returns the job of a preset, for its main stages unless others are named. Raises Refused for whatever can be
    known not to work there."""
    settings = resolve_settings(preset, run_name, "outputs", sets, tiny)
    run = Run.named(expand_home(outputs), settings["report"]["run_name"])
    arguments = ["--preset", preset, "--run-name", run.name, *["--tiny"] * tiny, *(["--set", *sets] if sets else [])]
    arguments += ["--stages", ",".join(stages)] if stages else []
    job = Job(run, settings, arguments, stages=tuple(sort_stages(stages or MAIN_STAGES)))
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
        if "prefer" in job.stages:
            check_preferences_there(settings["prefer"])
        if not job.gpu:
            return job
        check_planned_activations(settings["train"], PLANNED_GPU)
        job = replace(job, plan=plan_preset(settings, run, gpu=PLANNED_GPU))
        if "prefer" not in job.stages:
            return job
        return replace(job, prefer_hours=estimate_preference(settings, run, gpu=PLANNED_GPU)["hours"]["total"])
    except ValueError as error:
        raise Refused(str(error)) from error


def check_preferences_there(preferences: dict[str, Any]) -> None:
    """Raises ValueError for settings of the stage prefer that are none, and for sources that a session cannot read."""
    check_dataset(preferences["dataset"])
    check_settings(preferences["trl"])
    if here := [name for name in preferences["dataset"] if not is_on_kaggle(name)]:
        raise ValueError(f"prefer.dataset names {here[0]!r}, which is on this machine. {INSTEAD.get(here[0], UPLOAD)}")
