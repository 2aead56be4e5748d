"""A run's folders as tar files in a store: a folder, such as one of a mounted Drive, or a repository of the Hub."""

import contextlib
import hashlib
import io
import os
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from helpers.platforms.errors import describe_error
from helpers.platforms.secrets import read_secret
from helpers.runs.files import file_sha256, write_bytes, write_folder, write_text
from helpers.runs.lock import HUB_SECONDS, MIRROR_SECONDS, FilePlace, Place

LEASE = "lease.json"  # beside a run's archives
REPORT = "report.html"  # beside them too: a copy of the run's page, to be opened as it is


def pack_folder(folder: Path, archive: Path, skip: Iterable[str] = ()) -> None:
    """Writes a folder as one tar file: temporary, read back and compared, then renamed. OSError when it differs."""
    temporary = archive.with_name(f".{archive.name}.part")
    archive.parent.mkdir(parents=True, exist_ok=True)
    written = {}
    try:
        with tarfile.open(temporary, "w") as tar:
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                name = str(path.relative_to(folder))
                if any(name == part or name.startswith(f"{part}/") for part in skip):
                    continue
                content = path.read_bytes()  # whole, though it may be growing
                written[name] = hashlib.sha256(content).hexdigest()
                entry = tarfile.TarInfo(name)
                entry.size, entry.mtime = len(content), int(path.stat().st_mtime)
                tar.addfile(entry, io.BytesIO(content))
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        with tarfile.open(temporary) as tar:
            for entry in tar:
                content = (tar.extractfile(entry) or io.BytesIO()).read()
                if hashlib.sha256(content).hexdigest() != written.pop(entry.name, ""):
                    raise OSError(f"{archive.name}: {entry.name} differs after copying")
        if written:
            raise OSError(f"{archive.name}: {', '.join(written)} is missing after copying")
        os.replace(temporary, archive)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def unpack_archive(archive: Path, folder: Path) -> None:
    """Unpacks an archive in place of a folder, which stays when the archive is damaged.

    Raises tarfile.TarError for what `pack_folder` does not write: compression, a path that leads outside, anything but
    plain files. So an archive unpacks to no more than its own size. Raises OSError for a full disk.
    """
    with write_folder(folder) as part:
        try:
            with tarfile.open(archive, "r:") as tar:
                end = -1
                for entry in tar:
                    if not entry.isreg() or entry.issparse() or entry.size < 0 or entry.offset <= end:
                        raise tarfile.ReadError(f"{entry.name!r} is not a plain file")
                    end = entry.offset
                    tar.extract(entry, part, filter="data")
        except (ValueError, LookupError, ArithmeticError, EOFError, RecursionError, MemoryError) as error:
            raise tarfile.ReadError(f"it is damaged ({describe_error(error)})") from error


class FolderStore:
    """A place for archives: a folder, such as one of a mounted Drive."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __str__(self) -> str:
        return str(self.folder)

    def names(self) -> list[str]:
        """Returns the names of the archives there."""
        return sorted(path.name for path in self.folder.glob("*.tar"))

    def lease(self) -> Place:
        """Returns where the run's holder stands."""
        return FilePlace(self.folder / LEASE, MIRROR_SECONDS)

    def put(self, source: Path, name: str, skip: Iterable[str] = ()) -> None:
        """Packs a folder there; see `pack_folder`."""
        pack_folder(source, self.folder / name, skip)

    def put_report(self, page: Path) -> None:
        """Copies the run's page there."""
        write_bytes(self.folder / REPORT, page.read_bytes())

    def get(self, name: str, scratch: Path) -> Path:
        """Returns where an archive can be read."""
        return self.folder / name

    def remove(self, name: str) -> None:
        """Removes an archive."""
        (self.folder / name).unlink()


class HubStore:
    """A place for archives: a folder of a private model repository of the Hugging Face Hub, made when it is missing.

    The token is the secret HF_TOKEN of the platform, or the environment's. What is removed stays in the repository's
    history until it is squashed there.
    """

    def __init__(self, repo_id: str, folder: str) -> None:
        import huggingface_hub

        self.api, self.repo_id, self.folder = huggingface_hub.HfApi(token=read_secret("HF_TOKEN")), repo_id, folder

    def __str__(self) -> str:
        return f"hf:{self.repo_id}/{self.folder}"

    def names(self) -> list[str]:
        """Returns the names of the archives there."""
        return [name for name in self.file_names() if name.endswith(".tar")]

    def file_names(self) -> list[str]:
        """Returns the names of all files there, none where there is no repository."""
        from huggingface_hub.errors import RepositoryNotFoundError

        files = []
        with contextlib.suppress(RepositoryNotFoundError):
            files = self.api.list_repo_files(self.repo_id)
        return sorted(name.rpartition("/")[2] for name in files if name.startswith(f"{self.folder}/"))

    def lease(self) -> Place:
        """Returns where the run's holder stands."""
        return HubPlace(self)

    def put(self, source: Path, name: str, skip: Iterable[str] = ()) -> None:
        """Packs a folder here, uploads it and compares; raises OSError when another content arrived."""
        with tempfile.TemporaryDirectory() as scratch:
            archive, path = Path(scratch) / name, f"{self.folder}/{name}"
            pack_folder(source, archive, skip)
            self.api.create_repo(self.repo_id, private=True, exist_ok=True)
            self.api.upload_file(path_or_fileobj=archive, path_in_repo=path, repo_id=self.repo_id)
            arrived: list[Any] = self.api.get_paths_info(self.repo_id, [path])
            if not arrived or not arrived[0].lfs or arrived[0].lfs.sha256 != file_sha256(archive):
                raise OSError(f"{path} differs after uploading")

    def put_report(self, page: Path) -> None:
        """Uploads the run's page."""
        self.api.upload_file(path_or_fileobj=page, path_in_repo=f"{self.folder}/{REPORT}", repo_id=self.repo_id)

    def get(self, name: str, scratch: Path) -> Path:
        """Downloads an archive below `scratch` and returns where it is."""
        return Path(self.api.hf_hub_download(self.repo_id, f"{self.folder}/{name}", local_dir=scratch))

    def remove(self, name: str) -> None:
        """Removes an archive."""
        self.api.delete_file(f"{self.folder}/{name}", self.repo_id)


class HubPlace:
    """A lease in a file of a Hub repository; each renewal is a commit, of which an hour may have 128."""

    def __init__(self, store: HubStore) -> None:
        self.store, self.path, self.seconds = store, f"{store.folder}/{LEASE}", HUB_SECONDS

    def __str__(self) -> str:
        return str(self.store)

    def read(self) -> bytes | None:
        """Returns the file's content, None where there is none."""
        if LEASE not in self.store.file_names():
            return None
        with tempfile.TemporaryDirectory() as scratch:
            return self.store.get(LEASE, Path(scratch)).read_bytes()

    def write(self, text: str) -> None:
        """Replaces the file's content."""
        with tempfile.TemporaryDirectory() as scratch:
            write_text(Path(scratch) / LEASE, text)
            self.store.api.create_repo(self.store.repo_id, private=True, exist_ok=True)
            self.store.api.upload_file(
                path_or_fileobj=Path(scratch) / LEASE, path_in_repo=self.path, repo_id=self.store.repo_id
            )

    def remove(self) -> None:
        """Removes the file."""
        self.store.api.delete_file(self.path, self.store.repo_id)


Store = FolderStore | HubStore


def open_store(mirror: str, run_name: str) -> Store:
    """Returns where a run is mirrored: "hf:owner/name" is a Hub repository, anything else a folder.

    Raises ValueError when the folder above is not there, or the Hub's token: what is not mounted would be lost.
    """
    if mirror.startswith("hf:"):
        return HubStore(mirror[3:], run_name)
    folder = Path(mirror)
    if not (above := folder.absolute().parent).is_dir():
        raise ValueError(
            f"session.mirror is {mirror!r}, but {above} is not there. Mount the Drive, or make the folder."
        )
    return FolderStore(folder / run_name)
