"""The thumbs of a Hugging Face Space, whose disk is lost at every start: in a private data set of its owner."""

import json
import os
import tempfile
from pathlib import Path

from huggingface_hub import CommitInfo, CommitScheduler, HfApi

from helpers.platforms.errors import describe_error
from helpers.platforms.secrets import read_secret
from helpers.runs.feedback import FeedbackStore
from helpers.runs.files import read_jsonl

FILE = "feedback.jsonl"
MINUTES = 5.0  # between two looks at whether something has changed
TOKEN = "FEEDBACK_TOKEN"  # a secret of the Space: a token that may write to the data set
DATASET = "FEEDBACK_DATASET"  # a variable of the Space: the data set's name, unless it is the Space's with -feedback


class StoreCopy(CommitScheduler):
    """Writes all that a store keeps into one file of a private data set, whenever it has changed.

    The file is replaced and the history squashed with each commit, so that the data set has no earlier version of what
    was deleted. What Hugging Face itself keeps of files that no commit has any more is not in a user's hands.
    """

    def __init__(self, store: FeedbackStore, name: str, token: str, minutes: float = MINUTES) -> None:
        api = HfApi(token=token)
        api.create_repo(name, repo_type="dataset", private=True, exist_ok=True)
        if not api.dataset_info(name).private:
            raise ValueError(f"the data set {name} is public: make it private, or name another one in {DATASET}")
        self.store, self.written = store, b""
        if api.file_exists(name, FILE, repo_type="dataset"):
            with tempfile.TemporaryDirectory() as folder:  # the library's cache would keep what is deleted later
                file = api.hf_hub_download(name, FILE, repo_type="dataset", local_dir=folder)
                store.restore(read_jsonl(Path(file)))
            self.written = self.content()
        folder = store.database.parent / "feedback"  # asked for, not used: what is uploaded comes from the database
        super().__init__(repo_id=name, repo_type="dataset", folder_path=folder, every=minutes, private=True, hf_api=api)

    def content(self) -> bytes:
        """Returns what is kept, a JSON object per line."""
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.store.rows()).encode()

    def push_to_hub(self) -> CommitInfo | None:
        """Uploads what is kept, if it has changed; the scheduler calls it, one call after the other."""
        content = self.content()
        if content == self.written:
            return None
        commit = self.api.upload_file(
            path_or_fileobj=content,
            path_in_repo=FILE,
            repo_id=self.repo_id,
            repo_type="dataset",
            commit_message="Feedback",
        )
        self.api.super_squash_history(self.repo_id, repo_type="dataset")
        self.written = content
        return commit

    def push(self) -> None:
        """Uploads what is kept and waits for it. Raises ValueError where the Hub cannot be reached."""
        try:
            self.trigger().result(timeout=60)
        except Exception as error:  # the Hub's, the network's, the system's
            raise ValueError(f"the data set {self.repo_id} could not be changed ({describe_error(error)})") from error


def open_space_store(database: Path, keep_days: int) -> FeedbackStore | None:
    """Returns what keeps a Space's thumbs; None, with the reason printed, where they would have no place to stay."""
    store, space = FeedbackStore(database, keep_days), os.environ.get("SPACE_ID", "")
    try:
        name, token = os.environ.get(DATASET) or f"{space}-feedback" * bool(space), read_secret(TOKEN)
        if not name:
            raise ValueError(f"{DATASET} is not set: name the data set, owner/name, in a variable of the Space")
        store.push = StoreCopy(store, name, token).push
    except Exception as error:  # the Hub's, the network's, the system's: the page is served all the same
        print(f"no thumbs are kept: {describe_error(error)}")
        return None
    return store
