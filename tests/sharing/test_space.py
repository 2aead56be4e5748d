"""A Space: a folder that serves the chat page with nothing but itself."""

import os
import subprocess
import sys

import pytest
import yaml

from helpers.sharing.space import write_space

START = """
import sys
from helpers.inference import chat_page

chat_page.ChatPage.serve = lambda self, host, port: print(host)
"""

UNPINNED = ("ftfy", "datasketch", "optuna", "sacrebleu", "evaluate", "rouge_score", "krippendorff", "papermill")


@pytest.fixture(scope="module")
def space(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("spaces") / "space"
    write_space(run, folder)
    return folder


def test_the_front_matter_is_that_of_a_gradio_space(space):
    readme = (space / "README.md").read_text("utf-8")
    head = yaml.safe_load(readme.split("---\n")[1])
    assert head["sdk"] == "gradio"
    assert head["app_file"] == "app.py"
    assert "# demo\n\nA LoRA adapter" in readme


def test_a_space_pins_what_the_chat_page_needs(space):
    lines = (space / "requirements.txt").read_text("utf-8").splitlines()
    assert any(line.startswith("transformers==") for line in lines)
    assert "bitsandbytes" not in lines


def test_a_space_detects_a_crisis_with_the_same_weights(space):
    assert (space / "src/helpers/language/detector.npz").is_file()
    assert (space / "src/helpers/language/crisis_words.yaml").is_file()


def test_a_space_holds_no_row_of_the_data(space):
    assert not list(space.rglob("*.jsonl"))
    assert not list(space.rglob("data/embedded.csv"))


def test_a_space_starts_with_nothing_but_its_folder(space, tmp_path):
    """Runs app.py in a Python that lacks what the Space does not pin; serving is replaced by printing the host."""
    app = str(space / "app.py")
    code = f"import sys; sys.path.insert(0, {str(space / 'src')!r}); sys.argv = ['app.py']\n{START}"
    code += f"sys.modules.update(dict.fromkeys({UNPINNED!r}))\n"
    code += f"__file__ = {app!r}\nexec(compile(open(__file__, encoding='utf-8').read(), __file__, 'exec'))"
    environment = {**os.environ, "PYTHONPATH": "", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "0.0.0.0"
