"""Checkpoints that can be trusted: whole, of this run, and never half-written.

A checkpoint is a folder checkpoint-STEP. It is filled beside, sealed with a manifest (every file's size and SHA-256,
and the fingerprint of data, settings and versions), and then renamed: without a whole manifest it does not count.

python -m helpers.checkpoints verify PATH says whether one is whole; exit code 1 and the reason if not.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import sys
import tarfile
import tempfile
import threading
from pathlib import Path

from helpers import env

MANIFEST = "manifest.json"
FORMAT = 1  # of the manifest; a later one is not understood and passed over
HARMLESS = frozenset(  # of sft: they change what is said and kept, not what is learnt
    "logging_steps logging_strategy logging_first_step report_to save_strategy save_steps save_total_limit".split()
)


def fingerprint(run_id: str, config: dict, data: dict[str, str], world_size: int) -> dict:
    """Returns what makes a run this run: {"run", "settings": {name: value}, "data": {file: SHA-256}, "versions"}."""
    settings = {f"train.{name}": value for name, value in config.items() if name not in ("sft", "lora", "session")}
    settings |= {f"lora.{name}": value for name, value in config["lora"].items()}
    settings |= {f"sft.{name}": value for name, value in config["sft"].items() if name not in HARMLESS}
    for name in ("num_gpus", "eval_rows", "pause_at", "part_of"):
        settings.pop(f"train.{name}", None)
    settings.pop("train.base_model_path", None)  # a place of this machine
    settings["processes"] = world_size
    return {"run": run_id, "settings": settings, "data": data, "versions": env.versions()}


def differences(before: dict, now: dict) -> list[str]:
    """Returns what changed between two fingerprints, one line each; versions are not counted."""
    found = []
    for part in ("settings", "data"):
        for name in sorted({*before[part], *now[part]}):
            old, new = before[part].get(name, "not there"), now[part].get(name, "not there")
            if json.loads(json.dumps(old)) != json.loads(json.dumps(new)):
                found.append(f"{name} was {str(old)[:80]}, now {str(new)[:80]}")
    return found


def listing(folder: Path) -> dict[str, dict]:
    """Returns {file: {"size", "sha256"}} of everything below a folder but hidden files."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {str(path.relative_to(folder)): path for path in files}
    return {
        name: {"size": path.stat().st_size, "sha256": env.sha256(path)}
        for name, path in names.items()
        if not any(part.startswith(".") for part in Path(name).parts)
    }


def compare(folder: Path, files: dict[str, dict]) -> str:
    """Returns "" when a folder holds these files as listed, else the first difference."""
    for name, expected in files.items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != expected["size"]:
            return f"{name} has {file.stat().st_size} bytes, expected {expected['size']}"
        if env.sha256(file) != expected["sha256"]:
            return f"{name} has other content than was written"
    return ""


def seal(folder: Path, step: int, run_fingerprint: dict) -> None:
    """Writes the manifest of a filled folder, last, after its files have reached the disk."""
    for path in filter(Path.is_file, folder.rglob("*")):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    files = listing(folder)
    manifest = {"format": FORMAT, "step": step, "written": env.now(), "fingerprint": run_fingerprint, "files": files}
    env.write_json(folder / MANIFEST, manifest)


def verify(folder: Path) -> str:
    """Returns "" for a whole checkpoint, else what is wrong with it."""
    path = folder / MANIFEST
    if not folder.is_dir():
        return "no such folder"
    if not path.is_file():
        return f"{MANIFEST} is missing: it was not finished"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["format"] > FORMAT:
            return f"{MANIFEST} has format {manifest['format']}, this suite reads up to {FORMAT}"
        files = manifest["files"]
        if not files or not isinstance(manifest["step"], int) or "settings" not in manifest["fingerprint"]:
            return f"{MANIFEST} names no files or no step"
    except (ValueError, KeyError, TypeError) as error:
        return f"{MANIFEST} cannot be read ({env.brief(error)})"
    return compare(folder, files)


def step_of(folder: Path) -> int:
    """Returns the step in the name of a checkpoint's folder or archive, -1 where there is none."""
    found = re.fullmatch(r"checkpoint-(\d+)(?:\.tar)?", folder.name)
    return int(found.group(1)) if found else -1


def newest(root: Path, run_fingerprint: dict) -> tuple[Path | None, list[str]]:
    """Returns the newest whole checkpoint of this run below `root`, or None, and why newer ones were passed over.

    Raises ValueError when the newest whole one is of other settings or data: what changed, and what to do.
    """
    passed = []
    folders = [path for path in root.glob("checkpoint-*") if step_of(path) >= 0] if root.is_dir() else []
    for folder in sorted(folders, key=step_of, reverse=True):
        problem = verify(folder)
        if problem:
            passed.append(f"{folder.name}: {problem}")
            continue
        found = env.read_json(folder / MANIFEST)["fingerprint"]
        if found.get("run") != run_fingerprint.get("run"):
            passed.append(f"{folder.name}: it is another run's")
            continue
        if changed := differences(found, run_fingerprint):
            raise ValueError(
                f"{folder} was made with other settings or data: {'; '.join(changed)}. Set them back to go on, use "
                f"another run_name, or --force to start again (in a notebook: remove {root})."
            )
        return folder, passed
    return None, passed


def place_checkpoint(filled: Path, folder: Path) -> None:
    """Puts a sealed folder in its place; raises OSError, and leaves what stands there, when it is not whole."""
    problem = verify(filled)
    if problem:
        raise OSError(f"the checkpoint written to {filled} is not whole: {problem}. The one before is kept.")
    shutil.rmtree(folder, ignore_errors=True)
    filled.rename(folder)


def prune(root: Path, keep: int, also: set[int] = frozenset()) -> None:
    """Removes all but the newest `keep` checkpoints (0: none is removed) and those of the steps `also`."""
    folders = sorted((path for path in root.glob("checkpoint-*") if step_of(path) >= 0), key=step_of)
    for folder in folders[:-keep] if keep else []:
        if step_of(folder) not in also:
            gone = folder.with_name(f".gone-{folder.name}")  # no longer a checkpoint before its first file goes
            folder.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)


def room(folder: Path, needed: int) -> str:
    """Returns "" when the disk below `folder` has `needed` bytes free, else a line that says what it has."""
    free = shutil.disk_usage(folder).free
    return "" if free >= needed else f"{free / 2**20:.0f} MiB are free, a checkpoint takes {needed / 2**20:.0f} MiB"


# Elsewhere: a mirrored folder, an earlier session's output

INPUTS = env.KAGGLE / "input"
EVERY = 60.0  # seconds between two looks at what is new


def pack(folder: Path, archive: Path, skip=()) -> None:
    """Writes a folder as one tar file: beside, read back and compared, then renamed. OSError when it differs."""
    beside = archive.with_name(f".{archive.name}.part")
    archive.parent.mkdir(parents=True, exist_ok=True)
    written = {}
    try:
        with tarfile.open(beside, "w") as tar:
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                name = str(path.relative_to(folder))
                if any(name == part or name.startswith(f"{part}/") for part in skip):
                    continue
                content = path.read_bytes()  # whole, though it may be growing
                written[name] = hashlib.sha256(content).hexdigest()
                entry = tarfile.TarInfo(name)
                entry.size, entry.mtime = len(content), int(path.stat().st_mtime)
                tar.addfile(entry, io.BytesIO(content))
        with open(beside, "rb") as file:
            os.fsync(file.fileno())
        with tarfile.open(beside) as tar:
            for entry in tar:
                if hashlib.sha256(tar.extractfile(entry).read()).hexdigest() != written.pop(entry.name, ""):
                    raise OSError(f"{archive.name}: {entry.name} differs after copying")
        if written:
            raise OSError(f"{archive.name}: {', '.join(written)} is missing after copying")
        os.replace(beside, archive)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks an archive beside a folder and puts it in its place; nothing is written outside of it."""
    beside = folder.with_name(f".{folder.name}.unpacked")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(beside, filter="data")
        shutil.rmtree(folder, ignore_errors=True)
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


class Folder:
    """A place for archives: a folder, such as one of a mounted Drive."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __str__(self):
        return str(self.folder)

    def names(self) -> list[str]:
        """Returns the names of the archives there."""
        return sorted(path.name for path in self.folder.glob("*.tar"))

    def put(self, source: Path, name: str, skip=()) -> None:
        """Packs a folder there; see `pack`."""
        pack(source, self.folder / name, skip)

    def get(self, name: str, scratch: Path) -> Path:
        """Returns where an archive can be read."""
        return self.folder / name

    def remove(self, name: str) -> None:
        """Removes an archive."""
        (self.folder / name).unlink()


class Hub:
    """A place for archives: a folder of a private model repository of the Hugging Face Hub, made when it is missing.

    The token is the secret HF_TOKEN of the platform, or the environment's. What is removed stays in the repository's
    history until it is squashed there.
    """

    def __init__(self, repo_id: str, folder: str):
        import huggingface_hub

        self.api, self.repo_id, self.folder = huggingface_hub.HfApi(token=env.secret("HF_TOKEN")), repo_id, folder

    def __str__(self):
        return f"hf:{self.repo_id}/{self.folder}"

    def names(self) -> list[str]:
        """Returns the names of the archives there."""
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            files = self.api.list_repo_files(self.repo_id)
        except RepositoryNotFoundError:
            return []
        return sorted(name.rpartition("/")[2] for name in files if name.startswith(f"{self.folder}/"))

    def put(self, source: Path, name: str, skip=()) -> None:
        """Packs a folder here, uploads it and compares; raises OSError when another content arrived."""
        with tempfile.TemporaryDirectory() as scratch:
            archive, path = Path(scratch) / name, f"{self.folder}/{name}"
            pack(source, archive, skip)
            self.api.create_repo(self.repo_id, private=True, exist_ok=True)
            self.api.upload_file(path_or_fileobj=archive, path_in_repo=path, repo_id=self.repo_id)
            arrived = self.api.get_paths_info(self.repo_id, [path])
            if not arrived or not arrived[0].lfs or arrived[0].lfs.sha256 != env.sha256(archive):
                raise OSError(f"{path} differs after uploading")

    def get(self, name: str, scratch: Path) -> Path:
        """Downloads an archive below `scratch` and returns where it is."""
        return Path(self.api.hf_hub_download(self.repo_id, f"{self.folder}/{name}", local_dir=scratch))

    def remove(self, name: str) -> None:
        """Removes an archive."""
        self.api.delete_file(f"{self.folder}/{name}", self.repo_id)


def place_of(mirror: str, run_name: str):
    """Returns where a run is mirrored: "hf:owner/name" is a Hub repository, anything else a folder.

    Raises ValueError when the folder above is not there, or the Hub's token: what is not mounted would be lost.
    """
    if mirror.startswith("hf:"):
        return Hub(mirror[3:], run_name)
    above = Path(mirror).expanduser().absolute().parent
    if not above.is_dir():
        raise ValueError(
            f"session.mirror is {mirror!r}, but {above} is not there. Mount the Drive, or make the folder."
        )
    return Folder(Path(mirror).expanduser() / run_name)


def forget(run: Path, session: dict) -> None:
    """Removes a run's checkpoints from its mirror, because it starts again."""
    place = place_of(session["mirror"], run.name) if session["mirror"] else None
    for name in _by_step(place.names()) if place else []:
        place.remove(name)


class Mirror(threading.Thread):
    """Copies a run to another place, beside whatever works on it: run.tar, and a tar file a checkpoint.

    Each is verified after copying; the newest `keep` checkpoints stay. A mirror that cannot be written is said once and
    tried again; the work is never held up.
    """

    def __init__(self, run: Path, place, keep: int):
        super().__init__(daemon=True)
        self.run_folder, self.place, self.keep = run, place, max(1, keep)
        self.over, self.said, self.stamp = threading.Event(), "", None

    def run(self):
        while not self.over.wait(EVERY):
            self.look()

    def look(self) -> None:
        """Copies what is new; says what went wrong, once."""
        try:
            self.copy()
            self.said = ""
        except Exception as error:  # the Hub's, the network's, the system's: none of them may end the work
            if (problem := env.brief(error)) != self.said:
                print(f"the mirror {self.place} was not written ({problem}); it is tried again", flush=True)
                self.said = problem

    def copy(self) -> None:
        """Copies checkpoints first, so that run.tar never tells of one that is not there; raises OSError."""
        kept = self.run_folder / "train" / "checkpoints"
        there = self.place.names()
        for folder in sorted(kept.glob("checkpoint-*"), key=step_of)[-self.keep :]:
            name = f"{folder.name}.tar"
            if name not in there and not verify(folder):
                self.place.put(folder, name)
                there.append(name)
        for name in _by_step(there)[: -self.keep]:
            self.place.remove(name)
        files = [path for path in self.run_folder.rglob("*") if path.is_file() and kept not in path.parents]
        stamp = sorted((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in files)
        if stamp != self.stamp:
            self.place.put(self.run_folder, "run.tar", ("train/checkpoints", ".lock", "stop"))
            self.stamp = stamp


@contextlib.contextmanager
def mirrored(run: Path, session: dict):
    """While it lasts, the run is mirrored to session["mirror"], if that is set; once more at the end."""
    if not session["mirror"]:
        yield
        return
    mirror = Mirror(run, place_of(session["mirror"], run.name), session["keep"])
    mirror.start()
    try:
        yield
    finally:
        mirror.over.set()
        mirror.join()
        mirror.look()


def restore(run: Path, mirror: str) -> list[str]:
    """Brings a run here that an earlier session left elsewhere, and newer checkpoints; returns what was done, in words.

    Looked at: the mirror, and every input of Kaggle. What is here already is never replaced by something older, and
    nothing that is not whole is taken. Raises ValueError when all there is of the run is a mirror that cannot be read.
    """
    said, kept = [], run / "train" / "checkpoints"
    inputs = [path.parent for depth in range(1, 7) for path in INPUTS.glob("*/" * depth + f"{run.name}/run.json")]
    place = place_of(mirror, run.name) if mirror else None
    there = place.names() if place else []
    with tempfile.TemporaryDirectory() as scratch:
        if not (run / "run.json").is_file():
            copied = run.with_name(f".{run.name}.copied")
            sources = [(_progress_of(folder), folder, folder) for folder in inputs]
            try:
                if "run.tar" in there:
                    unpack(place.get("run.tar", Path(scratch)), copied)
                    sources.append(((_finished(copied), max(map(_step_in, there))), place, copied))
            except (OSError, tarfile.TarError) as error:
                if not sources:
                    shutil.rmtree(copied, ignore_errors=True)
                    raise ValueError(
                        f"{place} holds run {run.name}, but its run.tar cannot be read ({env.brief(error)}). A run "
                        f"begun anew would take its place: repair or move it, or choose another --run-name."
                    ) from error
                said.append(f"passed over {place}: {env.brief(error)}")
            if sources:
                _, source, folder = max(sources, key=lambda found: found[0])
                if folder is not copied:
                    shutil.rmtree(copied, ignore_errors=True)
                    _copy(folder, copied, shutil.ignore_patterns("checkpoint-*", ".*", "stop"))
                copied.rename(run)
                said.append(f"run {run.name} goes on from {source}")
            shutil.rmtree(copied, ignore_errors=True)
        here = max((step_of(path) for path in kept.glob("checkpoint-*") if not verify(path)), default=-1)
        found = [(_step_in(name), f"{place}/{name}", name) for name in there]
        found += [(step_of(path), path, path) for folder in inputs for path in _checkpoints_in(folder)]
        for step, label, source in sorted(found, key=lambda entry: entry[0], reverse=True):
            if step <= here:
                break
            beside = kept / ".restored" / f"checkpoint-{step}"
            try:
                if isinstance(source, str):
                    unpack(place.get(source, Path(scratch)), beside)
                else:
                    _copy(source, beside)
                place_checkpoint(beside, kept / beside.name)
                said.append(f"{beside.name} comes from {label}")
                break
            except (OSError, tarfile.TarError) as error:
                said.append(f"passed over {label}: {env.brief(error)}")
            finally:
                shutil.rmtree(kept / ".restored", ignore_errors=True)
    return said


def _finished(folder: Path) -> int:
    """Returns how many stages of a run's folder have finished."""
    stages = env.read_json(folder / "run.json").get("stages", {}) if (folder / "run.json").is_file() else {}
    return sum(stage.get("status") == "finished" for stage in stages.values())


def _progress_of(folder: Path) -> tuple[int, int]:
    """Returns how far a run's folder is: stages finished, newest checkpoint."""
    return _finished(folder), max(map(step_of, _checkpoints_in(folder)), default=-1)


def _copy(source: Path, target: Path, ignore=None) -> None:
    """Copies a folder that may be read-only to one that can be written."""
    shutil.copytree(source, target, ignore=ignore, copy_function=shutil.copyfile)
    for path in (target, *target.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _checkpoints_in(folder: Path) -> list[Path]:
    """Returns the checkpoints of a run's folder."""
    return list(folder.glob("train/checkpoints/checkpoint-*"))


def _step_in(name: str) -> int:
    """Returns the step in the name of an archive, -1 where there is none."""
    return step_of(Path(name))


def _by_step(names: list[str]) -> list[str]:
    """Returns the names of checkpoints' archives, the newest last."""
    return sorted((name for name in names if _step_in(name) >= 0), key=_step_in)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m helpers.checkpoints", description=__doc__.split("\n")[0])
    parser.add_argument("command", choices=["verify"])
    parser.add_argument("path", type=Path)
    options = parser.parse_args(arguments)
    problem = verify(options.path)
    print(f"{options.path}: {problem or 'whole'}", file=sys.stderr if problem else sys.stdout)
    return 1 if problem else 0


if __name__ == "__main__":
    raise SystemExit(main())
