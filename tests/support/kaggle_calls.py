"""Commands for the stand-in of Kaggle, and what its sessions leave where nothing is executed."""

from kaggle_machine import Status

from helpers.__main__ import main
from helpers.kaggle.notebook import LISTING
from helpers.runs.checkpoints import list_files
from helpers.runs.files import read_json, write_json, write_text
from helpers.runs.stages import MAIN_STAGES

STAGES = dict.fromkeys(MAIN_STAGES, "finished")
PAUSED, BROKEN = {"train": "paused", "report": ""}, {"evaluate": "failed"}


def leaving(*scripts):
    """Returns a script for the machine: session N leaves what the N-th of `scripts` says, (stages, step) or None."""

    def session(request, folder, sources):
        left = scripts[int(request.slug.rpartition("-")[2]) - 1]
        if left is None:
            return Status.ERROR, "stopped: over the time of a session"
        stages, step = left
        run = folder / "outputs" / request.slug.removeprefix("someone/sahanubhuti-").rpartition("-")[0]
        if sources:
            begun = read_json(sources[0] / "outputs" / run.name / "run.json")["sessions"][-1]["to"]
            assert begun <= step
        facts = {name: {"status": status, "error": "it broke"} for name, status in {**STAGES, **stages}.items()}
        session = {"stage": "train", "started": "2026-11-20T00:00:00+00:00", "from": 0, "to": step}
        write_json(run / "run.json", {"stages": facts, "sessions": [session]})
        write_text(run / "report/index.html", f"উত্তর {step}")
        write_text(run / f"train/checkpoints/checkpoint-{step}/adapter", "weights")
        write_json(run / LISTING, list_files(run))
        return Status.COMPLETE, ""

    return session


def call(action, outputs, *more, preset="demo"):
    return main(["kaggle", action, "--preset", preset, "--outputs", str(outputs), "--every", "0.05", *more])
