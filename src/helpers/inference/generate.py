"""Replies from a model: batched by length, padded on the left, cut at the prompt's length and at the end token."""

import copy
import json
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any, TypedDict

from helpers.data.sampling import shuffle_key
from helpers.models.batching import GENERATION_TOKEN_BUDGET, cut_batches, reply_sizes
from helpers.models.chat import Messages, Tokenizer, encode_prompt, end_ids
from helpers.models.loading import Network
from helpers.runs.files import read_json, utc_now
from helpers.runs.record import Run
from helpers.runs.session import compute_batches

CHUNK = 32  # tokens written before the rows that have ended leave a batch


class Reply(TypedDict):
    """What a model answers, as it is kept in a journal."""

    reply: str
    new_tokens: int  # the end token included
    hit_cap: bool  # no end token within the limit
    seconds: float  # its share of its batch's
    at: str  # when it was done: ISO 8601 in UTC


def _generation_settings(tokenizer: Tokenizer, max_new_tokens: int, temperature: float, top_p: float) -> Any:
    """Returns the library's generation settings, greedy at temperature 0; its eos_token_id are all ends of a reply."""
    from transformers import GenerationConfig

    sampling = {"do_sample": True, "temperature": float(temperature), "top_p": float(top_p), "top_k": 0}
    ends = {"eos_token_id": end_ids(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    return GenerationConfig(max_new_tokens=max_new_tokens, **ends, **(sampling if temperature else {}))


def complete_characters(text: str) -> str:
    """Returns a text up to its last complete character.

    A token may end within the bytes of a character. A byte-level decode shows what is there of it as U+FFFD, until the
    next token brings the rest; a reply that is cut there has no rest.
    """
    return text.rstrip("\ufffd")


def write_tokens(model: Network, inputs: Any, settings: Any) -> list[list[int]]:
    """Returns each row's new tokens, up to and with its end token if it has one; pads may follow.

    `inputs` has input_ids and attention_mask, both (rows, tokens), padded on the left. Every CHUNK tokens the rows that
    have ended leave a greedy batch, whose other rows that does not change; one that draws stays together, since its
    draws depend on the number of rows.
    """
    import torch
    from transformers import DynamicCache

    tokens, mask, cache = inputs["input_ids"], inputs["attention_mask"], DynamicCache()
    results: list[list[int]] = [[] for _ in tokens]
    rows, left = list(range(len(tokens))), settings.max_new_tokens
    ends = torch.tensor(settings.eos_token_id, device=tokens.device)
    step = copy.deepcopy(settings)
    with torch.inference_mode():
        while rows and left:
            together = settings.do_sample or len(rows) == 1
            step.max_new_tokens = left if together else min(left, CHUNK)
            before = tokens.shape[1]
            inputs = {"input_ids": tokens, "attention_mask": mask, "past_key_values": cache}
            tokens = model.generate(**inputs, generation_config=step)
            new = tokens[:, before:]
            for row, own in zip(rows, new.tolist(), strict=True):
                results[row] += own
            going = (~torch.isin(new, ends).any(1)).nonzero().flatten()  # places in the batch
            left = left - new.shape[1] if new.shape[1] == step.max_new_tokens else 0  # fewer: every row has ended
            if len(going) < len(rows) and len(going):
                cache.batch_select_indices(going)
            rows, tokens = [rows[place] for place in going.tolist()], tokens[going]
            mask = torch.nn.functional.pad(mask[going], (0, new.shape[1]), value=1)
    return results


def generate_replies(
    model: Network,
    tokenizer: Tokenizer,
    conversations: Sequence[Messages | str],
    max_new_tokens: int,
    batch_size: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    **journal: Any,
) -> list[Reply]:
    """Answers each conversation, or continues each plain text, and returns the replies in the order given.

    Temperature 0 is greedy; else a batch draws by the seed and its place. A batch has at most `batch_size` rows and
    GENERATION_TOKEN_BUDGET tokens by `reply_sizes`; one that does not fit the memory is halved. `journal` is what
    `compute_batches` takes. No repetition penalty and no n-gram ban is offered: fluent byte-level Bengali repeats short
    token runs. Raises ValueError when a reply begins with its own prompt.
    """
    import torch

    settings = _generation_settings(tokenizer, max_new_tokens, temperature, top_p)
    prompts = [encode_prompt(tokenizer, messages) for messages in conversations]
    sizes = reply_sizes([*map(len, prompts)], max_new_tokens)
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))

    def generate(batch: list[int]) -> list[list[int]]:
        torch.manual_seed(int.from_bytes(shuffle_key(seed, str(batch[0]))[:4]))
        inputs = tokenizer.pad({"input_ids": [prompts[row] for row in batch]}, padding_side="left", return_tensors="pt")
        try:
            return write_tokens(model, inputs.to(model.device), settings)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
        torch.cuda.empty_cache()  # outside `except`, whose traceback holds the batch's tensors
        half = len(batch) // 2
        print(f"{len(batch)} rows do not fit the memory: {half} at a time")
        return generate(batch[:half]) + generate(batch[half:])

    def answer(batch: list[int]) -> list[Reply]:
        began, replies = time.perf_counter(), []
        for row, tokens in zip(batch, generate(batch), strict=True):
            stop = next((place for place, token in enumerate(tokens) if token in settings.eos_token_id), len(tokens))
            reply = complete_characters(tokenizer.decode(tokens[:stop], skip_special_tokens=True)).strip()
            if tokens[: len(prompts[row])] == prompts[row]:
                raise ValueError(f"the reply {reply[:60]!r} begins with its prompt: it was not cut off.")
            replies.append({"reply": reply, "new_tokens": min(stop + 1, len(tokens)), "hit_cap": stop == len(tokens)})
        seconds = (time.perf_counter() - began) / len(replies)
        return [Reply(**reply, seconds=seconds, at=utc_now()) for reply in replies]

    return compute_batches(cut_batches(order, sizes, batch_size, GENERATION_TOKEN_BUDGET), answer, **journal)


def generate_conversations(
    model: Network,
    tokenizer: Tokenizer,
    conversations: list[list[str]],
    system: Messages | None,
    keep: Path,
    **settings: Any,
) -> list[dict]:
    """Answers conversations turn by turn, each turn of all conversations together: a model sees its own replies.

    `conversations` are what a person writes, `system` what stands before it; None: they are plain texts to continue. A
    result is a Reply with `prompt`, `conversation` and `turn`, in the order given. `keep` is the start of the files'
    names in a folder below a run's stage; `settings` is what `generate_replies` takes.
    """
    messages: list[list[dict]] = [[*(system or [])] for _ in conversations]
    results: list[list[dict]] = [[] for _ in conversations]
    for turn in range(max(map(len, conversations), default=0)):
        unanswered = [number for number, prompts in enumerate(conversations) if len(prompts) > turn]
        for number in unanswered:
            messages[number].append({"role": "user", "content": conversations[number][turn]})
        asked = [conversations[number][turn] if system is None else messages[number] for number in unanswered]
        journal = keep.with_name(f"{keep.name}_turn{turn}.jsonl")
        replies = generate_replies(model, tokenizer, asked, keep=journal, what=f"{keep.name} reply", **settings)
        for number, reply in zip(unanswered, replies, strict=True):
            messages[number].append({"role": "assistant", "content": reply["reply"]})
            place = {"prompt": conversations[number][turn], "conversation": number + 1, "turn": turn + 1}
            results[number].append({**reply, **place})
    return [*chain.from_iterable(results)]


def stream_reply(
    model: Network,
    tokenizer: Tokenizer,
    messages: Messages | str,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    seconds: float | None = None,
) -> Iterator[str]:
    """Yields the reply so far, again and again as it grows; the last is the reply of `generate_replies`, if greedy.

    Closing the iterator ends the generation, and so does its first token after `seconds`. Raises what the model raises.
    """
    import torch
    from transformers import TextIteratorStreamer

    settings = _generation_settings(tokenizer, max_new_tokens, temperature, top_p)
    settings.max_time = seconds
    prompt = torch.tensor([encode_prompt(tokenizer, messages)], device=model.device)
    pieces = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    closed, errors = threading.Event(), []
    inputs = {"input_ids": prompt, "attention_mask": torch.ones_like(prompt), "streamer": pieces}

    def is_closed(input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:  # (rows,)
        return torch.full((len(input_ids),), closed.is_set(), device=input_ids.device)

    def write() -> None:
        try:
            torch.manual_seed(int.from_bytes(shuffle_key(seed, "0")[:4]))
            with torch.inference_mode():
                model.generate(**inputs, generation_config=settings, stopping_criteria=[is_closed])
        except Exception as error:  # whatever it is, it is raised where the reply is read
            errors.append(error)
            pieces.end()

    writer, text = threading.Thread(target=write, daemon=True), ""
    writer.start()
    try:
        for piece in pieces:
            text += piece
            yield complete_characters(text).strip()
    finally:
        closed.set()
        writer.join()
    if errors:
        raise errors[0]


def measure_replies(replies: list[dict], streams: list[tuple[float, float]]) -> dict[str, float | None]:
    """Returns how fast replies were written, and `streams`: (seconds to the first word, tokens per second) of each."""
    seconds = sum(reply["seconds"] for reply in replies)
    first_word, rate = map(fmean, zip(*streams)) if streams else (None, None)
    return {
        "n": len(replies),
        "tokens_per_second": sum(reply["new_tokens"] for reply in replies) / seconds,
        "seconds_per_reply": seconds / len(replies),
        "seconds_to_first_word": first_word,
        "streamed_tokens_per_second": rate,
    }


def system_messages(run: Run) -> list[dict]:
    """Returns the system message that the run's rows have, as a list of one or none: system.json of an exported run,
    else the first train row's."""
    if (run / "system.json").is_file():
        return read_json(run / "system.json")
    with open(run / "data" / "train.jsonl", encoding="utf-8") as file:
        first = json.loads(file.readline())
    return [message for message in first.get("messages", []) if message["role"] == "system"]
