"""A run's model, loaded once: base, tuned and, where the stage prefer has finished, preferred."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from helpers.inference.generate import stream_reply, system_messages
from helpers.models.chat import fit_conversation
from helpers.models.embedded import locate_base_model
from helpers.models.float32_activations import explain_activations
from helpers.models.loading import ADAPTERS, Network, load_for_inference, load_tokenizer
from helpers.platforms.machine import pick_dtype
from helpers.runs.record import Run
from helpers.runs.stages import has_preferred

PROMPT_TOKENS = 1024  # of the conversation so far; older turns are left out


class LoadedModel:
    """A run's base model with its adapters, on this process's GPU or the CPU. Without `load` it is the tokenizer alone,
    and `network` is None. `sides` are the models that it can be, the newest first."""

    def __init__(self, run: Run, load: bool = True) -> None:
        self.run, self.config, self.system = run, run.training_config(), system_messages(run)
        self.sides = (*["preferred"] * has_preferred(run.folder), "tuned", "base")
        base = locate_base_model(self.config["base_model"], run)
        self.tokenizer = load_tokenizer(base)
        self.network: Network = None
        self.lock = threading.Lock()
        if load:
            dtype, reason = pick_dtype()
            print(f"dtype {dtype}: {reason}")
            adapter, in_4bit = run / ADAPTERS["tuned"], self.config["load_in_4bit"]
            further = {"preferred": run / ADAPTERS["preferred"]} if "preferred" in self.sides else {}
            self.network = load_for_inference(base, adapter, in_4bit, dtype, self.config["device_map"], further)
            if note := explain_activations(self.network, dtype):
                print(note)

    @contextlib.contextmanager
    def side(self, side: str) -> Iterator[None]:
        """Makes the network one of `sides` inside a `with`."""
        if side == "base" and self.network:
            with self.network.disable_adapter():
                yield
        elif side == "preferred" and self.network:
            self.network.set_adapter("preferred")
            try:
                yield
            finally:
                self.network.set_adapter("default")
        else:
            yield

    def stream(self, turns: list[dict], side: str, **decoding: Any) -> Iterator[str]:
        """Yields the reply to a conversation as it grows, one reply at a time; `decoding` is what `stream_reply` takes.

        Raises TooLong for a last message that does not fit.
        """
        limit = min(
            PROMPT_TOKENS, self.network.config.get_text_config().max_position_embeddings - decoding["max_new_tokens"]
        )
        messages = fit_conversation(self.tokenizer, [*self.system, *turns], limit)
        with self.lock, self.side(side):
            yield from stream_reply(self.network, self.tokenizer, messages, **decoding)
