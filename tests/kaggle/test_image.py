"""One docker image for a whole chain, and what Kaggle's image differs in from the one that was tested."""

import importlib.metadata
import threading
import time

import pytest
from kaggle_calls import PAUSED, call, leaving
from kaggle_machine import Kaggle, Status

from helpers.kaggle.client import is_finished
from helpers.kaggle.notebook import LISTING
from helpers.runs.checkpoints import list_files
from helpers.runs.files import read_json, write_json, write_text
from helpers.runs.record import Run
from helpers.runs.stages import MAIN_STAGES
from helpers.runs.versions import IMAGE_FILE

FIRST, SECOND = (f"gcr.io/kaggle-images/python@sha256:{digit}" for digit in "12")
WARNING = "session 2 may run on another, and resume is then no longer bit for bit"


def move_image(script, images):
    """Returns the script of a machine that has a newer image from the second session on."""

    def session(request, *places):
        ended = script(request, *places)
        images.setdefault(SECOND, None)
        return ended

    return session


def test_a_chain_stays_on_the_image_it_began_with(tmp_path, capsys):
    with Kaggle(tmp_path / "kaggle") as server:
        server.script = move_image(leaving((PAUSED, 1), (PAUSED, 2), ({}, 3)), server.images)
        assert call("chain", tmp_path / "outputs") == 0
    assert list(server.images) == [FIRST, SECOND]
    assert [request.docker_image for request in server.requests] == ["", FIRST, FIRST]
    assert "bit for bit" not in capsys.readouterr().out


def test_every_session_keeps_its_image_on_kaggle(tmp_path):
    with Kaggle(tmp_path / "kaggle", leaving((PAUSED, 1), ({}, 2))) as server:
        assert call("chain", tmp_path / "outputs") == 0
    assert {request.docker_image_pinning_type for request in server.requests} == {"original"}


def push_twice(server, outputs):
    """Pushes a session, lets it end, and pushes the next; returns the exit code of that."""
    assert call("push", outputs) == 0
    server.threads[0].join()
    return call("push", outputs)


@pytest.mark.parametrize("answer", ["no field", 404])
def test_an_image_that_kaggle_does_not_tell_is_named(answer, tmp_path, capsys):
    with Kaggle(tmp_path / "kaggle", leaving((PAUSED, 1), ({}, 2))) as server:
        server.tells_image = answer != "no field"
        server.faults = {"GetKernel": [answer]} if isinstance(answer, int) else {}
        assert push_twice(server, tmp_path / "outputs") == 0
    assert [request.docker_image for request in server.requests] == ["", ""]
    before, _, after = capsys.readouterr().out.partition(WARNING)
    assert "Kaggle does not tell the image of someone/sahanubhuti-demo-1: " in before
    assert "session 2: someone/sahanubhuti-demo-2 pushed" in after


@pytest.mark.parametrize("refusal", [403, "The docker image is not available any more."])
def test_an_image_that_kaggle_refuses_is_left_out(refusal, tmp_path, capsys):
    with Kaggle(tmp_path / "kaggle", leaving((PAUSED, 1), ({}, 2))) as server:
        server.no_image = refusal
        assert push_twice(server, tmp_path / "outputs") == 0
    assert [request.docker_image for request in server.requests] == ["", FIRST, ""]
    before, _, after = capsys.readouterr().out.partition(WARNING)
    assert f"does not take the image of someone/sahanubhuti-demo-1 ({'HTTP ' * (refusal == 403)}{refusal})" in before
    assert "session 2: someone/sahanubhuti-demo-2 pushed" in after


def test_another_refusal_is_not_put_down_to_the_image(tmp_path, capsys):
    with Kaggle(tmp_path / "kaggle", leaving((PAUSED, 1))) as server:
        server.no_image = "Maximum batch GPU session count of 2 reached."
        assert push_twice(server, tmp_path / "outputs") == 2
    assert len(server.requests) == 2
    printed = capsys.readouterr()
    assert "Kaggle did not take someone/sahanubhuti-demo-2: Maximum batch GPU" in printed.err
    assert WARNING not in printed.out


def ended_with(image, *images):
    """Returns the script of a session that leaves a list of its image's packages, or none, and the images' names."""

    def session(request, folder, sources):
        run = folder / "outputs/demo"
        write_json(
            run / "run.json", {"stages": {stage: {"status": "paused"} for stage in MAIN_STAGES}, "images": images}
        )
        if image:
            write_text(run / IMAGE_FILE, image)
        write_json(run / LISTING, list_files(run))
        return Status.COMPLETE, ""

    return session


def status_after(script, folder, capsys):
    """Returns what `status` prints after one session."""
    with Kaggle(folder / "kaggle", script) as server:
        assert call("push", folder / "outputs") == 0
        server.threads[0].join()
        capsys.readouterr()
        assert call("status", folder / "outputs") == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        ("transformers==5.2.0\ntorch==2.10.0+cu128\n", "has changed since 2026-11-23: transformers 5.0.0 → 5.2.0"),
        ("transformers==5.0.0\ntorch==2.10.0+cu128\nmore==1\n", "is as recorded on 2026-11-23"),
        ("", "is not known: the session left no list of its packages"),
    ],
)
def test_status_says_what_has_changed_in_the_image(image, sentence, tmp_path, capsys, monkeypatch):
    freeze = tmp_path / "kaggle.txt"
    write_text(
        freeze, "# Kaggle's image, as a session had it on 2026-11-23\ntorch==2.10.0+cu128\ntransformers==5.0.0\n"
    )
    monkeypatch.setattr("helpers.kaggle.commands.FREEZE", freeze)
    assert status_after(ended_with(image), tmp_path, capsys).endswith(f"Kaggle's image {sentence}\n")


def test_status_compares_no_image_without_a_freeze(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("helpers.kaggle.commands.FREEZE", tmp_path / "none.txt")
    assert "image" not in status_after(ended_with("torch==2.10.0\n"), tmp_path, capsys)


def test_status_names_the_images_of_a_run(tmp_path, capsys):
    printed = status_after(ended_with("", FIRST, SECOND), tmp_path, capsys)
    assert f"the sessions ran on 2 images, not bit for bit: {FIRST}, {SECOND}" in printed


@pytest.mark.slow
def test_a_chain_over_two_images_says_so(tmp_path):
    """The second image has another torch by its metadata; the first session is stopped while it trains."""
    newer = tmp_path / "image/torch-2.13.1.dist-info"
    write_text(newer / "METADATA", "Metadata-Version: 2.1\nName: torch\nVersion: 2.13.1\n")
    with Kaggle(tmp_path / "kaggle", limit=600.0) as server:
        server.no_image = 403

        def stop_while_it_trains(run):
            while not any((run / "train").glob("log.jsonl")):
                time.sleep(0.1)
            (run / "stop").touch()

        def session(request, folder, sources):
            if not sources:
                threading.Thread(target=stop_while_it_trains, args=[folder / "outputs/demo"], daemon=True).start()
            ended = server.execute(request, folder, sources)
            server.images[SECOND] = newer.parent
            return ended

        server.script = session
        assert call("chain", tmp_path / "outputs", "--tiny", "--run-name", "demo") == 0
    run = Run(tmp_path / "outputs/demo")
    assert is_finished(run.record())
    assert run.record().images == [FIRST, SECOND]
    executed = read_json(server.folder("someone/sahanubhuti-demo-2").parent / "executed.ipynb")
    printed = "".join("".join(out.get("text", "")) for cell in executed["cells"] for out in cell.get("outputs", []))
    message = f"torch {importlib.metadata.version('torch')} → 2.13.1. What resumes is no longer bit for bit"
    assert message in printed.partition("starts (")[0], "it says so before the work starts"
    assert run.sessions("train")[-1].from_step > 0
