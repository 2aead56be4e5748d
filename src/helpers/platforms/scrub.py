"""Secrets in texts: what looks like one, and texts without them."""

import os
import re

FORMS = {  # whose: how it begins, of which characters the rest is, and how many of them it has at least
    "a Hugging Face token": (r"(?:hf|api_org)_", r"[A-Za-z0-9]", 30),
    "a Kaggle token": (r"KGAT_?", r"[A-Za-z0-9]", 20),
    "an OpenAI key": (r"sk-", r"[\w-]", 20),
    "a GitHub token": (r"gh[oprsu]_", r"[A-Za-z0-9]", 36),
    "a GitHub token of some rights": (r"github_pat_", r"\w", 50),
    "a GitLab token": (r"glpat-", r"[\w-]", 20),
    "a Slack token": (r"xox[abprs]-", r"[\w-]", 10),
    "an AWS key": (r"(?:AKIA|ASIA)", r"[0-9A-Z]", 16),
    "a Google key": (r"AIza", r"[\w-]", 35),
    "a JSON web token": (r"eyJ(?=[\w-]+\.)", r"[\w.-]", 30),
}
CUT = 12  # characters of a token that is cut off, by which it is known still
TOKEN = re.compile(
    "|".join(rf"\b{start}{rest}{{{min(least, CUT)},}}[\w.-]*" for start, rest, least in FORMS.values())
    + r"|\b[Bb]earer +[\w.~+/=-]{12,}"
    r"|(?<![\w./-])[0-9a-f]{32}(?![\w./-])"  # a key of Kaggle
)
FIELD = re.compile(r"(?:^|_)(?:secret|key|token|password|passwd|credentials?)$", re.IGNORECASE)
NO_SECRETS = {"pad_token", "eos_token"}  # fields whose texts everybody may read
PASSWORD = re.compile(r"(://[^\s/:@<>\"']*):[^\s/@<>\"']+@")
QUERY = re.compile(r"([?&](?:\w*_)?(?:secret|key|token|password)=)[^\s&<>\"']+", re.IGNORECASE)
HIDDEN = "[secret]"
LEAST = 8  # characters of a variable's value that is taken for a secret
_known: set[str] = set()  # secrets that this process has read


def remember_secret(value: str) -> str:
    """Returns a secret, which no text that is scrubbed from now on shows."""
    if len(value) >= LEAST:
        _known.add(value)
    return value


def is_secret_field(name: str) -> bool:
    """Returns whether a setting of this name holds a secret."""
    return bool(FIELD.search(name)) and name not in NO_SECRETS


def holds_secret(text: str) -> bool:
    """Returns whether a text holds what looks like a token, or a URL with a password."""
    return any(pattern.search(text) for pattern in (TOKEN, PASSWORD, QUERY))


def own_secrets() -> list[str]:
    """Returns the secrets that this process has read, and those of its environment."""
    own = {value for name, value in os.environ.items() if is_secret_field(name) and not value.startswith("/")}
    return sorted(_known | {value for value in own if len(value) >= LEAST and " " not in value})


def scrub(text: str, secrets: list[str] | None = None) -> str:
    """Returns a text without what looks like a secret, and without `secrets`, unless given this process's own."""
    text = QUERY.sub(rf"\1{HIDDEN}", PASSWORD.sub(r"\1:…@", TOKEN.sub(HIDDEN, text)))
    for value in own_secrets() if secrets is None else secrets:
        text = text.replace(value, HIDDEN)
    return text
