"""A run that can be exported, the merged model, and the replies of base and adapter to compare with."""

import shutil
from types import SimpleNamespace

import pytest

from helpers.inference.generate import generate_replies, system_messages
from helpers.models.loading import load_for_inference, load_tokenizer
from helpers.runs.record import Run
from helpers.sharing.export import locate_16bit_base
from helpers.sharing.merge import merge_adapter

MESSAGES = ["মন খারাপ।", "চাকরিটা চলে গেছে।", "পরীক্ষায় ফেল করেছি।", "ঘুম আসে না।", "মায়ের সঙ্গে ঝগড়া হয়েছে।"]
MESSAGES += ["একা লাগে।", "বন্ধুটা কথা বলে না।", "বাবা অসুস্থ।", "টাকার চিন্তা।", "খুব ভয় করছে।"]


@pytest.fixture(scope="module")
def run(demo, tmp_path_factory):
    """Returns a copy of the demo's run that can be exported."""
    folder = tmp_path_factory.mktemp("export") / "demo"
    shutil.copytree(demo.run, folder, ignore=shutil.ignore_patterns("checkpoints", "html", "notebooks"))
    return Run(folder)


@pytest.fixture(scope="module")
def merged(run):
    """Exports the merged model once: `base`, its base model, and `facts`, what the export returned."""
    base = locate_16bit_base(run.training_config(), "", run)
    return SimpleNamespace(base=base, facts=merge_adapter(run, base, run / "export/merged", 12, 1))


@pytest.fixture(scope="module")
def conversations(run):
    """Returns the conversations that are answered: the run's system message and one question each."""
    return [[*system_messages(run), {"role": "user", "content": message}] for message in MESSAGES]


@pytest.fixture(scope="module")
def reply(conversations):
    """Returns a function that gives a model's greedy replies to the conversations."""

    def call(model, tokenizer):
        return [answer["reply"] for answer in generate_replies(model, tokenizer, conversations, 24, 5)]

    return call


@pytest.fixture(scope="module")
def adapter_replies(run, reply):
    """Returns the replies of base and adapter."""
    base = str(run / "data/model")
    return reply(load_for_inference(base, run / "train/adapter", False, "float32"), load_tokenizer(base))
