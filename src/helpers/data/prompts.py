"""The fixed messages that every model answers, the same for every run (prompts.yaml)."""

from pathlib import Path

from helpers.runs.files import load_yaml

# Prompts by category, and the turns of one conversation
PROMPTS: dict = load_yaml(Path(__file__).with_name("prompts.yaml"))
FIVE = ("loneliness", "career", "exam", "family", "stress")  # the categories of ref-c-bengali-8b-qlora's five prompts


def fixed_prompts() -> list[dict]:
    """Returns the fixed prompts as {"category", "prompt"}, in the file's order."""
    prompts = PROMPTS["prompts"].items()
    return [{"category": category, "prompt": prompt} for category, own in prompts for prompt in own]


def five_prompts() -> list[str]:
    """Returns the fixed prompts that stand for ref-c-bengali-8b-qlora's five."""
    return [PROMPTS["prompts"][category][0] for category in FIVE]
