"""What tests share: the suite run once on the embedded corpus, and rows and tokenizers made here."""

import functools
import gc
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock
from tables import embedded_table

from helpers.data.group import group_rows, link_rows
from helpers.data.rows import data_rows
from helpers.models.embedded import build_tokenizer
from helpers.models.families import SHAPES
from helpers.planning.config import configure_training
from helpers.platforms.machine import set_threads
from helpers.runs.files import read_json, write_json, write_jsonl
from helpers.runs.record import Run
from helpers.runs.settings import parameters_cell

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported: before any test module
set_threads()
if processes := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):  # they share the cores, what they start too
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items):
    """Puts one file that needs the demo first and the others last: while one process makes it, another has work."""
    first, *others = [*dict.fromkeys(item.path for item in items if "demo" in item.fixturenames), None]
    items.sort(key=lambda item: 0 if item.path == first else 2 if item.path in others else 1)


def pytest_collection_finish():
    """Leaves what is imported by now out of every later garbage collection: each training asks for some."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory):
    """Returns a folder that the processes of this test run share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session", autouse=True)
def model_cache(shared_folder):
    """Keeps the embedded models of all tests in one folder of this test run, or of the demo that TEST_OUTPUTS names."""
    folder = Path(os.environ.get("TEST_OUTPUTS") or shared_folder) / "cache"
    folder.mkdir(exist_ok=True)
    os.environ["SAHANUBHUTI_CACHE"] = str(folder)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    return folder


@pytest.fixture(scope="session")
def suite():
    """Returns a function that runs `python -m helpers run …` and gives returncode, stdout, stderr and CPU seconds."""

    def call(*arguments, timeout=600, cwd=ROOT):
        before = os.times().children_user
        command = [sys.executable, "-m", "helpers", "run", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=cwd)
        return SimpleNamespace(
            returncode=done.returncode,
            stdout=done.stdout,
            stderr=done.stderr,
            seconds=os.times().children_user - before,
            output=f"{done.stdout}\n{done.stderr}"[-4000:],
        )

    return call


@pytest.fixture(scope="session")
def demo(suite, model_cache, shared_folder):
    """Runs the demo once: `run` is its folder, `outputs` the folder above, `first` what the command printed.

    While one test is written, TEST_OUTPUTS names a folder that keeps the demo from call to call.
    """
    outputs = Path(os.environ.get("TEST_OUTPUTS") or shared_folder / "outputs")
    printed = shared_folder / "demo.json"
    with FileLock(f"{printed}.lock"):
        if not printed.is_file():
            first = suite("--preset", "demo", "--outputs", outputs)
            assert first.returncode == 0, first.output
            write_json(printed, vars(first))
    return SimpleNamespace(outputs=outputs, run=Run(outputs / "demo"), first=SimpleNamespace(**read_json(printed)))


@pytest.fixture(scope="session")
def browser():
    """Returns headless Chromium, driven by playwright; the test is skipped where none is installed."""
    import shutil

    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """Returns an empty page; `page.errors` collects its console's warnings and errors, `page.asked` its requests."""
    context = browser.new_context(accept_downloads=True, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.errors, page.asked = [], []
    page.on(
        "console", lambda message: page.errors.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    yield page
    context.close()


@pytest.fixture(scope="session")
def embedded_rows():
    """Returns the embedded corpus as data rows, but for the row that is too long to train on."""

    table = embedded_table()
    table = table[table.question.str.len() < 1500].reset_index(drop=True)
    table["group"] = group_rows(table, link_rows(table, 0.8))
    return data_rows(table, "You are a sympathetic assistant.", "embedded")


@pytest.fixture(scope="session")
def tokenizer(embedded_rows):
    """Returns the embedded model's tokenizer, trained on the embedded corpus."""

    return build_tokenizer([message["content"] for row in embedded_rows for message in row["messages"]])


@pytest.fixture(scope="session")
def base(tokenizer, tmp_path_factory):
    """Returns the folder of a small random Llama."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    shape = {**SHAPES["embedded"], "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2}
    LlamaForCausalLM(LlamaConfig(**{**shape, "vocab_size": len(tokenizer)})).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a file system of 64 MiB, which needs root; unmounts it afterwards."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("this user may not mount a file system: run the tests as root")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture(scope="session")
def make_in(base, embedded_rows):
    """Returns a function that writes a run's data and configuration into a folder and returns the run."""

    def call(folder, name, rows=24, sft=None, **changes):
        run = Run(folder / name)
        write_jsonl(run / "data/train.jsonl", embedded_rows[:rows])
        write_jsonl(run / "data/val.jsonl", embedded_rows[40:47])
        parameters = {name: value for name, (value, _) in parameters_cell("train").items()}
        parameters |= {"backend": "peft", "base_model": str(base), "learning_rate": 0.05, "num_train_epochs": 1.0}
        chosen = {"optim": "sgd", "warmup_steps": 0, "lr_scheduler_type": "constant", "save_strategy": "no"}
        parameters["sft"] = {**parameters["sft"], **chosen, "eval_strategy": "no", "max_grad_norm": 0, **(sft or {})}
        config = configure_training({**parameters, **changes})
        write_json(run / "train/config.json", {**config.to_json(), "max_length": 1024, "embedded_model": ""})
        return run

    return call


@pytest.fixture
def make(make_in, tmp_path):
    """Returns `make_in` of the test's own folder."""
    return functools.partial(make_in, tmp_path)


@pytest.fixture
def trained_steps(monkeypatch):
    """Returns the list of the optimizer steps that are trained from here on; the session's clock gets the step."""
    from helpers.training.step_training import StepTraining

    steps, real = [], StepTraining.training_step

    def training_step(self, *args):
        steps.append(self.state.global_step + 1)
        self.clock.trainer_step = self.state.global_step + 1
        return real(self, *args)

    monkeypatch.setattr(StepTraining, "training_step", training_step)
    return steps


@pytest.fixture
def stop_at(monkeypatch, trained_steps):
    """Returns a function that makes the session's clock end the run after some steps, each once."""

    from helpers.runs.session import SessionClock

    def call(*steps):
        left = list(steps)

        def reason(self, save_seconds):
            if left and self.trainer_step >= left[0]:
                left.pop(0)
                return "the test asked for it"
            return ""

        monkeypatch.setattr(SessionClock, "reason", reason)

    return call
