"""How likely a model finds given answers."""

import math
from collections.abc import Sequence
from typing import Any

from helpers.models.batching import LOGITS_CHUNK_TOKENS, cut_batches
from helpers.models.chat import IGNORED, Tokenizer, answers_of, encode_rows, make_collator
from helpers.runs.session import compute_batches


def score_likelihood(
    model: Any,
    tokenizer: Tokenizer,
    rows: list[dict[str, Any]],
    batch_size: int = 0,
    max_tokens: int = 0,
    cut: Sequence[bool] = (),
    **keeping: Any,
) -> list[dict[str, Any]]:
    """Scores the given answers: for each data row `nll` (nats, summed), `tokens`, `correct` and `characters`.

    Only the assistant's tokens count, its end token included; padding and prompt do not. Full logits never exist:
    hidden states of answer tokens pass through the output layer LOGITS_CHUNK_TOKENS at a time, in float32. Rows are
    batched by length, at most `batch_size` rows or `max_tokens` tokens at a time; the results come in the rows' order.
    `cut` says of each row whether its answer has no end: then its end token does not count. `keeping` is passed to
    `compute_batches`. Raises FloatingPointError for a loss that is not finite.
    """
    examples = encode_rows(tokenizer, rows)
    for example in [example for example, has_no_end in zip(examples, cut) if has_no_end]:
        example["labels"][-1] = IGNORED
    collate = make_collator(tokenizer)
    lengths = [len(example["input_ids"]) for example in examples]
    by_length = sorted(range(len(rows)), key=lengths.__getitem__)

    def score_rows(numbers: list[int]) -> list[dict[str, Any]]:
        nll, correct, owner = score_tokens(model, collate([examples[number] for number in numbers]))
        results = []
        for place, number in enumerate(numbers):
            own = owner == place
            total = float(nll[own].sum())
            if not math.isfinite(total):
                raise FloatingPointError(f"the loss of row {rows[number]['id']} is not finite: adapter or dtype.")
            counts = {"tokens": int(own.sum()), "correct": int(correct[own].sum())}
            results.append({"nll": total, **counts, "characters": sum(map(len, answers_of(rows[number])))})
        return results

    return compute_batches(cut_batches(by_length, lengths, batch_size, max_tokens), score_rows, **keeping)


def score_replies(
    model: Any, tokenizer: Tokenizer, sequences: Sequence[tuple[list[int], list[int]]], max_tokens: int
) -> list[float]:
    """Returns the log-probability of each reply after its prompt, in nats, both given as token ids: computed as in
    `score_likelihood`, at most `max_tokens` tokens at a time."""
    collate, lengths = make_collator(tokenizer), [len(prompt) + len(reply) for prompt, reply in sequences]
    by_length = sorted(range(len(sequences)), key=lengths.__getitem__)

    def score(places: list[int]) -> list[float]:
        rows = [sequences[place] for place in places]
        examples = [{"input_ids": p + reply, "labels": [IGNORED] * len(p) + reply} for p, reply in rows]
        nll, _, owner = score_tokens(model, collate(examples))
        return [-float(nll[owner == row].sum()) for row in range(len(rows))]

    return compute_batches(cut_batches(by_length, lengths, max_tokens=max_tokens), score)


def score_tokens(model: Any, batch: Any) -> tuple[Any, Any, Any]:
    """Scores a collated batch. Returns three tensors on the CPU, with an entry for every label that is not IGNORED: its
    negative log-likelihood in nats (float64), whether it is the model's first choice, its row's place in the batch."""
    import torch

    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    softcap = getattr(causal.config.get_text_config(), "final_logit_softcapping", None)  # Gemma 2's
    with torch.no_grad():  # not inference_mode: a model in training caches tensors here that it trains with
        batch = batch.to(model.device)
        hidden = causal.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])[0]
        targets = batch["labels"][:, 1:].to(hidden.device)  # t predicts t + 1; a split model ends on another GPU
        owner, at = (targets != IGNORED).nonzero(as_tuple=True)
        nll, correct = [], []
        for chunk in zip(owner.split(LOGITS_CHUNK_TOKENS), at.split(LOGITS_CHUNK_TOKENS)):
            logits = causal.lm_head(hidden[chunk]).float()  # (tokens, vocabulary)
            if softcap:
                logits = softcap * torch.tanh(logits / softcap)
            target = targets[chunk].to(logits.device)
            nll.append(torch.nn.functional.cross_entropy(logits, target, reduction="none"))
            correct.append(logits.argmax(-1) == target)
        return torch.cat(nll).double().cpu(), torch.cat(correct).cpu(), owner.cpu()
