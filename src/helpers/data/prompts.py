"""The fixed messages that every model answers, the same for every run (prompts.yaml)."""

from functools import cache
from pathlib import Path

import yaml

FIVE = ("loneliness", "career", "exam", "family", "stress")  # the categories of ref-c-bengali-8b-qlora's five prompts


@cache
def prompt_data() -> dict:
    """Returns prompts.yaml: prompts by category, and the turns of one conversation."""
    return yaml.safe_load(Path(__file__).with_name("prompts.yaml").read_text(encoding="utf-8"))


def fixed_prompts() -> list[dict]:
    """Returns the fixed prompts as {"category", "prompt"}, in the file's order."""
    prompts = prompt_data()["prompts"]
    return [{"category": category, "prompt": prompt} for category in prompts for prompt in prompts[category]]


def five_prompts() -> list[str]:
    """Returns the fixed prompts that stand for ref-c-bengali-8b-qlora's five."""
    return [prompt_data()["prompts"][category][0] for category in FIVE]
