"""Settings that are right one by one and cannot work together, or name what is not there: refused before a run."""

import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from helpers.evaluation.benchmarks import check_benchmarks
from helpers.evaluation.encoder import check_encoder
from helpers.models.families import check_bits, count_parameters, model_shape
from helpers.planning.config import configure_training
from helpers.platforms.downloads import check_tokenizer_files, is_cached, is_hub_name
from helpers.platforms.errors import Refused
from helpers.runs.checkpoints import checkpoint_folders
from helpers.runs.record import FORCED, Run
from helpers.runs.settings import Settings
from helpers.search.candidates import draw_points, rung_steps

ELSEWHERE = re.compile(r"kaggle:[\w.-]+/[\w.-]+|hf:[\w.-]+(/[\w.-]+)?(:.+)?")  # data sets that are no files here


def check_stages(stages: Iterable[str], settings: Settings) -> None:
    """Checks the settings of stages against each other. Raises Refused for the first that cannot work."""
    stages = [*stages]
    checks = {"prepare_data": check_data, "tune": check_search, "train": check_training, "evaluate": check_evaluation}
    # The rows that preferences are held against are not there yet where these stages are to make them
    has_rows = {"prepare_data", "train"}.isdisjoint(stages)
    checks["prefer"] = partial(check_preferences, can_gather=has_rows)
    try:
        for stage in stages:
            if stage in checks:
                checks[stage](settings[stage])
        if {"tune", "train"} & {*stages}:
            check_training(settings["train"])
        if "tune" in stages:
            check_searched_models(settings["tune"]["space"], settings["train"])
    except (ValueError, TypeError, FileNotFoundError) as error:
        raise Refused(str(error)) from error


def check_data(data: dict[str, Any]) -> None:
    """Checks the settings of 01_prepare_data. Raises ValueError and FileNotFoundError."""
    check_shares(data)
    if data["skip_rules"]:
        from helpers.data.clean import check_rules

        check_rules(data["skip_rules"])
    kind, _, _ = data["dataset"].partition(":")
    if kind in ("kaggle", "hf"):
        if not ELSEWHERE.fullmatch(data["dataset"]):
            raise ValueError(f"prepare_data.dataset is {data['dataset']!r}: expected {kind}:owner/name.")
    elif data["dataset"] != "embedded":
        from helpers.data.load import check_file

        check_file(Path(data["dataset"]))


def check_shares(data: dict[str, Any]) -> None:
    """Raises ValueError where the parts for training and validation leave no test part."""
    if data["train_share"] + data["val_share"] >= 1 - 1e-9:
        shares = f"{data['train_share']} and prepare_data.val_share {data['val_share']}"
        raise ValueError(f"prepare_data.train_share {shares} leave no test part: expected a sum below 1.")


def check_search(search: dict[str, Any]) -> None:
    """Checks the settings of tune. Raises ValueError."""
    draw_points(search["space"], search["trials"], search["seed"])
    rung_steps(search["budget_steps"], search["eta"], search["rungs"])


def check_training(train: dict[str, Any]) -> None:
    """Checks the settings of 02_train. Raises ValueError and FileNotFoundError."""
    configure_training(train)
    base = train["base_model"]
    if base == "embedded" or is_hub_name(base) or Path(base).is_dir():
        count_parameters(model_shape(base), train["lora"])
        check_bits(base, train["load_in_4bit"])
        check_tokenizer_files(base)
        check_template(base)


def check_searched_models(space: dict[str, list], train: dict[str, Any]) -> None:
    """Checks every base model of a search as 02_train's own. Raises ValueError and FileNotFoundError.

    Where load_in_4bit is searched too, a candidate of both that do not go together is left to the search.
    """
    load_in_4bit = train["load_in_4bit"] or "load_in_4bit" in space
    for base in space.get("base_model", []):
        try:
            check_training({**train, "base_model": base, "load_in_4bit": load_in_4bit})
        except (ValueError, FileNotFoundError) as error:
            raise ValueError(f"tune.space.base_model: {error}") from error


def check_template(base: str) -> None:
    """Raises ValueError for a base model whose chat template cannot be trained with, where its tokenizer is here: one
    that has to be downloaded first is refused by 01_prepare_data."""
    if not Path(base).is_dir() and not (is_hub_name(base) and is_cached(base, weights=False)):
        return
    from helpers.models.loading import load_tokenizer

    try:
        load_tokenizer(base)
    except Exception as error:  # of damaged files a library's own, of any type
        raise ValueError(f"the tokenizer of {base!r} cannot be used: {' '.join(str(error).split())}") from error


def check_preferences(preferences: dict[str, Any], can_gather: bool = True) -> None:
    """Checks the settings of prefer, and reads its sources once, unless a training that keeps its own has begun: on
    another machine they may be gone. Raises ValueError and FileNotFoundError.

    Where the run `can_gather` and has not before, it does, writes nothing, and raises ValueError where too little is
    left; before there are rows, where even all that was read is too little. A stage that has gathered before starts in
    any case: what was deleted since has to leave its files.
    """
    from helpers.preference.config import check_settings
    from helpers.preference.gather import check_enough, gather_preferences
    from helpers.preference.items import prompt_key
    from helpers.preference.sources import check_dataset, check_sources

    check_dataset(preferences["dataset"])
    check_settings(preferences["trl"])
    run = Run.named(preferences["outputs"], preferences["run_name"])
    begun = checkpoint_folders(run / "prefer" / "checkpoints")
    if begun and run.stage("prefer").status not in ("finished", FORCED):
        return
    has_gathered = (run / "prefer/pairs.jsonl").is_file()
    if can_gather and (run / "data/test.jsonl").is_file() and not has_gathered:
        sources = (preferences[name] for name in ("dataset", "val_share", "seed"))
        gather_preferences(run, *sources, is_trial=True)
        return
    items = check_sources(run, preferences["dataset"])
    if not has_gathered:
        check_enough(items, [prompt_key(item.prompt) for item in items], [], preferences["val_share"], "")


def check_evaluation(evaluation: dict[str, Any]) -> None:
    """Checks the settings of 03_evaluate. Raises ValueError and FileNotFoundError."""
    check_encoder(evaluation["encoder"])
    check_benchmarks(evaluation["benchmarks"])
    llm_judge = evaluation["llm_judge"]
    if bool(llm_judge["base_url"]) != bool(llm_judge["model"]):
        raise ValueError("evaluate.llm_judge needs both base_url and model, or neither.")
