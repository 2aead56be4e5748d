"""The scan for secrets: each kind is found where it is planted, in a source and in a notebook's output."""

import check_secrets
import nbformat
import pytest

from helpers.platforms.scrub import FORMS, HIDDEN, scrub

LETTERS = "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7" * 3
SECRETS = {  # each put together here, so that no file holds one
    "a Hugging Face token": "hf_" + LETTERS[:34],
    "a Kaggle token": "KGAT_" + LETTERS[:32],
    "a key of kaggle.json": '{"username": "x", "key": "' + "0123456789abcdef" * 2 + '"}',
    "an OpenAI key": "sk-" + "proj-" + LETTERS[:40],
    "a GitHub token": "ghp_" + LETTERS[:36],
    "a GitHub token of some rights": "github_pat_" + LETTERS[:60],
    "a GitLab token": "glpat-" + LETTERS[:20],
    "a Slack token": "xoxb-" + "1234567890-" + LETTERS[:20],
    "an AWS key": "AKIA" + "Q3EGRP7XYZ5TLMN2",
    "a Google key": "AIza" + LETTERS[:35],
    "a JSON web token": ".".join(("eyJ" + LETTERS[:20], "eyJ" + LETTERS[:20], LETTERS[:20])),
    "a private key": "-----BEGIN " + "OPENSSH PRIVATE KEY-----",
    "a password in a URL": "https://somebody:" + "correct-horse" + "@example.org/model",
}
CLEAN = """
read_secret("HF_TOKEN")  # hf_hub_download, sk-learn, "secret": "KAGGLE_API_TOKEN"
key = "model.layers.0"; commit = "3f786850e387550fdab836ed7e6dc881de23001b"
url = f"https://{user}:{password}@example.org"; redis://localhost:6379
"""


def test_every_kind_of_secret_is_planted_here():
    assert SECRETS.keys() == check_secrets.PATTERNS.keys()


@pytest.mark.parametrize("whose", SECRETS)
def test_a_secret_in_a_source_is_found(tmp_path, whose, capsys):
    path = tmp_path / "source.py"
    path.write_text(f'import os\n\ntoken = """{SECRETS[whose]}"""\n', encoding="utf-8")
    assert check_secrets.main([str(path)]) == 1
    printed = capsys.readouterr().out
    assert f"{path}:3: {whose}\n" in printed
    assert SECRETS[whose] not in printed, "the scan's own output shows the secret"


@pytest.mark.parametrize("whose", FORMS)
def test_what_the_scan_names_no_page_shows(whose):
    assert scrub(f"401 for {SECRETS[whose]}, again") == f"401 for {HIDDEN}, again"
    assert scrub(f"401 for {SECRETS[whose][:26]}…") == f"401 for {HIDDEN}…", "a token that is cut off is shown"


@pytest.mark.parametrize("place", ["source", "text", "html"])
def test_a_hub_token_in_a_notebook_is_found(tmp_path, place):
    token, cell = SECRETS["a Hugging Face token"], nbformat.v4.new_code_cell("login()")
    if place == "source":
        cell.source = f'login(token="{token}")'
    elif place == "text":
        cell.outputs = [nbformat.v4.new_output("stream", text=f"logged in with {token}\n")]
    else:
        cell.outputs = [nbformat.v4.new_output("display_data", data={"text/html": f"<b>{token}</b>"})]
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "a.ipynb")
    assert [whose for _, whose in check_secrets.check_file(tmp_path / "a.ipynb")] == ["a Hugging Face token"]


def test_a_file_of_no_encoding_is_scanned_too(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"\xff\xfe\x00" + SECRETS["a Hugging Face token"].encode())
    assert check_secrets.main([str(tmp_path / "model.bin")]) == 1


def test_what_only_looks_like_a_secret_passes(tmp_path):
    (tmp_path / "clean.py").write_text(CLEAN, encoding="utf-8")
    assert list(check_secrets.check_file(tmp_path / "clean.py")) == []


def test_the_checkout_holds_no_secret():
    scanned = {path.relative_to(check_secrets.ROOT).as_posix() for path in check_secrets.files()}
    assert {"notebooks/02_train.ipynb", "src/helpers/runner.py", "Makefile", "requirements.lock"} <= scanned
    assert check_secrets.main([]) == 0
