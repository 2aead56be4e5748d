"""A copy of the run elsewhere (a mounted Drive, the Hub), and the way back from it or an earlier session."""

import contextlib
import shutil
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterable
from operator import itemgetter
from pathlib import Path

from helpers.platforms.errors import Refused, describe_error
from helpers.platforms.machine import KAGGLE_FOLDER
from helpers.runs.archives import FolderStore, Store, open_store, unpack_archive
from helpers.runs.checkpoints import (
    archive_name,
    archived_steps,
    checkpoint_folders,
    place_checkpoint,
    step_of,
    verify_checkpoint,
)
from helpers.runs.files import write_folder
from helpers.runs.lock import RunLock, check_lease
from helpers.runs.record import RECORDS, Run
from helpers.runs.run_json import parse_record
from helpers.runs.stages import TRAINING_STAGES

KAGGLE_INPUT = KAGGLE_FOLDER / "input"

CHECKPOINTS = tuple(f"{stage}/checkpoints" for stage in TRAINING_STAGES)  # folders of a run

MIRROR_SECONDS = 60.0  # seconds between two looks at what is new


def remove_mirrored_checkpoints(run: Run, stage: str, session: dict) -> None:
    """Removes a stage's checkpoints from a run's mirror, because the stage starts again."""
    store = open_store(session["mirror"], run.name) if session["mirror"] else None
    if store:
        for step in archived_steps(store.names(), stage):
            store.remove(archive_name(stage, step))


class Mirror(threading.Thread):
    """A thread that copies a run to a store while something works on it: run.tar, a tar file per checkpoint, its page.

    It copies while a `with` block runs, and once more at its end. Each archive is verified after copying; the newest
    `keep` checkpoints stay. A store that cannot be written is reported once and tried again; the work never waits for
    it.
    """

    def __init__(self, run: Run, store: Store, keep: int) -> None:
        super().__init__(daemon=True)
        self.run_folder, self.store, self.keep = run.folder, store, max(1, keep)
        self.over, self.problem, self.stamp = threading.Event(), "", set()

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self.join()
        self.try_copy()

    def run(self) -> None:
        """Copies every MIRROR_SECONDS until `over` is set."""
        while not self.over.wait(MIRROR_SECONDS):
            self.try_copy()

    def try_copy(self) -> None:
        """Copies what is new; prints what went wrong, once."""
        try:
            self.copy()
            self.problem = ""
        except Exception as error:  # the Hub's, the network's, the system's: none of them may end the work
            if (problem := describe_error(error)) != self.problem:
                print(f"the mirror {self.store} was not written ({problem}); it is tried again", flush=True)
                self.problem = problem

    def copy(self) -> None:
        """Copies checkpoints first, so that run.tar never names one that is not there.

        Raises OSError, also when another holder has taken the run over at its mirror.
        """
        check_lease(self.store.lease())
        for stage in TRAINING_STAGES:
            self.copy_checkpoints(stage)
        kept = {self.run_folder / folder for folder in CHECKPOINTS}
        files = [path for path in self.run_folder.rglob("*") if path.is_file() and not kept & {*path.parents}]
        stamp = {(path, path.stat().st_mtime_ns, path.stat().st_size) for path in files}
        if stamp != self.stamp:
            self.store.put(self.run_folder, "run.tar", (*CHECKPOINTS, ".lock", "stop"))
            page = self.run_folder / "report" / "index.html"
            if page in [path for path, *_ in stamp - self.stamp]:
                self.store.put_report(page)
            self.stamp = stamp

    def copy_checkpoints(self, stage: str) -> None:
        """Copies a stage's newest `keep` checkpoints that are not at the mirror, and removes older ones there."""
        steps = archived_steps(self.store.names(), stage)
        for folder in checkpoint_folders(self.run_folder / stage / "checkpoints")[-self.keep :]:
            if (step := step_of(folder)) not in steps and not verify_checkpoint(folder):
                self.store.put(folder, archive_name(stage, step))
                steps.append(step)
        for step in sorted(steps)[: -self.keep]:
            self.store.remove(archive_name(stage, step))


def mirrored(run: Run, session: dict) -> contextlib.AbstractContextManager[None]:
    """Mirrors the run to session["mirror"], if that is set, while the block runs, and once more at its end."""
    if not session["mirror"]:
        return contextlib.nullcontext()
    return Mirror(run, open_store(session["mirror"], run.name), session["keep"])


def mirror_report(run: Run, session: dict) -> None:
    """Copies a run's page, which was written after the mirror's last look, to session["mirror"], if that is set."""
    if session["mirror"]:
        open_store(session["mirror"], run.name).put_report(run / "report" / "index.html")


def hold_run(run: Run, mirrors: Iterable[str], runner: bool = False) -> None:
    """Takes a run, and its leases at its mirrors, for this process; see `Run.lock`.

    Raises ValueError as `open_store` does, and Refused, before anything is written, for a mirror that lies in the run
    or holds another run of this name.
    """
    stores = [open_store(mirror, run.name) for mirror in dict.fromkeys(filter(None, mirrors))]
    for store in stores:
        if isinstance(store, FolderStore) and store.folder.resolve().is_relative_to(run.folder.resolve()):
            raise Refused(
                f"session.mirror would keep the copy of run {run.name} in the run itself, {store}: choose a folder "
                f"outside {run.outputs}. Nothing was changed."
            )
    own = "" if not stores or RunLock(run.folder).is_of_family() else run.record().id  # a family's runner has looked
    for store in stores if own else []:
        try:
            there = mirrored_run_id(store)
        except Exception as error:  # the Hub's, the network's, the system's
            raise Refused(
                f"run {run.name}: its mirror {store} cannot be read ({describe_error(error)}). Mend that, or choose "
                f"another session.mirror. Nothing was changed."
            ) from error
        check_same_run(run.name, own, store, there)
    run.lock([store.lease() for store in stores], runner=runner)


def mirrored_run_id(store: Store) -> str | None:
    """Returns the id of the run whose copy a store holds; None without a copy, and for one of a run without an id."""
    if "run.tar" not in store.names():
        return None
    with tempfile.TemporaryDirectory() as scratch:
        return archived_run_id(store.get("run.tar", Path(scratch)))


def archived_run_id(archive: Path) -> str | None:
    """Returns the id in the record of a run's archive, None where there is none that can be read."""
    with contextlib.suppress(tarfile.TarError, LookupError, ValueError), tarfile.open(archive, "r:") as tar:
        for name in filter(tar.getnames().__contains__, RECORDS):
            file = tar.extractfile(name)
            if file and (record := parse_record(file.read())):
                return record.id
    return None


def check_same_run(name: str, own: str | None, store: Store | None, there: str | None) -> None:
    """Raises Refused when a run and the copy at its mirror have different ids: the copy would be replaced."""
    if own and there and own != there:
        raise Refused(
            f"the mirror {store} holds another run called {name} (id {there[:8]}, this run's is {own[:8]}), which this "
            f"one would replace: choose another run name or session.mirror. Nothing was changed."
        )


def restore_run(run: Run, mirror: str, force: bool = False) -> list[str]:
    """Brings a run here that an earlier session left elsewhere, and newer checkpoints; returns a line per thing done.

    It looks at the mirror, and at every input of Kaggle. Nothing here is replaced by something older, and nothing
    invalid is taken. Raises ValueError when all there is of the run is a mirror that cannot be read, and Refused when a
    Kaggle input and the mirror hold different runs of this name and the input's got further. With `force`, a run here
    is left as it is unless it has stages forced before, and a mirror that cannot be read is replaced.
    """
    if force and run.exists() and not run.record().forced:
        return []
    store = open_store(mirror, run.name) if mirror else None
    archives = store.names() if store else []
    records = [path for depth in range(1, 7) for path in KAGGLE_INPUT.glob("*/" * depth + f"{run.name}/run*.json")]
    inputs = [*dict.fromkeys(path.parent for path in records if path.name in RECORDS)]
    with tempfile.TemporaryDirectory() as scratch:
        try:
            lines = [] if run.exists() else _restore_folder(run, inputs, store, archives, Path(scratch))
        except ValueError as error:
            if not force:
                raise
            return [f"{error} --force replaces it."]
        for stage in TRAINING_STAGES:
            lines += _restore_checkpoint(run, stage, inputs, store, archives, Path(scratch))
        return lines


def _restore_folder(run: Run, inputs: list[Path], store: Store | None, archives: list[str], scratch: Path) -> list[str]:
    """Copies the run from the source that got furthest: stages finished, then the newest checkpoint."""
    lines, sources = [], []
    for folder in inputs:
        steps = [step_of(path) for part in CHECKPOINTS for path in checkpoint_folders(folder / part)]
        sources.append((_stages_finished(folder), max(steps, default=-1), str(folder), folder))
    if store and "run.tar" in archives:
        try:
            unpack_archive(store.get("run.tar", scratch), scratch / run.name)
            steps = [step for stage in TRAINING_STAGES for step in archived_steps(archives, stage)]
            step, folder = max(steps, default=-1), scratch / run.name
            sources.append((_stages_finished(folder), step, str(store), folder))
        except (OSError, tarfile.TarError) as error:
            if not sources:
                raise ValueError(
                    f"{store} holds run {run.name}, but its run.tar cannot be read ({describe_error(error)}). A new "
                    f"run would take its place: repair or move it, or choose another --run-name."
                ) from error
            lines.append(f"skipped {store}: {describe_error(error)}")
    if sources:
        *_, label, folder = max(sources, key=lambda source: source[:2])
        check_same_run(run.name, _run_id(folder), store, _run_id(scratch / run.name))
        with write_folder(run.folder) as part:
            _copy(folder, part, shutil.ignore_patterns("checkpoint-*", ".*", "stop"))
        lines.append(f"run {run.name} resumes from {label}")
    return lines


def _restore_checkpoint(
    run: Run, stage: str, inputs: list[Path], store: Store | None, archives: list[str], scratch: Path
) -> list[str]:
    """Copies a stage's newest valid checkpoint that is newer than those here."""
    lines, kept = [], run / stage / "checkpoints"
    here = max((step_of(path) for path in checkpoint_folders(kept) if not verify_checkpoint(path)), default=-1)
    own = _run_id(run.folder)
    inputs = [folder for folder in inputs if own is None or _run_id(folder) in (own, None)]  # no other run's
    folders = [path for folder in inputs for path in checkpoint_folders(folder / stage / "checkpoints")]
    sources: list[tuple[int, Path | str]] = [(step_of(path), path) for path in folders]
    sources = [(step, archive_name(stage, step)) for step in archived_steps(archives, stage)] + sources
    for step, source in sorted(sources, key=itemgetter(0), reverse=True):
        if step <= here:
            break
        label = source if isinstance(source, Path) else f"{store}/{source}"
        restored = kept / ".restored" / f"checkpoint-{step}"
        try:
            if isinstance(source, Path):
                _copy(source, restored)
            elif store:
                unpack_archive(store.get(source, scratch), restored)
            place_checkpoint(restored, kept / restored.name)
            lines.append(f"{restored.name} comes from {label}")
            break
        except (OSError, tarfile.TarError) as error:
            lines.append(f"skipped {label}: {describe_error(error)}")
        finally:
            shutil.rmtree(kept / ".restored", ignore_errors=True)
    return lines


def _run_id(folder: Path) -> str | None:
    """Returns the id of the run in a folder, None where it has none."""
    return Run(folder).record().id


def _stages_finished(folder: Path) -> int:
    """Returns how many stages of a run's folder have finished."""
    return sum(stage.status == "finished" for stage in Run(folder).record().stages.values())


def _copy(source: Path, target: Path, ignore: Callable | None = None) -> None:
    """Copies a folder that may be read-only to one that can be written."""
    shutil.copytree(source, target, ignore=ignore, copy_function=shutil.copyfile, dirs_exist_ok=True)
    for path in (target, *target.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
