"""Checkpoints on the disk: complete or not there, checked before they are used, and no code in them."""

import re
import shutil
import subprocess

import pytest
import torch
from configs import SMALL_STEPS

from helpers.runs.checkpoints import check_disk_space, checkpoint_folders, list_files, step_of, verify_checkpoint
from helpers.runs.files import folder_bytes, read_json, read_jsonl, write_json
from helpers.training.loop import run_training

EVERY_SECOND = {**SMALL_STEPS, "save_strategy": "steps", "save_steps": 2}


def change_manifest(folder, **changes):
    """Writes other values into a checkpoint's manifest."""
    write_json(folder / "manifest.json", {**read_json(folder / "manifest.json"), **changes})


def truncate(folder):
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-9])


def flip_a_byte(folder):
    file = folder / "adapter_model.safetensors"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


def change_run(folder):
    fingerprint = read_json(folder / "manifest.json")["fingerprint"]
    change_manifest(folder, fingerprint={**fingerprint, "run": "another"})


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncate, r"adapter_model.safetensors has \d+ bytes, expected \d+"),
        (flip_a_byte, "adapter_model.safetensors has other content than was written"),
        (lambda folder: (folder / "optimizer.pt").unlink(), "optimizer.pt is missing"),
        (lambda folder: (folder / "manifest.json").write_text(""), "manifest.json cannot be read"),
        (lambda folder: (folder / "manifest.json").unlink(), "it was not finished"),
        (lambda folder: change_manifest(folder, format=99), "has format 99, this suite reads up to 1"),
        (change_run, "it is another run's"),
    ],
)
def test_a_damaged_checkpoint_is_skipped_for_the_one_before(damage, reason, paused, capsys, trained_steps):
    newest, before = (paused / f"train/checkpoints/checkpoint-{step}" for step in (5, 4))
    damage(newest)
    assert bool(verify_checkpoint(newest)) == (damage is not change_run)
    assert verify_checkpoint(before) == ""
    assert run_training(paused)["status"] == "finished"
    output = capsys.readouterr().out
    assert re.search(f"skipped checkpoint-5: .*{reason}", output), output
    assert "resuming from checkpoint-4" in output
    assert trained_steps == [5, 6, 7, 8]


def test_a_finished_adapter_has_no_empty_model_card(paused):
    run_training(paused)
    assert (paused / "train/adapter/adapter_config.json").is_file()
    assert not (paused / "train/adapter/README.md").exists(), "PEFT's, which says nothing"


def test_a_full_disk_costs_only_the_new_checkpoint(make, monkeypatch, capsys):
    run = make("full", sft={**EVERY_SECOND, "save_total_limit": 1})
    real = torch.save

    def save(value, path, *args, **kwargs):
        if "checkpoint-4" in str(path) or "checkpoint-6" in str(path):
            with open(path, "wb") as file:
                file.write(b"half")
            raise OSError(28, "No space left on device")
        return real(value, path, *args, **kwargs)

    monkeypatch.setattr(torch, "save", save)
    assert run_training(run)["status"] == "finished"
    assert capsys.readouterr().out.count("no checkpoint: OSError") == 2
    assert [path.name for path in (run / "train/checkpoints").iterdir()] == ["checkpoint-8"]
    assert verify_checkpoint(run / "train/checkpoints/checkpoint-8") == ""


def test_a_disk_without_room_is_described(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 0))
    assert "0 MiB are free" in check_disk_space(tmp_path, 1000)


@pytest.mark.root
def test_a_file_system_that_fills_up_keeps_what_it_held(make, small_disk, capsys):
    run = make("small", sft={**SMALL_STEPS, "save_strategy": "steps", "save_steps": 1, "save_total_limit": 0})
    (run / "train/checkpoints").symlink_to(small_disk)
    other = make("size", sft={**SMALL_STEPS, "save_strategy": "steps", "save_steps": 8})
    run_training(other)
    size = folder_bytes(other / "train/checkpoints/checkpoint-8")
    (small_disk / "ballast").write_bytes(bytes(2**26 - 4096 * 40 - int(3.5 * size)))
    capsys.readouterr()
    assert run_training(run)["status"] == "finished"
    assert capsys.readouterr().out.count("no checkpoint: ") >= 4
    assert 2 <= len(checkpoint_folders(small_disk)) <= 4
    assert not (small_disk / ".new").exists()
    assert all(verify_checkpoint(path) == "" for path in small_disk.glob("checkpoint-*"))


@pytest.mark.root
def test_a_folder_that_became_read_only_is_still_read(make, small_disk, capsys):
    run = make("small", sft={**EVERY_SECOND, "save_total_limit": 0})
    (run / "train/checkpoints").symlink_to(small_disk)
    run_training(run)
    for name in ("checkpoint-6", "checkpoint-8"):
        shutil.rmtree(small_disk / name)
    before = list_files(small_disk)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    capsys.readouterr()
    status = run_training(run)["status"]
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    output = capsys.readouterr().out
    assert status == "finished"
    assert "resuming from checkpoint-4" in output
    assert output.count("no checkpoint: ") >= 2
    assert list_files(small_disk) == before


def test_old_checkpoints_go_but_the_best_stays(make):
    sft = {**EVERY_SECOND, "eval_strategy": "steps", "eval_steps": 2}
    run = make("best", learning_rate=0.5, sft={**sft, "save_total_limit": 1, "load_best_model_at_end": True})
    metrics = run_training(run)
    validated = {e["step"]: e["eval_loss"] for e in read_jsonl(run / "train/log.jsonl") if "eval_loss" in e}
    best = min(validated, key=validated.get)
    assert {step_of(path) for path in checkpoint_folders(run / "train/checkpoints")} == {best, 8}
    assert metrics["val_loss"] == pytest.approx(validated[best])


def test_nothing_in_a_checkpoint_runs_code(paused):
    assert not (paused / "train/checkpoints/checkpoint-5/training_args.bin").exists()


def test_checkpoints_are_loaded_without_running_code(paused, monkeypatch):
    real, unsafe = torch.load, []

    def load(*args, **kwargs):
        unsafe.extend([args[0]] if kwargs.get("weights_only") is not True else [])
        return real(*args, **kwargs)

    monkeypatch.setattr(torch, "load", load)
    assert run_training(paused)["status"] == "finished"
    assert unsafe == []
