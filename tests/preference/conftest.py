"""A run without its model, and preferences about prompts that no part of its data has."""

import pytest
from preferences import COLD, WARM, ask, write_run

from helpers.preference.gather import gather_preferences
from helpers.runs.files import write_jsonl

WORDS = "নদী পাহাড় জানালা বৃষ্টি স্কুল বাজার ট্রেন বাগান চিঠি গান রান্না ছাদ পুকুর সাইকেল আয়না ঘুড়ি নৌকা মেলা উঠান লণ্ঠন".split()


@pytest.fixture(scope="session")
def prompts():
    """Returns twenty different prompts."""
    return [f"{word} দেখলেই পুরোনো দিনের কথা খুব মনে পড়ে যায় আমার {word} {word}{n}।" for n, word in enumerate(WORDS)]


@pytest.fixture(scope="session")
def pairs(prompts):
    """Returns a pair about each prompt, as a file's rows: a warm reply is preferred to a cold one."""
    return [ask(prompt, f"{WARM} ({word})", f"{COLD} ({word})") for prompt, word in zip(prompts, WORDS)]


@pytest.fixture
def run(embedded_rows, tmp_path):
    """Returns a run that was trained on the embedded corpus."""
    return write_run(tmp_path / "outputs" / "run", embedded_rows)


@pytest.fixture
def gather(run, tmp_path):
    """Returns a function that gathers preferences from rows of a file, or from named sources."""

    def call(rows=(), sources=(), val_share=0.2, seed=1):
        file = tmp_path / "preferences.jsonl"
        write_jsonl(file, rows)
        return gather_preferences(run, [*[str(file)] * bool(rows), *sources], val_share, seed)

    return call
