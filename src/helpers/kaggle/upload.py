"""Uploads the suite as one private data set, so that a notebook opened on Kaggle needs it as its input, and no more;
or a file, for a run to read there."""

import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from helpers.data.load import SUFFIXES, load_table
from helpers.kaggle import client
from helpers.kaggle.notebook import suite_files
from helpers.platforms.environment import git_sha
from helpers.platforms.errors import FAILED, FINISHED, Refused
from helpers.preference.tables import read_file
from helpers.runs.files import write_json

SLUG = "sahanubhuti"  # of the data set, OWNER/SLUG
DESCRIPTION = "The notebooks and helpers of the suite, under the MIT licence; its embedded corpus is CC0."
FOLDER = "suite"  # in it, if Kaggle unpacks the archive of a folder under its name; the set-up cell finds both layouts
LOOK_SECONDS = 5.0  # between two looks whether a version is processed
MOST_SECONDS = 600.0  # for which they are repeated
USES = {  # of a file: what reads it in a run, and by which setting
    "preferences": (lambda file: read_file(file, []), "prefer.dataset=[kaggle:{dataset}]"),
    "a corpus": (load_table, "prepare_data.dataset=kaggle:{dataset}"),
}


def upload_suite(owner: str) -> int:
    """Uploads the suite as a private data set, or as the next version of it, and waits until Kaggle has processed it.

    `owner` is a Kaggle account ("": that of the credentials). Returns the exit code. Raises Refused when Kaggle does
    not take it.
    """
    files = {f"{FOLDER}/{name}": path for name, path in suite_files().items()}
    use = f"In a notebook on Kaggle: Add Input, Datasets, Your Work, {SLUG}."
    return _upload(owner, SLUG, "Sahanubhuti", DESCRIPTION, files, use)


def upload_file(owner: str, file: Path) -> int:
    """Uploads a file as a private data set of its own, as `upload_suite` does the suite. Raises Refused also for a file
    that no stage can read, and for one whose name leaves the data set without a name of its own."""
    if file.suffix.lower() not in SUFFIXES:
        raise Refused(f"--file {file}: no stage reads such a file. Expected one of {', '.join(SUFFIXES)}.")
    if not file.is_file():
        raise Refused(f"--file {file}: no such file in {Path.cwd()}. Check the path.")
    name = re.sub("[^a-z0-9]+", "-", file.stem.lower()).strip("-")
    if not name:
        raise Refused(f"--file {file.name} names the data set, by letters a to z and digits: rename the file.")
    slug = f"{SLUG}-{name}"[:50].strip("-")
    use = f"In a run there: --set {find_setting(file)}"
    about = "Data of the account that uploaded it, for runs of the suite."
    return _upload(owner, slug, slug.replace("-", " "), about, {file.name: file}, use)


def find_setting(file: Path) -> str:
    """Returns the setting by which a run reads a table. Raises Refused for one that no stage can read, and why."""
    reasons: dict[str, str] = {}
    for kind, (read, setting) in USES.items():
        try:
            read(str(file))
            return setting
        except ValueError as error:
            reasons.setdefault(str(error), f"As {kind}: {error}")
    sentences = [*reasons.values()] if len(reasons) > 1 else [*reasons]
    raise Refused(f"--file: no training can use it. {' '.join(sentences)}")


def _upload(owner: str, slug: str, title: str, about: str, files: dict[str, Path], use: str) -> int:
    """Uploads files by their places in a data set, and says at the end how to use it in a notebook or command."""
    import requests

    with client.explained_errors(), tempfile.TemporaryDirectory() as scratch:
        api = client.connect()
        dataset = f"{owner or api.config_values['username']}/{slug}"
        for name, path in files.items():
            copy = Path(scratch) / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        metadata = {"id": dataset, "title": title, "licenses": [{"name": "other"}], "description": about}
        write_json(Path(scratch) / "dataset-metadata.json", metadata)
        try:
            client.call_with_retries(send_folder, api, dataset, scratch)
        except requests.exceptions.HTTPError as error:
            if client.is_temporary(error) or client.status_code(error) == 401:
                raise
            raise Refused(f"Kaggle did not take {dataset}: {error}.") from error
        return await_version(api, dataset, use.format(dataset=dataset))


def send_folder(api: Any, dataset: str, folder: str) -> None:
    """Uploads a folder as a new private data set, or as a new version where there is one. Raises Refused."""
    how: dict[str, Any] = {"quiet": True, "convert_to_csv": False, "dir_mode": "zip"}
    is_new = not client.read_dataset_status(api, dataset)
    if is_new:
        answer = api.dataset_create_new(folder, public=False, **how)
    else:
        answer = api.dataset_create_version(folder, f"commit {git_sha()[:7] or 'unknown'}", **how)
    if answer.error:
        hint = " If it was made a moment ago, Kaggle still processes it: wait a minute, and upload again." * is_new
        raise Refused(f"Kaggle did not take {dataset}: {answer.error}.{hint}")
    print(f"{dataset}: uploaded as {'a new, private data set' if is_new else 'a new version'}", flush=True)


def await_version(api: Any, dataset: str, use: str) -> int:
    """Looks until Kaggle has processed what was uploaded; says how to use it, and returns the exit code."""
    ends = time.monotonic() + MOST_SECONDS
    while (status := client.read_dataset_status(api, dataset)) != "ready":
        if status in ("failed", "deleted") or time.monotonic() > ends:
            print(
                f"error: {dataset} is {status or 'not there yet'}. See it on Kaggle, and upload again.", file=sys.stderr
            )
            return FAILED
        time.sleep(LOOK_SECONDS)
    print(f"{dataset}: ready. {use}")
    return FINISHED
