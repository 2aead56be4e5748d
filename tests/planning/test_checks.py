"""The machine, checked before a run writes or downloads anything."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from calibrations import calibration
from configs import make_config
from hub_server import Hub

from helpers import runner
from helpers.__main__ import main
from helpers.models.families import ungated_twin
from helpers.planning import checks
from helpers.planning.calibration import keep_calibration
from helpers.planning.checks import MachineFacts, find_problems, has_kernels, start_stage
from helpers.planning.config import fit_gpus
from helpers.platforms import probe
from helpers.platforms.errors import FAILED, Refused
from helpers.platforms.machine import Gpu
from helpers.runs.checkpoints import seal_checkpoint
from helpers.runs.files import read_json, write_json, write_text
from helpers.runs.settings import parameters_cell

BASE = "unsloth/Llama-3.2-1B-Instruct"
GATED = "meta-llama/Llama-3.2-1B-Instruct"
MODEL = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": b"weights"}
TORCH = {"version": "2.10.0+cu128", "gpus": 2, "architectures": ["sm_75", "sm_80", "sm_90", "sm_120"]}
T4, P100 = ("Tesla T4", "7.5"), ("Tesla P100-PCIE-16GB", "6.0")
SMI = """#!{python}
import sys
fields = {{"name": 0, "compute_cap": 1, "memory.total": 2}}
field = sys.argv[1].removeprefix("--query-gpu=")
for gpu in {gpus}:
    print((*gpu, 15360)[fields[field]])
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Returns a function that makes this machine one of Kaggle's or Colab's, with GPUs and a torch that sees them."""

    def call(where, gpus=(T4, T4), hub=None):
        monkeypatch.delenv("COLAB_RELEASE_TAG", raising=False)
        (tmp_path / "kaggle/working").mkdir(parents=True)
        monkeypatch.setattr("helpers.platforms.machine.KAGGLE_FOLDER", tmp_path / "kaggle")
        for name in {"kaggle": ["KAGGLE_KERNEL_RUN_TYPE"], "colab": ["COLAB_RELEASE_TAG"]}.get(where, []):
            monkeypatch.setenv(name, "1")
        (tmp_path / "bin").mkdir()
        smi = tmp_path / "bin/nvidia-smi"
        smi.write_text(SMI.format(python=sys.executable, gpus=[*gpus]))
        smi.chmod(0o755)
        monkeypatch.setenv("PATH", f"{smi.parent}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        for name in ("HF_TOKEN", "KAGGLE_API_TOKEN"):
            monkeypatch.setenv(name, "")
        monkeypatch.setenv("HF_ENDPOINT", hub.address if hub else "http://127.0.0.1:9")

        def run_probe(questions):
            """Answers for torch, which here sees no GPU, and lets the rest be asked."""
            known = {"torch": {**TORCH, "gpus": len(gpus)}} if "torch" in questions else {}
            return known | probe_for_real([question for question in questions if question != "torch"])

        monkeypatch.setattr(probe, "run_probe", run_probe)

    probe_for_real = probe.run_probe
    return call


@pytest.fixture
def started(monkeypatch):
    """Returns the list of the runs that were started in place of being refused."""
    runs = []
    monkeypatch.setattr(runner, "run_preset", lambda preset_run: runs.append(preset_run) or FAILED)
    return runs


@pytest.fixture
def run_command(tmp_path, started, capsys):
    """Returns a function that runs a preset on the embedded corpus, and gives exit code and what was printed."""

    def call(*arguments, preset="colab-t4", base=BASE):
        sets = ["prepare_data.dataset=embedded", f"shared.base_model={base}", *arguments]
        code = main(["run", "--preset", preset, "--outputs", str(tmp_path / "outputs"), "--set", *sets])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return call


def assert_refused(result, sentence, started, tmp_path, hub=None):
    """Asserts that a command was refused with a sentence, and that nothing was started, written or downloaded."""
    code, printed = result
    assert sentence in printed
    assert code == 2
    assert not started
    assert not (tmp_path / "outputs").exists()
    assert not [path for path in (tmp_path / "huggingface").rglob("*") if path.is_file()]
    assert hub is None or not hub.downloads()


def test_a_gpu_without_kernels_is_refused(machine, run_command, started, tmp_path):
    with Hub({BASE: MODEL}) as hub:
        machine("kaggle", gpus=[P100], hub=hub)
        sentence = (
            "Tesla P100-PCIE-16GB has compute capability 6.0, and torch 2.10.0+cu128 has kernels for sm_75, sm_80, "
            "sm_90, sm_120 only. Choose Settings > Accelerator > GPU T4 x2."
        )
        assert_refused(run_command(), sentence, started, tmp_path, hub)


@pytest.mark.parametrize(
    ("where", "click"),
    [
        ("kaggle", "Choose Settings > Accelerator > GPU T4 x2."),
        ("colab", "Choose Runtime > Change runtime type > T4 GPU."),
        ("local", "`python -m helpers kaggle chain --preset NAME` runs it on Kaggle"),
    ],
)
def test_a_machine_without_a_gpu_is_refused(where, click, machine, run_command, started, tmp_path):
    with Hub({BASE: MODEL}) as hub:
        machine(where, gpus=[], hub=hub)
        sentence = f"This machine has no GPU, and {BASE} with 1.2 billion parameters needs one. {click}"
        assert_refused(run_command(), sentence, started, tmp_path, hub)


def test_a_torch_that_sees_no_gpu_is_refused():
    answer = {"version": "2.13.0+cpu", "gpus": 0, "architectures": []}
    problems = find_problems(checks.Needs(gpu_for=BASE), MachineFacts("local", [Gpu(*T4)], {"torch": answer}))
    assert problems == [
        "torch 2.13.0+cpu cannot use the GPUs here (Tesla T4). Install a build of torch for this machine's CUDA."
    ]


def test_a_gpu_nobody_could_ask_about_is_not_refused():
    assert find_problems(checks.Needs(gpu_for=BASE), MachineFacts("local", [], {})) == []
    assert find_problems(checks.Needs(gpu_for=BASE), MachineFacts("kaggle", [Gpu("Tesla T4", "")], {})) == []


def test_a_model_split_over_two_gpus_needs_two():
    facts = MachineFacts("kaggle", [Gpu(*T4)], {"torch": {**TORCH, "gpus": 1}})
    problems = find_problems(checks.Needs(gpu_for=BASE, split=True), facts)
    assert problems == [
        "train.device_map splits the model over two GPUs, and this machine has 1. Choose Settings > Accelerator > GPU "
        "T4 x2."
    ]


def test_without_internet_a_model_to_download_is_refused(machine, run_command, started, tmp_path):
    machine("kaggle")
    sentence = (
        f"base_model '{BASE}' has to be downloaded, and http://127.0.0.1:9 cannot be reached. Choose Settings > Turn "
        f"on internet"
    )
    assert_refused(run_command(), sentence, started, tmp_path)


def test_an_offline_hub_library_is_refused(machine, run_command, started, tmp_path, monkeypatch):
    machine("kaggle")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert_refused(run_command(), "HF_HUB_OFFLINE is set. Unset it", started, tmp_path)


def test_a_proxy_is_asked_in_place_of_the_host(machine, run_command, started, monkeypatch):
    with Hub({BASE: MODEL}) as proxy:
        machine("kaggle")
        monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
        for name in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, proxy.address)
        code, printed = run_command()
    assert code == FAILED, printed
    assert len(started) == 1, "a host behind a proxy is not unreachable"


def test_a_disk_too_small_for_the_model_is_refused(machine, run_command, started, tmp_path):
    huge = type("Huge", (bytes,), {"__len__": lambda self: 3 * 2**60})(b"weights")
    with Hub({BASE: {**MODEL, "model.safetensors": huge, "original/consolidated.00.pth": huge}}) as hub:
        machine("kaggle", hub=hub)
        sentence = f"base_model '{BASE}' takes 3221225472.0 GiB, and {tmp_path}/huggingface/hub has "
        assert_refused(run_command(), sentence, started, tmp_path, hub)


def test_a_silent_hub_leaves_the_size_to_an_estimate():
    answer = {"state": probe.READY, "host": "x", "bytes": None, "cache": "/cache", "free": 2 * 2**30}
    facts = MachineFacts("kaggle", [], {f"model:{BASE}": answer})
    problems = find_problems(checks.Needs(questions=(f"model:{BASE}",)), facts)
    assert problems == [
        f"base_model '{BASE}' takes about 2.3 GiB, and /cache has 2.0 GiB free. /tmp has room: set "
        f"HF_HOME=/tmp/huggingface before the run."
    ]


def test_a_hub_that_fails_is_no_reason_to_refuse(machine, run_command, started):
    with Hub({BASE: MODEL}, fault=500) as hub:
        machine("kaggle", hub=hub)
        code, printed = run_command()
    assert code == FAILED, printed
    assert len(started) == 1


def test_a_gated_model_names_its_twin_without_a_gate(machine, run_command, started, tmp_path):
    with Hub({GATED: MODEL}, gated=[GATED]) as hub:
        machine("kaggle", hub=hub)
        sentence = (
            f"base_model '{GATED}' is gated. Accept its terms at {hub.address}/{GATED} and put a token with access "
            f"into the secret HF_TOKEN (Add-ons > Secrets), or use the same weights without a gate: --set "
            f"shared.base_model={BASE}."
        )
        assert_refused(run_command(base=GATED), sentence, started, tmp_path, hub)


def test_a_gated_model_without_a_twin_names_none(machine, run_command, started, tmp_path):
    with Hub({"owner/Llama-3.2-1B-own": MODEL}, gated=["owner/Llama-3.2-1B-own"]) as hub:
        machine("colab", hub=hub)
        sentence = "secret HF_TOKEN (the key symbol on the left, Secrets).\n"
        assert_refused(run_command(base="owner/Llama-3.2-1B-own"), sentence, started, tmp_path, hub)
    assert ungated_twin("owner/Llama-3.2-1B-own") == ""


def test_a_token_among_the_secrets_opens_the_gate(machine, run_command, started, monkeypatch):
    client = type("Client", (), {"get_secret": lambda self, name: "granted" if name == "HF_TOKEN" else 1 / 0})
    monkeypatch.setitem(sys.modules, "kaggle_secrets", SimpleNamespace(UserSecretsClient=client))
    with Hub({GATED: MODEL}, gated=[GATED]) as hub:
        machine("kaggle", hub=hub)
        code, printed = run_command(base=GATED)
    assert code == FAILED, printed
    assert len(started) == 1


def test_a_model_that_is_not_attached_is_refused(machine, run_command, started, tmp_path):
    machine("kaggle")
    folder = str(tmp_path / "kaggle/input/models/metaresearch/llama-3.1/transformers/8b-instruct/2")
    sentence = (
        f"base_model '{folder}' is not here: attach the model with Add Input > Models and pass its folder as shared."
    )
    assert_refused(run_command(base=folder), sentence, started, tmp_path)


def test_a_misspelt_model_is_refused(machine, run_command, started, tmp_path):
    with Hub({}) as hub:
        machine("kaggle", hub=hub)
        sentence = f"base_model 'unsloth/Llama-3.2-1B-Instrct' is not at {hub.address}, or it is private."
        assert_refused(run_command(base="unsloth/Llama-3.2-1B-Instrct"), sentence, started, tmp_path, hub)


@pytest.mark.parametrize(
    ("where", "click"),
    [
        ("kaggle", "Attach it with Add Input > Datasets."),
        ("colab", "Put a Kaggle token into the secret KAGGLE_API_TOKEN"),
        ("local", "Put a Kaggle token into ~/.kaggle/access_token"),
    ],
)
def test_a_data_set_nobody_may_read_is_refused(where, click):
    facts = MachineFacts(where, [], {"kaggle:owner/corpus": {"state": probe.DENIED, "host": "x"}})
    problems = find_problems(checks.Needs(questions=("kaggle:owner/corpus",)), facts)
    reason = "is not attached, and Kaggle does not give it without credentials that may read it"
    assert len(problems) == 1
    assert problems[0].startswith(f"Kaggle data set 'owner/corpus' {reason}. {click}")


def test_a_data_set_that_is_not_attached_is_refused(machine, run_command, started, tmp_path, monkeypatch):
    with Hub({BASE: MODEL}) as hub:
        machine("kaggle", hub=hub)
        monkeypatch.setenv("KAGGLE_DATA_PROXY_URL", hub.address)
        for name in probe.JWT_VARIABLES:
            monkeypatch.delenv(name, raising=False)
        result = run_command("prepare_data.dataset=kaggle:owner/corpus")
        assert_refused(result, "Attach it with Add Input > Datasets.", started, tmp_path, hub)


def test_an_attached_data_set_needs_no_credentials(machine, run_command, started, tmp_path):
    with Hub({BASE: MODEL}) as hub:
        machine("kaggle", hub=hub)
        (tmp_path / "kaggle/input/datasets/owner/corpus").mkdir(parents=True)
        code, printed = run_command("prepare_data.dataset=kaggle:owner/corpus")
    assert code == FAILED, printed
    assert len(started) == 1


def test_a_gated_data_set_is_refused(machine, run_command, started, tmp_path):
    with Hub({BASE: MODEL, "datasets/owner/corpus": {"a.csv": b""}}, gated=["datasets/owner/corpus"]) as hub:
        machine("kaggle", hub=hub)
        result = run_command("prepare_data.dataset=hf:owner/corpus")
        sentence = f"Data set 'owner/corpus' is gated. Accept its terms at {hub.address}/datasets/owner/corpus"
        assert_refused(result, sentence, started, tmp_path, hub)


def test_everything_that_is_missing_is_said_at_once(machine, run_command):
    machine("kaggle", gpus=[])
    _, printed = run_command()
    assert "needs one." in printed
    assert "Turn on internet" in printed


def test_the_embedded_model_asks_the_machine_nothing(run_command, started, monkeypatch):
    monkeypatch.setattr(checks, "list_gpus", lambda: pytest.fail("nvidia-smi was asked"))
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a process was started"))
    code, printed = run_command(preset="demo", base="embedded")
    assert code == FAILED, printed
    assert len(started) == 1


def test_tiny_runs_of_large_presets_are_not_hindered(tmp_path, started, monkeypatch):
    monkeypatch.setattr(checks, "list_gpus", lambda: pytest.fail("nvidia-smi was asked"))
    assert main(["run", "--preset", "kaggle-t4x2", "--tiny", "--outputs", str(tmp_path)]) == FAILED
    assert len(started) == 1


def test_a_dry_run_is_not_hindered(machine, tmp_path, capsys):
    machine("kaggle", gpus=[])
    assert main(["run", "--preset", "kaggle-t4x2", "--dry-run", "--outputs", str(tmp_path / "outputs")]) == 0
    assert "num_gpus: 2" in capsys.readouterr().out


def test_a_notebook_opened_directly_is_refused_as_well(machine, tmp_path):
    machine("kaggle", gpus=[])
    cell = {name: value for name, (value, _) in parameters_cell("train").items()}
    types = {name: kind for name, (_, kind) in parameters_cell("train").items()}
    values = {**cell, "base_model": BASE, "run_name": "r", "outputs": str(tmp_path / "outputs")}
    with pytest.raises(Refused, match=r"(?s)has no GPU.*GPU T4 x2.*Turn on internet"):
        start_stage("train", {"__annotations__": types, **values})
    assert not (tmp_path / "outputs").exists()


def start_finished(tmp_path, stage, status="finished"):
    """Starts a stage as a notebook does, in a run that has a record of it."""
    folder = {"prepare_data": "data", "report": "report"}[stage]
    write_json(tmp_path / "demo" / folder / "metrics.json", {"made": "before"})
    write_json(tmp_path / "demo/run.json", {"stages": {stage: {"status": status, "ended": "2026-11-20"}}})
    cell = {name: value for name, (value, _) in parameters_cell(stage).items()}
    cell |= {"outputs": str(tmp_path)}
    run = start_stage(stage, {"__annotations__": dict.fromkeys(cell), **cell})
    run.unlock()
    return run


def test_a_notebook_does_not_replace_a_finished_stage(tmp_path, monkeypatch):
    monkeypatch.delenv("SAHANUBHUTI_PROGRESS", raising=False)
    with pytest.raises(Refused, match=r"run demo has finished prepare_data \(2026-11-20\), and nothing was changed"):
        start_finished(tmp_path, "prepare_data")
    assert read_json(tmp_path / "demo/data/metrics.json") == {"made": "before"}
    assert list(read_json(tmp_path / "demo/run.json")["stages"]["prepare_data"]) == ["status", "ended"]


@pytest.mark.parametrize(("stage", "status"), [("prepare_data", "failed"), ("report", "finished")])
def test_a_notebook_replaces_what_failed_and_the_report(stage, status, tmp_path, monkeypatch):
    monkeypatch.delenv("SAHANUBHUTI_PROGRESS", raising=False)
    assert start_finished(tmp_path, stage, status).stage(stage).status == "running"


def test_the_runner_may_replace_a_finished_stage(tmp_path, monkeypatch):
    monkeypatch.setenv("SAHANUBHUTI_PROGRESS", str(tmp_path / "progress.json"))
    assert start_finished(tmp_path, "prepare_data").stage("prepare_data").status == "running"


# Two GPUs planned, one here


def test_one_gpu_of_two_trains_with_the_new_estimate(machine, run_command, started):
    with Hub({"unsloth/Meta-Llama-3.1-8B-Instruct-bnb-4bit": MODEL}) as hub:
        machine("kaggle", gpus=[T4], hub=hub)
        code, printed = run_command(preset="kaggle-t4x2", base="unsloth/Meta-Llama-3.1-8B-Instruct-bnb-4bit")
    assert code == FAILED, printed
    assert len(started) == 1
    assert "this machine has 1 GPU, the run is planned for 2: training on 1, with 8 micro-batches per step" in printed
    assert "in place of 4 on each of 2, so that the effective batch stays. Estimated by a T4's constants: " in printed


def test_an_estimate_for_a_calibrated_gpu_names_it(machine, run_command, tmp_path):
    keep_calibration(tmp_path / "outputs", "NVIDIA L4", calibration(2.0))
    with Hub({BASE: MODEL}) as hub:
        machine("kaggle", gpus=[("NVIDIA L4", "8.9")], hub=hub)
        _, printed = run_command(preset="kaggle-t4x2")
    assert "effective batch stays. Estimated by calibration.json, NVIDIA L4, 2026-11-30, its products" in printed
    assert "on T4s" not in printed


def test_the_settings_of_a_run_stay_as_planned(machine, run_command, started):
    with Hub({BASE: MODEL}) as hub:
        machine("kaggle", gpus=[T4], hub=hub)
        run_command(preset="kaggle-t4x2")
    assert started[0].settings["train"]["num_gpus"] == 2
    assert started[0].settings["train"]["sft"]["gradient_accumulation_steps"] == 4


def begin(tmp_path, processes, run_id="mine"):
    """Writes a checkpoint that so many processes wrote."""
    run = tmp_path / "outputs/kaggle-t4x2"
    write_json(run / "run.json", {"run_name": "kaggle-t4x2", "id": "mine"})
    write_text(run / "train/checkpoints/checkpoint-100/adapter_model.safetensors", "weights")
    fingerprint = {"run": run_id, "settings": {"processes": processes}, "data": {}, "versions": {}}
    seal_checkpoint(run / "train/checkpoints/checkpoint-100", 100, fingerprint)


def test_a_run_of_two_gpus_is_not_resumed_on_one(machine, run_command, started, tmp_path):
    with Hub({BASE: MODEL}) as hub:
        machine("kaggle", gpus=[T4], hub=hub)
        begin(tmp_path, 2)
        code, printed = run_command(preset="kaggle-t4x2")
    assert "the run began on 2 GPUs and can only resume on as many, but this machine has 1 GPU." in printed
    assert "Settings > Accelerator > GPU T4 x2" in printed
    assert code == 2
    assert not started
    assert read_json(tmp_path / "outputs/kaggle-t4x2/run.json") == {"run_name": "kaggle-t4x2", "id": "mine"}


def test_another_runs_checkpoint_does_not_count(machine, run_command, started, tmp_path):
    with Hub({BASE: MODEL}) as hub:
        machine("kaggle", gpus=[T4], hub=hub)
        begin(tmp_path, 2, run_id="another")
        code, printed = run_command(preset="kaggle-t4x2")
    assert code == FAILED, printed
    assert len(started) == 1


@pytest.mark.parametrize(
    ("planned", "here", "begun", "processes", "accumulation"),
    [
        (2, 2, 0, 2, 4),
        (2, 1, 0, 1, 8),
        (4, 3, 0, 2, 8),  # 16 micro-batches cannot be dealt to three
        (2, 2, 1, 1, 8),  # began on one: stays there
        (0, 2, 0, 0, 4),  # all that are here
        (0, 2, 1, 1, 4),
        (1, 2, 0, 1, 4),
        (1, 2, 2, 1, 4),  # other settings than it began with: refused where the checkpoint is read
    ],
)
def test_fewer_gpus_keep_the_effective_batch(planned, here, begun, processes, accumulation):
    config = make_config(num_gpus=planned, sft={"gradient_accumulation_steps": 4})
    fitted, note = fit_gpus(config, here, begun)
    assert fitted.num_gpus == processes
    assert fitted.sft["gradient_accumulation_steps"] == accumulation
    assert bool(note) == (fitted != config)
    assert fit_gpus(fitted, here, begun) == (fitted, ""), "what was fitted stays"


@pytest.mark.parametrize(
    ("capability", "architectures", "expected"),
    [
        ("7.5", ["sm_75", "sm_80"], True),
        ("6.0", ["sm_75", "sm_80"], False),
        ("8.6", ["sm_80"], True),
        ("8.0", ["sm_86"], False),
        ("9.0", ["sm_80"], False),
        ("9.0", ["sm_80", "compute_80"], True),
        ("12.0", ["sm_90a", "sm_120"], True),
    ],
)
def test_kernels_run_on_their_own_major_version(capability, architectures, expected):
    assert has_kernels(capability, architectures) is expected
