"""What people take away: card, merged model, GGUF, Space, Hub; each whole or not there, with a clear error."""

import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
import yaml

from helpers import env, export, generate, model, report, tables

ASKED = ["মন খারাপ।", "চাকরিটা চলে গেছে।", "পরীক্ষায় ফেল করেছি।", "ঘুম আসে না।", "মায়ের সঙ্গে ঝগড়া হয়েছে।"]
ASKED += ["একা লাগে।", "বন্ধুটা কথা বলে না।", "বাবা অসুস্থ।", "টাকার চিন্তা।", "খুব ভয় করছে।"]


@pytest.fixture(scope="module")
def run(demo, tmp_path_factory):
    """Returns a copy of the demo's run that can be exported."""
    folder = tmp_path_factory.mktemp("export") / "demo"
    shutil.copytree(demo.run, folder, ignore=shutil.ignore_patterns("checkpoints", "html", "notebooks"))
    return folder


@pytest.fixture(scope="module")
def merged(run):
    """Exports the merged model once: its folder and what the export said of it."""
    base = export.sixteen_bit(env.read_json(run / "train/config.json"), "", run)
    return SimpleNamespace(base=base, said=export.merged(run, base, run / "export/merged", 12, 1))


def replies_of(network, tokenizer, run):
    system = generate.system_of(run)
    talks = [[*system, {"role": "user", "content": one}] for one in ASKED]
    return [one["reply"] for one in generate.replies(network, tokenizer, talks, 24, 5)]


@pytest.fixture(scope="module")
def adapter_replies(run):
    base = str(run / "data/model")
    both = model.load_for_inference(base, run / "train/adapter", False, "float32")
    return replies_of(both, model.load_tokenizer(base), run)


def test_the_merged_model_loads_and_answers_as_the_adapter_does(run, merged, adapter_replies):
    from transformers import AutoModelForCausalLM

    said, folder = merged.said, run / "export/merged"
    assert abs(said["perplexity_merged"] / said["perplexity_adapter"] - 1) <= 0.01 and said["rows"] == 12
    network = AutoModelForCausalLM.from_pretrained(folder).eval()
    found = replies_of(network, model.load_tokenizer(str(folder)), run)
    assert sum(a == b for a, b in zip(found, adapter_replies)) >= 9
    base = AutoModelForCausalLM.from_pretrained(merged.base).eval()
    untuned = replies_of(base, model.load_tokenizer(merged.base), run)
    assert sum(a == b for a, b in zip(untuned, adapter_replies)) < 5, "the adapter does nothing here"


def test_a_merge_into_another_base_is_noticed_and_leaves_nothing(run, merged, monkeypatch, tmp_path):
    from transformers import AutoModelForCausalLM

    real = AutoModelForCausalLM.from_pretrained

    def other(folder, **settings):
        network = real(folder, **settings)
        if ".merged.part" in str(folder):
            network.lm_head.weight.data *= 0.7
        return network

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", other)
    with pytest.raises(ValueError, match="more than 1% apart over 12 rows"):
        export.merged(run, merged.base, tmp_path / "merged", 12, 1)
    assert list(tmp_path.iterdir()) == []


def test_the_card_is_made_of_the_run_s_own_files(run):
    said = export.adapter(run, run / "export/adapter")
    card = (run / "export/adapter/README.md").read_text("utf-8")
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["library_name"] == "peft" and head["language"] == ["bn"] and "base_model" not in head
    judged = env.read_json(run / "evaluate/metrics.json")
    for row in tables.score_rows(judged):
        assert row["95 % interval"] in card and row["verdict"] in card
    assert report.headline(judged) in card and "no therapist" in card and "the pipeline, not the quality" in card
    assert (run / "export/adapter/adapter_model.safetensors").is_file() and said["bytes"] > 1000
    (run / "evaluate/metrics.json").rename(run / "evaluate/away.json")
    try:
        assert "## Scores\n\nNot measured." in export.card(run)
    finally:
        (run / "evaluate/away.json").rename(run / "evaluate/metrics.json")


def test_a_space_starts_with_nothing_but_its_folder(run, tmp_path):
    folder = tmp_path / "space"
    export.space(run, folder)
    head = yaml.safe_load((folder / "README.md").read_text("utf-8").split("---\n")[1])
    assert head["sdk"] == "gradio" and head["app_file"] == "app.py"
    wanted = (folder / "requirements.txt").read_text("utf-8").splitlines()
    assert any(line.startswith("transformers==") for line in wanted) and "bitsandbytes" not in wanted
    assert not list(folder.rglob("*.jsonl")) and not list(folder.rglob("embedded_corpus.csv")), "rows of the data"
    code = (
        "import sys; sys.argv = ['app.py']\nfrom helpers import app\napp.serve = lambda page, host, port: print(host)\n"
    )
    code = (
        f"import sys; sys.path.insert(0, {str(folder / 'src')!r})\n{code}exec(open({str(folder / 'app.py')!r}).read())"
    )
    code = code.replace("exec(open", f"__file__ = {str(folder / 'app.py')!r}\nexec(open")
    outside = {**os.environ, "PYTHONPATH": "", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=outside)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "0.0.0.0"


def test_what_cannot_be_exported_is_said_before_anything_is_made(run, tmp_path, monkeypatch):
    base = str(run / "data/model")
    with pytest.raises(ValueError, match="export.forms has zip: expected some of adapter, merged, gguf, space"):
        export.check(["zip"], [], base, tmp_path / "a")
    with pytest.raises(ValueError, match="export.gguf_types has q9"):
        export.check(["gguf"], ["q9"], base, tmp_path / "a")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1e6))
    with pytest.raises(OSError, match="0.0 GB free, merged, gguf need about .* set export.scratch"):
        export.check(["merged", "gguf"], ["f16"], base, tmp_path / "a")
    monkeypatch.setattr(env, "platform", lambda: "kaggle")
    assert str(export.place(run, "")) == "/tmp/sahanubhuti-demo"
    four_bit = {"base_model": "unsloth/Meta-Llama-3.1-8B-Instruct-bnb-4bit"}
    assert export.sixteen_bit(four_bit, "", run) == "unsloth/Meta-Llama-3.1-8B-Instruct"
    assert export.sixteen_bit(four_bit, "other/base", run) == "other/base"


def test_a_push_without_network_or_token_fails_clearly_and_keeps_what_was_built(run, monkeypatch):
    folder = run / "export/adapter"
    export.adapter(run, folder)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(ValueError, match="HF_TOKEN is not set"):
        export.push(folder, "someone/model", True)
    monkeypatch.setenv("HF_TOKEN", "not-a-real-one")
    with pytest.raises(OSError, match="could not be pushed to .* What was built stays in") as caught:
        export.push(folder, "someone/model", True)
    assert "not-a-real-one" not in str(caught.value) and (folder / "README.md").is_file()


def test_a_converter_that_is_not_there_is_asked_for(run, merged, tmp_path, monkeypatch):
    def away(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(export.urllib.request, "urlopen", away)
    with pytest.raises(OSError, match="could not be fetched .*no route to host.* set export.llama_cpp"):
        export.gguf(run, run / "export/merged", tmp_path / "gguf", ["f16"], "")
    with pytest.raises(FileNotFoundError, match="export.llama_cpp is to be a checkout"):
        export.gguf(run, run / "export/merged", tmp_path / "gguf", ["f16"], str(tmp_path))


def test_the_notebook_exports_what_is_asked_for(run, suite):
    arguments = ["--preset", "demo", "--outputs", run.parent, "--stages", "export"]
    done = suite(*arguments, "--set", "export.forms=[adapter,merged]", "export.check_rows=4")
    assert done.returncode == 0, done.said
    found = json.loads((run / "export/metrics.json").read_text("utf-8"))
    assert set(found) == {"forms", "adapter", "merged"} and found["merged"]["rows"] == 4


@pytest.mark.slow
def test_gguf_files_answer_in_llama_cpp_as_the_adapter_does(run, merged, adapter_replies, tmp_path):
    """Needs llama-cpp-python, and LLAMA_CPP, a checkout of llama.cpp, where there is no network."""
    llama_cpp = pytest.importorskip("llama_cpp")
    said = export.gguf(run, run / "export/merged", tmp_path / "gguf", ["f16", "q8_0"], os.environ.get("LLAMA_CPP", ""))
    tokenizer = model.load_tokenizer(str(run / "data/model"))
    from helpers import chat

    ends = set(tokenizer.convert_tokens_to_ids([chat.END, chat.END_OF_TEXT]))
    for kind, least in (("f16", 9), ("q8_0", 5)):
        network = llama_cpp.Llama(said[kind]["file"], n_ctx=512, verbose=False)
        found = []
        for one in ASKED:
            prompt = chat.encode_prompt(tokenizer, [*generate.system_of(run), {"role": "user", "content": one}])
            reply = []
            for token in network.generate(prompt, temp=0.0, top_k=1, repeat_penalty=1.0):
                if token in ends or len(reply) == 24:
                    break
                reply.append(token)
            found.append(tokenizer.decode(reply, skip_special_tokens=True).strip())
        same = sum(a == b for a, b in zip(found, adapter_replies))
        print(f"{kind}: {same} of {len(found)} greedy replies are the adapter's")
        assert same >= least, (kind, found)
    assert said["q8_0"]["bytes"] < said["f16"]["bytes"]
