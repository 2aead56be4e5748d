"""The adapter merged into its 16-bit base model, and the check that both find the same answers likely."""

import math
import shutil
from pathlib import Path
from typing import Any

from helpers.evaluation.answers import select_test_rows
from helpers.models.attention import use_capped_attention
from helpers.models.batching import SCORING_TOKEN_BUDGET
from helpers.models.chat import Tokenizer, end_ids
from helpers.models.float32_activations import keep_activations_in_float32
from helpers.models.likelihood import score_likelihood
from helpers.models.loading import ADAPTERS, load_tokenizer, put_on_adapters
from helpers.models.text_part import load_causal_model
from helpers.platforms.downloads import fetch_model
from helpers.runs.files import folder_bytes, read_json, write_folder, write_json
from helpers.runs.record import Run

MAX_PERPLEXITY_CHANGE = 0.01  # by how much the perplexity of the merged model may differ from that of base and adapter

OPTIONAL = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}


def merge_adapter(run: Run, base: str, folder: Path, max_rows: int, seed: int, side: str = "tuned") -> dict[str, Any]:
    """Writes the 16-bit base with a model's adapter merged into it, and returns how alike the two find test answers.

    `perplexity_adapter` is of base and adapter, `perplexity_merged` of what was written, loaded again. Raises
    ValueError where they differ by more than MAX_PERPLEXITY_CHANGE; then nothing is left behind.
    """
    import torch
    from transformers.utils import cached_file

    fetch_model(base)
    tokenizer, rows = load_tokenizer(base), select_test_rows(run, max_rows, seed)
    loading: dict[str, Any] = {"dtype": "auto", "device_map": "auto" if torch.cuda.is_available() else {"": "cpu"}}

    def perplexity(model: Any) -> float:
        scores = score_likelihood(model, tokenizer, rows, 8, SCORING_TOKEN_BUDGET)
        return math.exp(sum(score["nll"] for score in scores) / sum(score["tokens"] for score in scores))

    def load(folder: Path | str) -> Any:
        model = load_causal_model(str(folder), **loading)
        use_capped_attention(model)
        keep_activations_in_float32(model)
        return model

    model = load(base)
    if getattr(model, "is_quantized", False):
        raise ValueError(f"{base} is quantised: name its 16-bit base in export.base_16bit.")
    tuned = put_on_adapters(model, {"default": run / ADAPTERS[side]}).eval()
    before = perplexity(tuned)
    with write_folder(folder) as part:
        merged = tuned.merge_and_unload(safe_merge=True)
        merged.config.pad_token_id = tokenizer.pad_token_id
        _set_ends(merged.generation_config, tokenizer)
        merged.save_pretrained(part)
        tokenizer.save_pretrained(part)
        _name_added_tokens(tokenizer, part / "tokenizer_config.json")
        if vocabulary := cached_file(base, "tokenizer.model", **OPTIONAL):  # which llama.cpp's converter reads
            shutil.copy(vocabulary, part)
        del merged, tuned, model  # before the second copy is loaded
        reloaded = load(part).eval()
        after = perplexity(reloaded)
        if abs(after / before - 1) > MAX_PERPLEXITY_CHANGE:
            raise ValueError(
                f"the merged model's perplexity is {after:.3f}, that of base and adapter {before:.3f}: more than "
                f"{MAX_PERPLEXITY_CHANGE:.0%} apart over {len(rows)} rows. Is {base} the base that was trained on?"
            )
    return {
        "folder": str(folder),
        "bytes": folder_bytes(folder),
        "dtype": str(reloaded.dtype).removeprefix("torch."),
        "rows": len(rows),
        "perplexity_adapter": before,
        "perplexity_merged": after,
    }


def _set_ends(generation: Any, tokenizer: Tokenizer) -> None:
    """Adds the end tokens of the answers to a generation_config that names others alone, as a base model's does."""
    own = generation.eos_token_id
    own = own if isinstance(own, list) else [own] * (own is not None)
    if tokenizer.eos_token_id not in own:
        generation.eos_token_id = [*dict.fromkeys([*end_ids(tokenizer), *own])]


def _name_added_tokens(tokenizer: Tokenizer, file: Path) -> None:
    """Adds the added tokens to tokenizer_config.json, as transformers 4 did and 5 does not.

    llama.cpp's converter reads there which of sentencepiece's tokens are special: Gemma's of turns are none in
    tokenizer.model, and llama.cpp would read them as letters.
    """
    added = {str(place): token.__getstate__() for place, token in tokenizer.added_tokens_decoder.items()}
    write_json(file, {**read_json(file), "added_tokens_decoder": added})
