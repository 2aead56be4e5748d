"""Replies from a model: batched by length, padded on the left, cut at the prompt's length and at the end token."""

import time
from pathlib import Path

from helpers import chat, env, text


def replies(
    model,
    tokenizer,
    conversations: list[list[dict] | str],
    max_new_tokens: int,
    batch_size: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    what: str = "reply",
    keep: Path | None = None,
    hours: float = 0.0,
) -> list[dict]:
    """Answers each conversation, or goes on with each plain text.

    A result has `reply`, `new_tokens`, `hit_cap` (no end token within the limit) and `seconds` (its share of its
    batch's). Temperature 0 is greedy; else a batch draws by the seed and its place. Results come in the order given;
    with `keep` they are kept as they are done and `env.Paused` ends a session (see env.resumable). No repetition
    penalty and no n-gram ban is offered: fluent byte-level Bengali repeats short token runs. Raises ValueError when a
    reply begins with its own prompt.
    """
    import torch
    from transformers import GenerationConfig

    vocabulary = tokenizer.get_vocab()
    ends = [vocabulary[token] for token in (chat.END, chat.END_OF_TEXT, "<|eom_id|>") if token in vocabulary]
    sampling = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0} if temperature else {}
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens, eos_token_id=ends, pad_token_id=tokenizer.pad_token_id, **sampling
    )
    prompts = [chat.encode_prompt(tokenizer, messages) for messages in conversations]
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]

    def answer(chosen: list[int]) -> list[dict]:
        torch.manual_seed(int.from_bytes(text.shuffle_key(seed, str(chosen[0]))[:4]))
        began = time.perf_counter()
        batch = tokenizer.pad({"input_ids": [prompts[i] for i in chosen]}, padding_side="left", return_tensors="pt")
        with torch.inference_mode():
            output = model.generate(**batch.to(model.device), generation_config=settings)
        results = []
        for index, tokens in zip(chosen, output[:, batch["input_ids"].shape[1] :].tolist()):
            stop = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
            reply = tokenizer.decode(tokens[:stop], skip_special_tokens=True).strip()
            if tokens[: len(prompts[index])] == prompts[index]:
                raise ValueError(f"the reply {reply[:60]!r} begins with its prompt: it was not cut off.")
            results.append({"reply": reply, "new_tokens": min(stop + 1, len(tokens)), "hit_cap": stop == len(tokens)})
        seconds = (time.perf_counter() - began) / len(results)
        return [{**result, "seconds": seconds} for result in results]

    return env.resumable(batches, answer, keep, hours, what)
