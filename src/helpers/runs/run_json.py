"""The content of run.json: which stages ran with which settings, and in which sessions."""

import datetime
import json
from collections.abc import Iterable
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Session(BaseModel):
    """One entry of run.json's `sessions`: which stage ran, from which step to which, and why it ended."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)
    stage: str
    started: str  # ISO 8601 in UTC
    from_step: int | None = Field(default=None, alias="from")  # optimizer step; None for a stage without steps
    ended: str | None = None  # "unknown" for a session that was killed
    to_step: int | None = Field(default=None, alias="to")
    reason: str = ""


def session_times(session: Session) -> tuple[datetime.datetime, datetime.datetime | None]:
    """Returns a session's start and end; None for the end of one that was killed or is running."""
    start = datetime.datetime.fromisoformat(session.started)
    return start, None if session.ended in (None, "unknown") else datetime.datetime.fromisoformat(session.ended)


def stage_hours(sessions: Iterable[Session]) -> dict[str, float]:
    """Returns the hours of each stage over its sessions, of those whose end is known."""
    hours: dict[str, float] = {}
    for session in sessions:
        start, end = session_times(session)
        if end:
            hours[session.stage] = hours.get(session.stage, 0.0) + (end - start).total_seconds() / 3600
    return hours


FORCED = "forced"  # a stage's status: it is to run from its start, and what it has left counts no more


class StageRecord(BaseModel):
    """One entry of run.json's `stages`."""

    model_config = ConfigDict(extra="allow")
    status: str = ""  # running, finished, paused, failed or FORCED
    parameters: dict[str, Any] = {}
    inputs: dict[str, str] = {}  # file: SHA-256
    started: str | None = None
    ended: str | None = None
    error: str | None = None
    versions: dict[str, str] = {}
    gpu: list[str] = []
    git_sha: str = ""
    paused: dict[str, Any] | None = None  # step, steps, reason


RENAMED_PARAMETERS = {"judge": "llm_judge"}  # {name in a run of the earlier version: present name}


class RunRecord(BaseModel):
    """The content of run.json. Fields of later versions are kept."""

    model_config = ConfigDict(extra="allow")
    run_name: str = ""
    id: str | None = None  # tells the run from every other, whatever its folder is called
    preset: str = ""
    settings: dict[str, dict[str, Any]] = {}  # stage: {parameter: value}
    commands: list[str] = []  # the command lines that started the run
    stages: dict[str, StageRecord] = {}
    forced: list[str] = []  # the stages of a run with --force that is under way
    sessions: list[Session] = []
    images: list[str] = []  # Kaggle's docker images in the order of the sessions, each again only after another

    @model_validator(mode="after")
    def rename_parameters(self) -> Self:
        """Gives parameters that were renamed since the run was made their present names."""
        for parameters in [*self.settings.values(), *(stage.parameters for stage in self.stages.values())]:
            for old, new in RENAMED_PARAMETERS.items():
                if old in parameters:
                    parameters[new] = parameters.pop(old)
        return self

    def to_text(self) -> str:
        """Returns it as JSON. Raises ValueError for what JSON does not have."""
        content = self.model_dump(mode="json", by_alias=True, exclude_unset=True)
        return json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def parse_record(text: str | bytes) -> RunRecord | None:
    """Returns the record that a text holds, None when it is damaged: what is read can be written again."""
    try:
        record = RunRecord.model_validate_json(text)
        json.dumps(record.model_dump(), allow_nan=False)
    except (ValueError, RecursionError):
        return None
    return record
