"""Successive halving with Optuna: many candidates for a few steps, the better ones for more, from where they stood.

Jamieson and Talwalkar 2016; here Optuna's asynchronous form (Li et al. 2020), whose pruner decides. Every candidate has
the same budget in tokens; a rung is 1/η of the next.
"""

import contextlib
import csv
import gc
import io
import itertools
import math
import os
import random
import shutil
import socket
import sys
import threading
import time
from pathlib import Path

from helpers import checkpoints, env, plan, presets, train

SILENT = 600.0  # seconds without a word after which a process on another machine counts as gone
PAUSED = 75  # exit code of a process that the session's end paused
DECIDED = {  # train settings that are no candidate's to choose: why
    "the budget decides it": ("num_train_epochs", "sft.max_steps"),
    "the rungs decide it": tuple(
        f"sft.{name}"
        for name in "save_strategy save_steps save_total_limit eval_strategy eval_steps logging_steps "
        "load_best_model_at_end early_stopping_patience".split()
    ),
    "losses would not compare": ("base_model", "eval_rows"),
    "it is the run's": ("run_name", "outputs", "session"),
}


def candidates(space: dict, number: int, seed: int) -> list[dict]:
    """Returns `number` points of the grid that `space` ({train setting: [values]}) spans, drawn by seed, 0: all.

    Raises ValueError for an empty space, a setting 02_train does not have or that is decided otherwise, a value of a
    wrong type.
    """
    if not space:
        raise ValueError(
            "tune.space is empty: expected train settings with values, as {learning_rate: [1.0e-4, 2.0e-4]}."
        )
    for name, values in space.items():
        if not isinstance(values, list) or not values:
            raise ValueError(f"tune.space.{name} is {values!r}: expected a list of values.")
        for why, names in DECIDED.items():
            if name in names:
                raise ValueError(f"tune.space.{name} cannot be searched: {why}. Leave it out.")
    points = [dict(zip(space, values)) for values in itertools.product(*space.values())]
    for name, values in space.items():
        for value in values:
            try:
                parameters({}, {name: value})
            except presets.Refused as error:
                raise ValueError(str(error).replace("tune: train", "tune.space")) from error
    random.Random(seed).shuffle(points)
    return points[: number or None]


def parameters(base: dict, candidate: dict) -> dict:
    """Returns 02_train's parameters with a candidate's laid over; presets.Refused for what is no setting there."""
    defaults = {name: value for name, (value, _) in presets.parameters_cell("train").items()}
    settings = {stage: {} for stage in env.STAGES} | {"train": {**defaults, **base}}
    for name, value in candidate.items():
        for key in reversed(name.split(".")):
            value = {key: value}
        presets.layer(settings, {"train": value}, "tune")
    return settings["train"]


def rungs(most: int, eta: int, number: int) -> list[int]:
    """Returns the steps at which a candidate of `most` steps is judged: number of them, each 1/η of the next.

    Raises ValueError when the first would be no whole step.
    """
    if most < eta ** (number - 1):
        raise ValueError(
            f"{most} steps cannot be halved {number - 1} times by {eta}: raise tune.budget_steps to at least "
            f"{eta ** (number - 1)}, or lower tune.rungs."
        )
    return [max(1, round(most / eta ** (number - 1 - place))) for place in range(number)]


def configurations(run: Path, base: dict, found: list[dict], budget_steps: int) -> list[dict]:
    """Returns each candidate's training configuration, all for the same tokens: those of `budget_steps` of the base's.

    A candidate that plan.configure refuses has {"refused": the reason} instead.
    """
    data = env.read_json(run / "data" / "metrics.json")
    lengths = plan.spread(data["tokens"]["quantiles"], data["train"])
    prepared = env.read_json(run / "run.json")["stages"]["prepare_data"]["parameters"]

    def configured(candidate: dict) -> dict:
        config = plan.configure(parameters(base, candidate))
        config |= {"max_length": prepared["max_length"], "embedded_model": data["embedded_model"]}
        return config

    def tokens_a_step(config: dict) -> float:
        settings = {**plan.batch_settings(config), "epochs": 1.0, "max_steps": -1}
        return sum(lengths) / len(plan.schedule(lengths, settings, config["num_gpus"] or 1)[0])

    budget, result = budget_steps * tokens_a_step(configured({})), []
    for candidate in found:
        try:
            config = configured(candidate)
        except ValueError as error:
            result.append({"refused": str(error)})
            continue
        steps = max(1, round(budget / tokens_a_step(config)))
        warm_up = config["sft"]["warmup_steps"]
        config["sft"] |= {
            "max_steps": steps,
            "warmup_steps": min(0.5, warm_up / budget_steps if warm_up >= 1 else warm_up),  # of the same tokens
            "logging_steps": 1,
            "eval_strategy": "no",
            "load_best_model_at_end": False,
        }
        config["sft"] |= {"save_strategy": "no", "save_total_limit": 1}
        config["sft"].pop("early_stopping_patience", None)
        result.append(config)
    return result


def price(run: Path, configs: list[dict], eta: int, number: int) -> dict:
    """Returns the predicted hours on T4s of the search's steps, and of training every candidate to the end.

    Loading the model, once a candidate, is not in the hours.
    """
    data = env.read_json(run / "data" / "metrics.json")
    lengths = plan.spread(data["tokens"]["quantiles"], data["train"])
    random.Random(0).shuffle(lengths)
    whole = 0.0
    for config in configs:
        if "refused" not in config:
            world = config["num_gpus"] or 1
            epochs = plan.schedule(lengths, plan.batch_settings(config), world)
            whole += plan.training_seconds(config, plan.model_shape(config["base_model"]), lengths, epochs) / 3600
    share = sum((eta**k - (eta ** (k - 1) if k else 0)) / eta ** (number - 1) / eta**k for k in range(number))
    return {
        "candidates": len(configs),
        "hours_of_all": whole,
        "hours_of_search": whole * share,
        "share": share,
    }


# Trials


def open_study(run: Path, storage: str, eta: int, number: int, found: list[dict], seed: int):
    """Returns the Optuna study of a run, with every candidate waiting in it once; two that open it do so in turn.

    `storage`: "" is SQLite in the run's folder; a path that ends in .journal a journal file (for a mounted Drive); any
    other a database URL. Raises ValueError when the storage holds another search.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=eta, bootstrap_count=0)
    sampler = optuna.samplers.RandomSampler(seed=seed)  # asked for nothing: all candidates are enqueued
    search = {"candidates": found, "eta": eta, "rungs": number, "seed": seed}
    with turn(run):
        if storage.endswith(".journal"):
            Path(storage).parent.mkdir(parents=True, exist_ok=True)
            place = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(storage))
        else:
            url = storage or f"sqlite:///{run / 'tune' / 'study.db'}"
            patient = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
            place = optuna.storages.RDBStorage(url, engine_kwargs=patient)
        study = optuna.create_study(
            study_name=run.name,
            storage=place,
            sampler=sampler,
            pruner=pruner,
            direction="minimize",
            load_if_exists=True,
        )
        if "search" not in study.user_attrs:
            for candidate in range(len(found)):
                study.enqueue_trial({"candidate": candidate})
            study.set_user_attr("own", not storage)  # in the run's folder, so that no other machine sees it
            study.set_user_attr("search", search)
        elif study.user_attrs["search"] != search:
            raise ValueError(f"the storage of study {run.name} holds another search: take another run_name or storage.")
    return study


@contextlib.contextmanager
def turn(run: Path):
    """While it lasts, no other process on this machine does what this one does."""
    from filelock import FileLock

    (run / "tune").mkdir(parents=True, exist_ok=True)
    with FileLock(run / "tune" / ".turn.lock"):
        yield


def abandoned(study, frozen, run: Path) -> bool:
    """Says whether a running trial may be taken over by a process that gets its lock.

    A search kept in the run's folder has no other machine. Elsewhere it may still be trained on another one, unless its
    process paused, or has not been heard of for SILENT seconds.
    """
    if study.user_attrs["own"]:
        return True
    here = (frozen.user_attrs.get("host"), frozen.user_attrs.get("folder")) == (socket.gethostname(), str(run))
    return here or time.time() - frozen.user_attrs.get("seen", 0.0) > SILENT


@contextlib.contextmanager
def heard(trial):
    """While it lasts, other machines hear that this one trains the trial; a pause gives it free at once."""
    over = threading.Event()

    def tell_again():
        while not over.wait(SILENT / 10):
            trial.storage.set_trial_user_attr(trial._trial_id, "seen", time.time())

    trial.set_user_attr("seen", time.time())
    telling = threading.Thread(target=tell_again, daemon=True)
    telling.start()
    try:
        yield
    except env.Paused:
        trial.set_user_attr("seen", 0.0)
        raise
    finally:
        over.set()
        telling.join()


def next_trial(study, run: Path):
    """Returns (trial, its lock), one whose process is gone or one that waits; (None, None) at the end.

    A trial is trained under a lock of its candidate's folder, which the system frees when its process ends.
    """
    import optuna
    from filelock import FileLock, Timeout

    running, waiting = optuna.trial.TrialState.RUNNING, optuna.trial.TrialState.WAITING
    last = len(study.user_attrs["search"]["candidates"]) - 1
    with turn(run):
        for frozen in study.get_trials(deepcopy=False, states=[running]):
            lock = FileLock(folder_of(run, candidate_of(frozen)) / ".lock")
            if again(study, frozen.number, candidate_of(frozen)):
                study.tell(frozen.number, state=optuna.trial.TrialState.FAIL)
            elif abandoned(study, frozen, run):
                with contextlib.suppress(Timeout):
                    lock.acquire(timeout=0)  # freed by the system: its process is gone
                    trial = optuna.trial.Trial(study, frozen._trial_id)
                    trial.suggest_int("candidate", 0, last)  # unless it was killed before
                    introduce(trial, run)
                    return trial, lock
        while study.get_trials(deepcopy=False, states=[waiting]):
            trial = study.ask()
            number = trial.suggest_int("candidate", 0, last)
            if again(study, trial.number, number):
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
                continue
            lock = FileLock(folder_of(run, number) / ".lock")
            lock.acquire(timeout=60)
            introduce(trial, run)
            return trial, lock
        return None, None


def again(study, number: int, candidate: int) -> bool:
    """Says whether a trial before this number has the candidate: two machines, or a kill, had all enqueued twice."""
    return any(candidate_of(one) == candidate for one in study.get_trials(deepcopy=False) if one.number < number)


def candidate_of(frozen) -> int:
    """Returns the number of a trial's candidate; one that has not begun has it enqueued."""
    return frozen.params.get("candidate", frozen.system_attrs.get("fixed_params", {}).get("candidate"))


def introduce(trial, run: Path) -> None:
    """Notes in the storage who trains a trial."""
    facts = {"host": socket.gethostname(), "folder": str(run), "seen": time.time()}
    for name, value in (facts | {"worker": f"{socket.gethostname()} {os.getpid()}"}).items():
        trial.set_user_attr(name, value)


def folder_of(run: Path, candidate: int) -> Path:
    """Returns a candidate's folder, made if it is missing: a run's, whose data are those of the whole run."""
    folder = run / "tune" / "trials" / f"{candidate:03d}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def carry_out(run: Path, study, configs: list[dict], session: dict) -> None:
    """Trains the candidates: on a CPU here, on a GPU in one process for all, which gives the memory back at its end.

    Raises env.Paused as `work` does, RuntimeError when that process fails.
    """
    import torch

    if not torch.cuda.is_available():
        return work(run, study, configs, session)
    command = [sys.executable, "-m", "helpers.tune", str(run)]
    code = env.stream(command, **{env.SESSION_START: str(env.session_start())})
    if code == PAUSED:
        over = sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))
        raise env.Paused(f"{over} of {len(configs)} candidates are done. Run it again to go on.")
    if code:
        raise RuntimeError(f"the search ended with exit code {code}: its log stands above. Run it again to go on.")


def work(run: Path, study, configs: list[dict], session: dict) -> None:
    """Trains candidates until none is left, here or in another process. Raises env.Paused at the session's end; the
    same call goes on.

    A candidate that is refused, runs out of memory or diverges fails with its reason, and the search goes on.
    """
    import optuna

    search = study.user_attrs["search"]
    while True:
        trial, lock = next_trial(study, run)
        if trial is None:
            if not study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING]):
                return
            if env.session_left(session["hours"]) < 60 or (run / "stop").exists():
                raise env.Paused("other processes are still at work on candidates. Run it again to go on.")
            time.sleep(1)
            continue
        with lock:
            candidate = trial.params["candidate"]
            config = {**configs[candidate], "session": {**session, "mirror": ""}, "part_of": "../../.."}
            try:
                with heard(trial):
                    value = climb(run, trial, config, search["eta"], search["rungs"])
            except env.Paused:
                raise
            except (ValueError, RuntimeError, FloatingPointError, MemoryError) as error:  # torch's are RuntimeErrors
                trial.set_user_attr("reason", env.brief(error))
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
                print(f"candidate {candidate}: failed, {env.brief(error)}", flush=True)
            else:
                study.tell(trial, value, state=optuna.trial.TrialState.PRUNED if value is None else None)
            free_memory()
            tell(study)
            for name in ("checkpoints", "adapter"):
                shutil.rmtree(folder_of(run, candidate) / "train" / name, ignore_errors=True)


def free_memory() -> None:
    """Gives back what a training held, so that the next one has all of the card."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def climb(run: Path, trial, config: dict, eta: int, number: int) -> float | None:
    """Trains one candidate from rung to rung and returns its validation loss at the last, None when it was pruned.

    In one process it goes on in memory, else, or after a kill, from its checkpoint. Raises env.Paused when the session
    ends before, RuntimeError with what the training said when it failed.
    """
    if "refused" in config:
        raise ValueError(config["refused"])
    own = folder_of(run, trial.params["candidate"])
    if not (own / "data").exists():
        try:
            (own / "data").symlink_to(Path(os.path.relpath(run / "data", own)), target_is_directory=True)
        except OSError:  # a file system without links
            shutil.copytree(run / "data", own / "data")
    steps = rungs(config["sft"]["max_steps"], eta, number)

    def losses() -> dict[int, float]:
        return trial.storage.get_trial(trial._trial_id).intermediate_values

    def judge(step: int, loss: float) -> int | None:
        """Tells the study the loss at a rung; returns the next rung's step, 0 at the last, None for a pruned one."""
        place = steps.index(step)
        if eta**place not in losses():
            if not math.isfinite(loss):
                raise FloatingPointError(f"the validation loss at step {step} is not finite.")
            trial.report(loss, step=eta**place)
            trial.set_user_attr(f"steps_{place}", step)
        if place == len(steps) - 1:
            return 0
        if f"goes_on_{place}" not in trial.user_attrs:  # the pruner must not be asked twice
            trial.set_user_attr(f"goes_on_{place}", not trial.should_prune())
        return steps[place + 1] if trial.user_attrs[f"goes_on_{place}"] else None

    step = steps[0]
    while step:
        loss = losses().get(eta ** steps.index(step), kept_loss(own, step))
        if loss is None:
            result = train.launch(own, {**config, "pause_at": step}, judge)
            free_memory()
            if result["status"] == "paused" and result["reason"] != train.RUNG:
                raise env.Paused(
                    f"candidate {own.name} at step {result['step']}: {result['reason']}. Run it again to go on."
                )
            step, loss = result.get("step", steps[-1]), result["val_loss"]
        step = judge(step, loss)
    return None if step is None else losses()[eta ** (len(steps) - 1)]


def kept_loss(own: Path, step: int) -> float | None:
    """Returns the loss in a candidate's checkpoint of a rung, which was written before a kill; None without one."""
    kept = own / "train" / "checkpoints" / f"checkpoint-{step}"
    if not kept.is_dir() or checkpoints.verify(kept):
        return None
    log = env.read_json(kept / "progress.json")["log"]
    return next((line["eval_loss"] for line in log[::-1] if "eval_loss" in line and line["step"] == step), None)


# What is written


def rows(run: Path, study, configs: list[dict]) -> list[dict]:
    """Returns the table of the search, one row a candidate: settings, batch, budget, rows seen, losses, status."""
    import optuna

    data = env.read_json(run / "data" / "metrics.json")
    lengths = plan.spread(data["tokens"]["quantiles"], data["train"])
    search, found = study.user_attrs["search"], []
    for frozen in study.get_trials(deepcopy=False):
        if frozen.state == optuna.trial.TrialState.FAIL and "reason" not in frozen.user_attrs:
            continue  # enqueued a second time by another machine
        candidate = candidate_of(frozen)
        config = configs[candidate]
        losses = {f"loss at rung {round(math.log(s, search['eta']))}": v for s, v in frozen.intermediate_values.items()}
        reached = max((n for n in range(search["rungs"]) if f"steps_{n}" in frozen.user_attrs), default=None)
        loss = list(frozen.intermediate_values.values())[-1] if frozen.intermediate_values else None
        status = {optuna.trial.TrialState.PRUNED: "eliminated", optuna.trial.TrialState.COMPLETE: "finished"}
        steps = frozen.user_attrs[f"steps_{reached}"] if reached is not None else 0
        batch = None
        if "refused" not in config:
            epochs = plan.schedule(lengths, plan.batch_settings(config), config["num_gpus"] or 1)
            batch = plan.effective_batch(config, epochs)
        found.append(
            {
                "candidate": candidate,
                **search["candidates"][candidate],
                "effective_batch": batch,
                "budget_steps": config.get("sft", {}).get("max_steps"),
                "steps": steps,
                "rows_seen": round(steps * batch) if batch else 0,
                **losses,
                "val_loss": loss,
                "perplexity": math.exp(min(loss, 700)) if loss is not None else None,
                "status": status.get(frozen.state, frozen.state.name.lower()),
                "reason": frozen.user_attrs.get("reason", ""),
            }
        )
    return sorted(found, key=lambda row: row["candidate"])


def best(table: list[dict], study) -> dict:
    """Returns the best of the candidates that reached the last rung, and what decided the losses.

    Raises ValueError when none did, with the reasons.
    """
    finished = [row for row in table if row["status"] == "finished"]
    if not finished:
        reasons = "; ".join(sorted({row["reason"] for row in table if row["reason"]}))
        raise ValueError(f"no candidate reached the last rung: {reasons or 'none was trained'}.")
    first = min(finished, key=lambda row: (row["val_loss"], row["candidate"]))
    return {
        "candidate": first["candidate"],
        "settings": study.user_attrs["search"]["candidates"][first["candidate"]],
        "val_loss": first["val_loss"],
        "perplexity": first["perplexity"],
        "steps": first["steps"],
        "importance": importance(study),
    }


def importance(study) -> dict[str, float] | None:
    """Returns how much each setting decides the loss at the first rung: the share of its variance that lies between the
    setting's values (η², Fisher 1925); None with fewer than two candidates judged."""
    found = study.user_attrs["search"]["candidates"]
    losses = {t.params["candidate"]: t.intermediate_values[1] for t in study.get_trials() if 1 in t.intermediate_values}
    if len(losses) < 2:
        return None
    mean = sum(losses.values()) / len(losses)
    whole = sum((loss - mean) ** 2 for loss in losses.values())
    shares = {}
    for name in found[0]:
        groups = {}
        for candidate, loss in losses.items():
            groups.setdefault(repr(found[candidate][name]), []).append(loss)
        between = sum(len(group) * (sum(group) / len(group) - mean) ** 2 for group in groups.values())
        shares[name] = between / whole if whole else 0.0
    return shares


def tell(study) -> None:
    """Tells the runner how many candidates are done."""
    trials = study.get_trials(deepcopy=False)
    env.progress(sum(trial.state.is_finished() for trial in trials), len(trials), "candidate")


def write(run: Path, table: list[dict], winner: dict) -> None:
    """Writes trials.csv and best.json."""
    names = list(dict.fromkeys(name for row in table for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    env.write_text(run / "tune" / "trials.csv", text.getvalue())
    env.write_json(run / "tune" / "best.json", winner)


def search(run: Path, settings: dict) -> tuple:
    """Returns the study of a run and its candidates' configurations, from the stage's parameters."""
    record = env.read_json(run / "run.json")
    base = record.get("settings", {}).get("train") or {
        "base_model": record["stages"]["prepare_data"]["parameters"]["base_model"]
    }
    base = {**base, "sft": {name: value for name, value in base.get("sft", {}).items() if name != "settings_from"}}
    base = {name: value for name, value in base.items() if name != "sft" or value}
    found = candidates(settings["space"], settings["trials"], settings["seed"])
    configs = configurations(run, base, found, settings["budget_steps"])
    for config in configs:
        if "refused" not in config:
            rungs(config["sft"]["max_steps"], settings["eta"], settings["rungs"])
    study = open_study(run, settings["storage"], settings["eta"], settings["rungs"], found, settings["seed"])
    return study, configs


def main(arguments: list[str]) -> int:
    """`python -m helpers.tune RUN`: one more process that helps with a search which the notebook has begun."""
    env.set_threads()
    run = Path(arguments[0])
    settings = env.read_json(run / "run.json")["stages"]["tune"]["parameters"]
    study, configs = search(run, settings)
    try:
        work(run, study, configs, settings["session"])
    except env.Paused as error:
        print(error)
        return PAUSED
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
