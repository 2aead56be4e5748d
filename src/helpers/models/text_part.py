"""The text part of a base model that also takes images, such as Gemma 3 from 4B on: loaded alone, without the vision
tower, it is a causal language model like others, and an adapter has no layers in the tower."""

import contextlib
import copy
import re
from collections.abc import Iterator
from typing import Any

NAMES = {  # beginnings of weights' names: in the whole model, in its text part
    r"^language_model\.model\.": "model.",  # as published
    r"^model\.language_model\.": "model.",  # as transformers has them in memory
    r"^language_model\.lm_head\.": "lm_head.",
}


def text_part_options(base_model: str) -> dict[str, Any]:
    """Returns what `from_pretrained` takes to load the text part alone; nothing for a model that is text alone."""
    from transformers import AutoConfig

    whole = AutoConfig.from_pretrained(base_model)
    if whole.get_text_config() is whole:
        return {}
    text = copy.deepcopy(whole.get_text_config())
    if stored := getattr(whole, "quantization_config", None):
        in_16_bits = [_rename(name) for name in stored.get("llm_int8_skip_modules") or []]
        text.quantization_config = {**stored, "llm_int8_skip_modules": in_16_bits or None}
    return {"config": text, "key_mapping": NAMES}


def load_causal_model(base_model: str, **loading: Any) -> Any:
    """Returns a base model, or its text part, as transformers.AutoModelForCausalLM does; `loading` is for that.

    Raises ValueError where the weights have other names than those of NAMES.
    """
    from transformers import AutoModelForCausalLM

    options = text_part_options(base_model)
    if not options:
        return AutoModelForCausalLM.from_pretrained(base_model, **loading)
    with without_report():
        loaded: Any = AutoModelForCausalLM.from_pretrained(base_model, output_loading_info=True, **options, **loading)
    model, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise ValueError(
            f"{base_model!r} cannot be loaded: it has no weights for {len(missing)} names of its text part, such as "
            f"{missing[0]}. Expected names that begin with language_model.model or model.language_model."
        )
    used = model._weight_conversions  # by which transformers would save the text part under the names of the whole
    model._weight_conversions = [each for each in used if not NAMES.keys() & {*each.source_patterns}]
    for parameter in model.parameters():  # of a copy in 4 bits, transformers leaves the rest in the dtype it has
        if parameter.is_floating_point() and loading["dtype"] != "auto":
            parameter.data = parameter.data.to(loading["dtype"])
    return model


@contextlib.contextmanager
def without_report() -> Iterator[None]:
    """Keeps transformers from a report of every weight that is left out."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _rename(name: str) -> str:
    """Returns the name that a layer of the whole model has in its text part."""
    for pattern, beginning in NAMES.items():
        name = re.sub(pattern, beginning, name)
    return name
