"""Whatever stands in run.json, in a manifest, in a lease or in an archive: it is read, or skipped with a reason."""

import gzip
import io
import json
import os
import shutil
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.runs.archives import FolderStore, pack_folder, unpack_archive
from helpers.runs.checkpoints import begun_processes, newest_checkpoint, seal_checkpoint, verify_checkpoint
from helpers.runs.files import file_sha256, read_json, write_json, write_text
from helpers.runs.lock import FilePlace, read_lease
from helpers.runs.mirror import Mirror, restore_run
from helpers.runs.record import RECORDS, Run

CASES, MANY_CASES = 60, 2_500  # of each of four fuzzers
QUICK = settings(max_examples=CASES, deadline=None, derandomize=True, database=None)
THOROUGH = settings(max_examples=MANY_CASES, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
FINGERPRINT = {"run": "the run", "settings": {"processes": 1}, "data": {}, "versions": {}}

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)


@st.composite
def damaged_bytes(draw, content):
    """Draws a file's content: cut, with bytes changed, put in or doubled, or other bytes altogether."""
    kind = draw(st.sampled_from(["cut", "change", "put in", "double", "other"]))
    at = draw(st.integers(0, max(0, len(content) - 1)))
    piece = draw(st.binary(min_size=1, max_size=40))
    return {
        "cut": content[:at],
        "change": content[:at] + piece + content[at + len(piece) :],
        "put in": content[:at] + piece + content[at:],
        "double": content[:at] + content,
        "other": piece,
    }[kind]


@st.composite
def damaged_archive(draw, content):
    """Draws an archive's content: damaged as bytes, or with another field in its first header, whose sum is right."""
    if draw(st.booleans()):
        return draw(damaged_bytes(content))
    field = draw(
        st.sampled_from([(0, 100), (100, 8), (124, 12), (136, 12), (156, 1), (157, 100), (257, 8), (345, 138)])
    )
    value = draw(
        st.binary(max_size=field[1]) | st.sampled_from([b"\xff" * 12, b"-7", b"77777777777", b"../../a", b"S"])
    )
    header = bytearray(content[:512])
    header[field[0] : sum(field)] = value[: field[1]].ljust(field[1], draw(st.sampled_from([b"\0", b" ", b"\xff"])))
    return sign(header) + content[512:]


def sign(header):
    """Returns the header of an archive's entry with the sum that its fields have."""
    header[148:156] = b"%06o\0 " % (256 + sum(header[:148]) + sum(header[156:512]))
    return bytes(header)


@st.composite
def damaged_json(draw, content):
    """Draws a JSON file's content: damaged as bytes, or with another value somewhere in it."""
    if draw(st.booleans()):
        return draw(damaged_bytes(content))
    value = json.loads(content)
    inner, parent, key = value, None, None
    while isinstance(inner, dict) and inner and draw(st.integers(0, 3)):
        parent, key = inner, draw(st.sampled_from(sorted(inner)))
        inner = parent[key]
    other = draw(
        VALUES | st.sampled_from([["a"], {"a": 5}, {"../../a": {"size": 1, "sha256": ""}}, {"x" * 300: inner}])
    )
    if parent is None:
        value = other
    elif draw(st.booleans()):
        parent[key] = other
    else:
        del parent[key]
    return json.dumps(value).encode()


def make_run(folder):
    """Writes a small run with a checkpoint of step 6 and returns it."""
    run = Run(folder)
    with run.edit() as record:
        record.run_name, record.id = folder.name, "the run"
    run.note_stage("train", status="paused", parameters={"seed": 1})
    run.open_session("train", 0)
    write_text(run / "train/checkpoints/checkpoint-6/adapter_model.safetensors", "weights")
    seal_checkpoint(run / "train/checkpoints/checkpoint-6", 6, FINGERPRINT)
    return run


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Returns a folder with a run, and with a mirror of it."""
    folder = tmp_path_factory.mktemp("samples")
    run = make_run(folder / "mine")
    Mirror(run, FolderStore(folder / "mirror/mine"), 2).copy()
    return folder


def value_or_error(function, *arguments):
    """Returns what a function returns, or the message of the ValueError by which it refuses its arguments."""
    try:
        return function(*arguments)
    except ValueError as error:
        return str(error)


def check_record(samples, data):
    with tempfile.TemporaryDirectory() as scratch:
        run = Run(Path(shutil.copytree(samples / "mine", Path(scratch) / "mine")))
        for name in data.draw(st.sampled_from([RECORDS[:1], RECORDS[1:], RECORDS]), "files"):
            (run / name).write_bytes(data.draw(damaged_json((run / name).read_bytes()), name))
        run.note_stage("train", status="paused")
        assert read_json(run / "run.json")["stages"]["train"]["status"] == "paused"
        checkpoint, _ = newest_checkpoint(run / "train/checkpoints", {**FINGERPRINT, "run": run.record().id})
        assert checkpoint or run.record().id, "a run without an id starts anew"


def check_manifest(samples, data):
    with tempfile.TemporaryDirectory() as scratch:
        run = Run(Path(shutil.copytree(samples / "mine", Path(scratch) / "mine")))
        newest = run / "train/checkpoints/checkpoint-9"
        shutil.copytree(run / "train/checkpoints/checkpoint-6", newest)
        seal_checkpoint(newest, 9, FINGERPRINT)
        content = data.draw(damaged_json((newest / "manifest.json").read_bytes()), "manifest")
        (newest / "manifest.json").write_bytes(content)
        result = value_or_error(newest_checkpoint, run / "train/checkpoints", FINGERPRINT)
        if isinstance(result, str):
            assert "made with other settings or data" in result
        else:
            checkpoint, skipped = result
            assert checkpoint == newest or (checkpoint.name, len(skipped)) == ("checkpoint-6", 1)
        assert isinstance(begun_processes(run / "train/checkpoints", "the run"), int)
        assert run.record().stages["train"].status == "paused"


def check_archive(samples, data):
    with tempfile.TemporaryDirectory() as scratch:
        mirror = Path(shutil.copytree(samples / "mirror", Path(scratch) / "mirror"))
        name = data.draw(st.sampled_from(["run.tar", "checkpoint-6.tar"]), "archive")
        content = data.draw(damaged_archive((mirror / "mine" / name).read_bytes()), "content")
        (mirror / "mine" / name).write_bytes(content)
        run = Run(Path(scratch) / "here/mine")
        result = value_or_error(restore_run, run, str(mirror))
        left = [path for path in (Path(scratch) / "here").rglob("*") if path.is_file()]
        if isinstance(result, str):
            assert "run.tar cannot be read" in result
            assert not left
        assert not [path for path in left if path.parent.name.startswith(".")], "nothing half done is left"
        assert not verify_checkpoint(run / "train/checkpoints/checkpoint-6") or not list(
            run.folder.glob("train/checkpoints/checkpoint-*")
        )


def check_lease_file(samples, data):
    with tempfile.TemporaryDirectory() as scratch:
        lease = {"owner": "a", "kind": "runner", "host": "b", "machine": "c", "pid": 7, "born": 1.0, "started": ""}
        write_json(Path(scratch) / "lease", {**lease, "expires": 2.0})
        place = FilePlace(Path(scratch) / "lease", 1.0)
        place.path.write_bytes(data.draw(damaged_json(place.path.read_bytes()), "lease"))
        lease = read_lease(place)
        assert lease is None or not lease.is_alive_here()


CHECKS = [check_record, check_manifest, check_archive, check_lease_file]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_no_damage_is_an_uncaught_error(samples, check):
    QUICK(given(data=st.data())(lambda data: check(samples, data)))()


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_no_damage_of_ten_thousand_is_an_uncaught_error(samples, check):
    THOROUGH(given(data=st.data())(lambda data: check(samples, data)))()


# Archives


def write_tar(path, **attributes):
    """Writes an archive of one entry, with a content of its size where it is a plain file."""
    entry = tarfile.TarInfo("file")
    for name, value in attributes.items():
        setattr(entry, name, value)
    with tarfile.open(path, "w") as tar:
        tar.addfile(entry, io.BytesIO(bytes(entry.size)))
    return path


def sparse(path):
    """Writes an archive of 2 KiB that says of itself that it holds 8 GiB, in GNU's old form of sparse files."""
    entry = tarfile.TarInfo("file")
    header = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[386:398] = b"%011o\0" % 2**33  # where its only piece stands
    header[398:410] = b"%011o\0" % 0
    header[483:495] = b"%011o\0" % 2**33  # its size
    path.write_bytes(sign(header) + bytes(1024))
    return path


@pytest.mark.parametrize(
    "attributes",
    [
        {"type": tarfile.SYMTYPE, "linkname": "/etc"},
        {"type": tarfile.LNKTYPE, "linkname": "file"},
        {"type": tarfile.FIFOTYPE},
        {"type": tarfile.CHRTYPE},
        {"type": tarfile.DIRTYPE},
    ],
)
def test_an_archive_holds_plain_files_alone(attributes, tmp_path):
    with pytest.raises(tarfile.TarError, match="is not a plain file"):
        unpack_archive(write_tar(tmp_path / "a.tar", **attributes), tmp_path / "out/run")
    assert not list((tmp_path / "out").iterdir())


def test_a_name_that_no_file_can_have_is_refused(tmp_path):
    archive = write_tar(tmp_path / "a.tar", pax_headers={"path": "a\0b"})
    with pytest.raises(tarfile.TarError, match="it is damaged .*null byte"):
        unpack_archive(archive, tmp_path / "out/run")
    assert not list((tmp_path / "out").iterdir())


def test_a_compressed_archive_is_not_unpacked(tmp_path):
    archive = write_tar(tmp_path / "a.tar", size=2**20)
    archive.write_bytes(gzip.compress(archive.read_bytes()))
    assert archive.stat().st_size < 5000
    with pytest.raises(tarfile.TarError):
        unpack_archive(archive, tmp_path / "out/run")
    assert not list((tmp_path / "out").iterdir())


def test_a_sparse_archive_is_not_unpacked(tmp_path):
    with pytest.raises(tarfile.TarError, match="is not a plain file"):
        unpack_archive(sparse(tmp_path / "a.tar"), tmp_path / "out/run")
    assert not list((tmp_path / "out").iterdir())


def test_an_archive_unpacks_to_what_was_packed(tmp_path):
    write_text(tmp_path / "run/data/ক.txt", "খ")
    pack_folder(tmp_path / "run", tmp_path / "a.tar")
    unpack_archive(tmp_path / "a.tar", tmp_path / "out")
    assert file_sha256(tmp_path / "out/data/ক.txt") == file_sha256(tmp_path / "run/data/ক.txt")
    assert os.listdir(tmp_path / "out") == ["data"]


@pytest.fixture
def valid_checkpoint(samples, tmp_path):
    """Returns a valid checkpoint, the only one in its folder."""
    folder = Path(shutil.copytree(samples / "mine/train/checkpoints/checkpoint-6", tmp_path / "checkpoint-6"))
    assert newest_checkpoint(tmp_path, FINGERPRINT)[0] == folder
    return folder


def list_in_manifest(folder, files):
    write_json(folder / "manifest.json", {**read_json(folder / "manifest.json"), "files": files})
    assert newest_checkpoint(folder.parent, FINGERPRINT)[0] is None


@pytest.mark.parametrize("files", [["a"], {"a": 5}, {}, None, "a", {"a": {"size": "1 KiB", "sha256": ""}}])
def test_a_wrong_list_of_files_is_a_reason_to_skip(valid_checkpoint, files):
    list_in_manifest(valid_checkpoint, files)
    assert "manifest.json" in verify_checkpoint(valid_checkpoint)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../outside", "is not below the folder"),
        ("/etc/hostname", "is not below the folder"),
        ("x" * 300, "File name too long"),
        ("a\0b", "is missing"),
        ("", "is missing"),
    ],
)
def test_a_wrong_name_in_a_manifest_is_a_reason_to_skip(valid_checkpoint, name, reason):
    write_text(valid_checkpoint.parent / "outside", "w")
    list_in_manifest(
        valid_checkpoint, {**read_json(valid_checkpoint / "manifest.json")["files"], name: {"size": 1, "sha256": ""}}
    )
    assert reason in verify_checkpoint(valid_checkpoint)


def test_a_file_that_no_manifest_names_is_a_reason_to_skip(valid_checkpoint):
    write_text(valid_checkpoint / "optimizer.pt", "of another checkpoint")
    assert verify_checkpoint(valid_checkpoint) == "manifest.json does not name optimizer.pt"


def test_a_manifest_of_another_step_is_a_reason_to_skip(valid_checkpoint):
    assert (
        verify_checkpoint(valid_checkpoint.rename(valid_checkpoint.with_name("checkpoint-99")))
        == "manifest.json is of step 6"
    )
