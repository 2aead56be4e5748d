"""Replies from a model: batched by length, padded on the left, cut at the prompt's length and at the end token.

`python -m helpers.generate RUN RANK WORLD` is one GPU's share of an evaluation, started by `evaluation`.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from helpers import chat, env, model, plan, rubric, text, tiny

SCORED = 8192  # tokens of a batch that is only scored
PAUSED = 75  # exit code of a share that its session's end stopped


def _settings(tokenizer, max_new_tokens: int, temperature: float, top_p: float):
    """Returns the library's generation settings, greedy at temperature 0, and the tokens that end a reply."""
    from transformers import GenerationConfig

    vocabulary = tokenizer.get_vocab()
    ends = [vocabulary[token] for token in (chat.END, chat.END_OF_TEXT, "<|eom_id|>") if token in vocabulary]
    sampling = (
        {"do_sample": True, "temperature": float(temperature), "top_p": float(top_p), "top_k": 0} if temperature else {}
    )
    pad = tokenizer.pad_token_id
    return GenerationConfig(max_new_tokens=max_new_tokens, eos_token_id=ends, pad_token_id=pad, **sampling), ends


def replies(
    model,
    tokenizer,
    conversations: list[list[dict] | str],
    max_new_tokens: int,
    batch_size: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    **keeping,
) -> list[dict]:
    """Answers each conversation, or goes on with each plain text.

    A result has `reply`, `new_tokens`, `hit_cap` (no end token within the limit), `seconds` (its share of its batch's)
    and `at` (when it was done). Temperature 0 is greedy; else a batch draws by the seed and its place. A batch has at
    most `batch_size` rows and plan.HELD tokens; one that does not fit the memory is halved. Results come in the order
    given; `keeping` is what `env.resumable` takes. No repetition penalty and no n-gram ban is offered: fluent
    byte-level Bengali repeats short token runs. Raises ValueError when a reply begins with its own prompt.
    """
    import torch

    settings, ends = _settings(tokenizer, max_new_tokens, temperature, top_p)
    prompts = [chat.encode_prompt(tokenizer, messages) for messages in conversations]
    lengths = [len(prompt) + max_new_tokens for prompt in prompts]
    batches = plan.cut(sorted(range(len(prompts)), key=lengths.__getitem__), lengths, batch_size, plan.HELD)

    def written(chosen: list[int]) -> list[list[int]]:
        torch.manual_seed(int.from_bytes(text.shuffle_key(seed, str(chosen[0]))[:4]))
        batch = tokenizer.pad({"input_ids": [prompts[i] for i in chosen]}, padding_side="left", return_tensors="pt")
        try:
            with torch.inference_mode():
                output = model.generate(**batch.to(model.device), generation_config=settings)
            return output[:, batch["input_ids"].shape[1] :].tolist()
        except torch.OutOfMemoryError:
            if len(chosen) == 1:
                raise
        torch.cuda.empty_cache()
        half = len(chosen) // 2
        print(f"{len(chosen)} rows do not fit the memory: {half} at a time")
        return written(chosen[:half]) + written(chosen[half:])

    def answer(chosen: list[int]) -> list[dict]:
        began, results = time.perf_counter(), []
        for index, tokens in zip(chosen, written(chosen), strict=True):
            stop = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
            reply = tokenizer.decode(tokens[:stop], skip_special_tokens=True).strip()
            if tokens[: len(prompts[index])] == prompts[index]:
                raise ValueError(f"the reply {reply[:60]!r} begins with its prompt: it was not cut off.")
            results.append({"reply": reply, "new_tokens": min(stop + 1, len(tokens)), "hit_cap": stop == len(tokens)})
        seconds = (time.perf_counter() - began) / len(results)
        return [{**result, "seconds": seconds, "at": env.now()} for result in results]

    return env.resumable(batches, answer, **keeping)


def talks(
    model,
    tokenizer,
    asked: list[list[str]],
    system: list[dict] | None,
    batch_size: int,
    side: str,
    keep: Path,
    hours: float,
    **decoding,
) -> list[dict]:
    """Answers conversations turn by turn, each turn of all conversations together: a model sees its own replies.

    `asked` has the messages of each conversation, `system` is None for plain texts to go on with. A result is one of
    `replies` with `prompt`, `conversation` and `turn`, in the order asked. `keep` is a folder, below a run's stage.
    """
    found = [[] for _ in asked]
    for turn in range(max(map(len, asked), default=0)):
        talking = [number for number, messages in enumerate(asked) if len(messages) > turn]
        conversations = []
        for number in talking:
            said = [(asked[number][earlier], one["reply"]) for earlier, one in enumerate(found[number])]
            pairs = [({"role": "user", "content": a}, {"role": "assistant", "content": b}) for a, b in said]
            now = {"role": "user", "content": asked[number][turn]}
            conversations.append(
                asked[number][turn] if system is None else [*system, *(one for pair in pairs for one in pair), now]
            )
        keeping = {"keep": keep / f"{side}_turn{turn}.jsonl", "hours": hours, "what": f"{side} reply"}
        answers = replies(model, tokenizer, conversations, batch_size=batch_size, **decoding, **keeping)
        for number, answer in zip(talking, answers, strict=True):
            found[number].append(
                {**answer, "prompt": asked[number][turn], "conversation": number + 1, "turn": turn + 1}
            )
    return [one for conversation in found for one in conversation]


def stream(
    model,
    tokenizer,
    messages: list[dict] | str,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    stop: threading.Event | None = None,
) -> Iterator[str]:
    """Yields the reply so far, again and again as it grows; the last is what `replies` returns for it alone, if greedy.

    Setting `stop`, or closing the iterator, ends the writing; nothing runs any more when it has ended. Errors of the
    model are raised here.
    """
    import torch
    from transformers import StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer

    stop = stop or threading.Event()

    class Asked(StoppingCriteria):
        def __call__(self, input_ids, scores, **_):
            return torch.full((len(input_ids),), stop.is_set(), device=input_ids.device)

    settings, _ = _settings(tokenizer, max_new_tokens, temperature, top_p)
    prompt = torch.tensor([chat.encode_prompt(tokenizer, messages)], device=model.device)
    pieces = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    failed = []

    def write():
        try:
            torch.manual_seed(int.from_bytes(text.shuffle_key(seed, "0")[:4]))
            with torch.inference_mode():
                model.generate(
                    input_ids=prompt,
                    attention_mask=torch.ones_like(prompt),
                    generation_config=settings,
                    streamer=pieces,
                    stopping_criteria=StoppingCriteriaList([Asked()]),
                )
        except Exception as error:  # whatever it is, it is raised where the reply is read
            failed.append(error)
            pieces.end()

    writer, said = threading.Thread(target=write, daemon=True), ""
    writer.start()
    try:
        for piece in pieces:
            said += piece
            yield said.strip()
    finally:
        stop.set()
        writer.join()
    if failed:
        raise failed[0]


def system_of(run: Path) -> list[dict]:
    """Returns the system message that the run's rows have, as a list of one or none: system.json of an exported run,
    else the first train row's."""
    if (run / "system.json").is_file():
        return env.read_json(run / "system.json")
    with open(run / "data" / "train.jsonl", encoding="utf-8") as file:
        first = json.loads(file.readline())
    return [message for message in first.get("messages", []) if message["role"] == "system"]


# An evaluation: both models, on every GPU there is


def test_rows(run: Path, settings: dict) -> list[dict]:
    """Returns the data rows to evaluate on: all of the test part, or `max_rows` of them, in an order by seed."""
    rows = env.read_jsonl(run / "data" / "test.jsonl")
    rows = sorted(rows, key=lambda row: text.shuffle_key(settings["seed"], row["id"]))
    return rows[: settings["max_rows"] or None]


def fixed_prompts(rows: list[dict], max_prompts: int) -> list[dict]:
    """Returns the rubric's prompts, or `max_prompts` of them spread over their categories, each with the `messages`
    that ask it: the data's own system prompt before it. None for plain text, which answers nothing."""
    talks = [row["messages"] for row in rows if "messages" in row]
    system = [message for message in talks[0] if message["role"] == "system"] if talks else []
    fixed = rubric.prompts() if talks else []
    fixed = fixed[:: max(1, len(fixed) // max_prompts) if max_prompts else 1][: max_prompts or None]
    return [{**one, "messages": [*system, {"role": "user", "content": one["prompt"]}]} for one in fixed]


def evaluation(run: Path, settings: dict) -> dict[str, dict[str, list[dict]]]:
    """Returns {"base": …, "tuned": …}, each {"likelihood": …, "replies": …, "prompts": …}: what `model.likelihood` and
    `replies` return for the test rows and the fixed prompts.

    With `num_gpus` over one (0: all GPUs here) as many processes take a share of the batches each. Which process
    computes a batch changes nothing in it. What is done is kept in evaluate/work; Paused is raised at the session's
    end. Raises ValueError for more processes than GPUs, RuntimeError when a share fails.
    """
    import torch

    gpus = torch.cuda.device_count()
    world = settings["num_gpus"] or max(1, gpus)
    if gpus and world > gpus:
        raise ValueError(f"evaluate.num_gpus is {world}: this machine has {gpus}.")
    if env.read_json(run / "train" / "config.json")["device_map"]:
        world = 1  # the one model lies on all cards
    work = run / "evaluate" / "work"
    env.write_json(work / "settings.json", settings)
    if world > 1:
        _in_processes(run, world)
    return share(run, settings, 0, 1, load=world == 1)


def _in_processes(run: Path, world: int) -> None:
    import torch

    cards = [card for card in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if card]
    cards = cards or [str(card) for card in range(torch.cuda.device_count())] or [""] * world
    command = [sys.executable, "-m", "helpers.generate", str(run)]
    common = {**os.environ, env.SESSION_START: str(env.session_start()), "PYTHONUNBUFFERED": "1"}
    common["PYTHONPATH"] = os.pathsep.join(filter(None, [str(env.ROOT / "src"), os.environ.get("PYTHONPATH")]))
    if not torch.cuda.is_available():
        common["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // world))
    print(f"{world} processes, a share of the batches each")
    logs = [run / "evaluate" / "work" / f"log-{rank}.txt" for rank in range(world)]
    with contextlib.ExitStack() as stack:
        processes = []
        for rank, log in enumerate(logs):
            file = stack.enter_context(open(log, "w", encoding="utf-8"))
            its = {**common, "CUDA_VISIBLE_DEVICES": cards[rank]}
            if rank:
                its.pop("SAHANUBHUTI_PROGRESS", None)
            processes.append(
                subprocess.Popen([*command, str(rank), str(world)], stdout=file, stderr=subprocess.STDOUT, env=its)
            )
        while any(process.poll() is None for process in processes):
            try:
                time.sleep(0.2)
            except KeyboardInterrupt:
                for process in processes:
                    process.terminate()
                raise
    codes = [process.returncode for process in processes]
    failed = next((rank for rank, code in enumerate(codes) if code not in (0, PAUSED)), None)
    if failed is not None:
        said = logs[failed].read_text(encoding="utf-8", errors="replace").strip()[-2000:]
        raise RuntimeError(f"process {failed} of {world} ended with exit code {codes[failed]}:\n{said}")
    if PAUSED in codes:
        said = logs[codes.index(PAUSED)].read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1]
        env.close_session(run, None, said)
        raise env.Paused(said)


def share(run: Path, settings: dict, rank: int, world: int, load: bool = True) -> dict[str, dict[str, list[dict]]]:
    """Computes what is not done yet of a rank's share, and returns all that is done; `load` False: computes nothing."""
    config = env.read_json(run / "train" / "config.json")
    rows = test_rows(run, settings)
    asked = {
        "replies": [row["messages"][:-1] for row in rows if "messages" in row],
        "prompts": [one["messages"] for one in fixed_prompts(rows, settings["max_prompts"])],
    }
    decode = {name: settings[name] for name in ("max_new_tokens", "batch_size", "temperature", "top_p", "seed")}
    base, dtype, both = tiny.locate(config["base_model"], run), env.pick_dtype()[0], None
    tokenizer = model.load_tokenizer(base)
    if load:
        adapter = run / "train" / "adapter"
        both = model.load_for_inference(base, adapter, config["load_in_4bit"], dtype, config["device_map"])
    found = {"base": {}, "tuned": {}}
    for side in ("tuned", "base"):
        with both.disable_adapter() if load and side == "base" else contextlib.nullcontext():
            for kind in ("likelihood", "replies", "prompts"):
                keep = run / "evaluate" / "work" / f"{side}_{kind}.jsonl"
                keeping = {"keep": keep, "hours": settings["session"]["hours"], "rank": rank, "world": world}
                keeping["what"] = f"{side} {kind}"
                if kind == "likelihood":
                    done = model.likelihood(both, tokenizer, rows, settings["batch_size"], SCORED, **keeping)
                else:
                    done = replies(both, tokenizer, asked[kind], **decode, **keeping)
                found[side][kind] = done
    return found


def end_with(parent: int) -> None:
    """Ends this process when its parent is gone: a killed notebook leaves no process on a card."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def main(run: str, rank: str, world: str) -> int:
    """One process of an evaluation; returns its exit code."""
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    try:
        share(Path(run), env.read_json(Path(run) / "evaluate" / "work" / "settings.json"), int(rank), int(world))
    except env.Paused as error:
        print(error)
        return PAUSED
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
