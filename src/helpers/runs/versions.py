"""The versions that a run's sessions work with: what has changed since the last one, and the platform's image."""

import os
import re
import sys

from helpers.platforms.environment import package_versions
from helpers.platforms.machine import platform
from helpers.platforms.overlay import image_paths, read_versions
from helpers.runs.files import git_blob_sha1, utc_now, write_text
from helpers.runs.record import Run, RunRecord
from helpers.runs.stages import EMBEDDED_CORPUS

IMAGE_FILE = "notebooks/image.txt"  # of a run: the packages of the image that its last session worked on
DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def version_changes(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """Returns "name old → new" of each package of `before` that has another version now, or is gone ("none")."""
    return [f"{name} {old} → {now.get(name, 'none')}" for name, old in before.items() if now.get(name) != old]


def changes_since_last_session(record: RunRecord) -> str:
    """Returns a line with the libraries that have changed since a run's last session, "" where none has."""
    begun = [stage for stage in record.stages.values() if stage.versions]
    if not begun:
        return ""
    last = max(begun, key=lambda stage: stage.started or "")
    changes = version_changes(last.versions, package_versions())
    since = f"other versions than in the session of {last.started}: {', '.join(changes)}"
    return f"{since}. What resumes is no longer bit for bit as uninterrupted." if changes else ""


def record_image(run: Run) -> None:
    """Writes the image's packages into the run's folder, and the image's name into run.json; on a platform only.

    Kaggle tells the name in KAGGLE_DOCKER_IMAGE.
    """
    if platform() == "local":
        return
    image = os.environ.get("KAGGLE_DOCKER_IMAGE", "")
    write_text(run / IMAGE_FILE, f"# {platform()} {image or 'image'}, {utc_now()}\n{freeze_image()}")
    with run.edit() as record:
        if image and record.images[-1:] != [image]:
            record.images = [*record.images, image]


def freeze_image() -> str:
    """Returns Python and the packages of the image's own folders, `name==version` lines; a session's are elsewhere."""
    packages = {"python": sys.version.split()[0], **read_versions(*image_paths())}
    return "".join(f"{name}=={version}\n" for name, version in sorted(packages.items()))


def compare_image(freeze: str, image: str) -> str:
    """Returns a sentence on what an image's packages differ in from a recorded freeze: of the names that it has.

    Both are `name==version` lines; the freeze begins with a comment that holds its date. A freeze that leaves out the
    build, such as +cu128, is compared without.
    """
    recorded, now = parse_freeze(freeze), parse_freeze(image)
    now |= {name: now[name].partition("+")[0] for name, old in recorded.items() if name in now and "+" not in old}
    date = next(iter(DATE.findall(freeze)), "it was recorded")
    changes = version_changes(recorded, now)
    return f"has changed since {date}: {', '.join(changes)}" if changes else f"is as recorded on {date}"


def parse_freeze(text: str) -> dict[str, str]:
    """Returns {normalised name: version} of a text with a `name==version` per line; comments are left out."""
    from packaging.utils import canonicalize_name

    pairs = [line.partition("#")[0].strip().partition("==") for line in text.splitlines()]
    return {canonicalize_name(name): version for name, _, version in pairs if version}


def data_version_note(run: Run, dataset: str) -> str:
    """Returns what to say of finished data that come from another version of the embedded corpus, "" for the same."""
    before, now = run.metrics("prepare_data").get("blob_sha1", ""), git_blob_sha1(EMBEDDED_CORPUS.read_bytes())
    if dataset != "embedded" or before in ("", now):
        return ""
    return f"; its rows are another version of the embedded corpus, {before[:8]}, now {now[:8]} (--force reads the new)"
