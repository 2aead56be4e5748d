"""Estimated peak memory per GPU, fitted to measurements on an H200 held to a T4's memory."""

from collections.abc import Collection
from typing import NamedTuple

from helpers.models.batching import LOGITS_CHUNK_TOKENS
from helpers.models.families import SHAPES, count_parameters, linear_layers
from helpers.planning.batches import uses_checkpointing
from helpers.planning.config import TrainingConfig

GIB = 2**30
T4_GIB = 14.56
SPARE_GIB = 0.5  # per GPU that a plan leaves free: CUDA's own context, fragmentation
VALIDATION_TOKEN_BUDGET = 4096  # of a validation micro-batch in training, pads included
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)  # per weight: 4 bits, 8-bit scales of 64, 32-bit scales of those
OPTIMIZER_BYTES = {"adamw_8bit": 2, "paged_adamw_8bit": 2}  # of state per trainable parameter; 8 for the others
LOGIT_BYTES = 4 * 4  # per token and word of the vocabulary, in float32: logits, logarithms, the gradient of either
FLOAT32_KEPT = 1.4  # by which PEFT keeps more than twice the bytes of 16 bits: measured with Gemma 3 4B
NORMED_HEADS = ("qwen3", "gemma3_text")  # transformers' model_type: queries and keys are kept before and after a norm
ALLOCATOR_OVERHEAD = 1.02  # memory the allocator holds, of what tensors fill


class DoesNotFit(ValueError):
    """A training that needs more memory than a GPU has; it would fit with `max_tokens`, 0: with none."""

    def __init__(self, message: str, max_tokens: int) -> None:
        super().__init__(message)
        self.max_tokens = max_tokens


class MemoryEstimate(NamedTuple):
    """Estimated GiB per GPU: `adapter` with gradients and optimizer, `peak` of all as the allocator holds it."""

    weights: float
    adapter: float
    activations: float
    peak: float


def activation_bytes(shape: dict, backend: str, each: int = 2) -> tuple[float, float]:
    """Returns bytes per token: kept by one decoder layer for its backward pass, and needed besides while that runs.

    Unsloth keeps inputs of norms and projections, queries, keys, values, gate and up, in `each` bytes. PEFT's numbers
    are fitted to measurements (tests/benchmarks/RESULTS.md): transformers' norms work in 32 bits, and more is kept, as
    are keys and values of all heads.
    """
    hidden, inner = shape["hidden_size"], shape["intermediate_size"]
    query, key = (linear_layers(shape)[name][1] for name in ("q_proj", "k_proj"))
    if backend == "unsloth":
        heads = (2 + (shape.get("model_type") in NORMED_HEADS)) * (query + key)
        return each * (4 * hidden + heads + 2 * inner), each * (4 * hidden + 3 * inner)
    kept = 9.25 * hidden + 4.75 * inner + 2 * (query - key)
    return each * kept * (FLOAT32_KEPT if each == 4 else 1), each * 4 * hidden


def weight_bytes(shape: dict, load_in_4bit: bool) -> float:
    """Returns the bytes of a model's weights: 16 bits each, those of the linear layers NF4 where it is asked for."""
    count = count_parameters(shape, {"target_modules": []})
    return count["linear"] * (NF4_BYTES if load_in_4bit else 2) + (count["base"] - count["linear"]) * 2


def estimate_memory(
    config: TrainingConfig, shape: dict, sizes: Collection[int], float32: bool = False, attended: int | None = None
) -> MemoryEstimate:
    """Returns the estimated memory of a training whose micro-batches have these sizes: tokens, pads included.

    Where the micro-batches are small, the validation has the peak. `float32`: activations are kept in it, and by
    Unsloth every score of attention: `attended` is the most that a head of a micro-batch has, tokens × longest row,
    None: as many as if each was one row.
    """
    count = count_parameters(shape, config.lora)
    gpus = 2 if config.device_map else 1  # that share one model
    weights = weight_bytes(shape, config.load_in_4bit) / gpus
    adapter = count["trainable"] * (4 + 4 + OPTIMIZER_BYTES.get(config.sft["optim"], 8)) / gpus
    each = 4 if float32 else 2
    kept, working = activation_bytes(shape, config.backend, each)
    layers, hidden = shape["num_hidden_layers"] / gpus, shape["hidden_size"]
    layer_inputs = 0 if config.backend == "unsloth" else each * hidden * layers  # its own wait in RAM
    if float32 and config.backend == "peft":  # else they are in what was fitted, of a smaller vocabulary
        working += LOGIT_BYTES * shape["vocab_size"]
    training = max(
        tokens * (kept + working + layer_inputs if uses_checkpointing(tokens, config) else kept * layers + working)
        for tokens in sizes
    )
    if float32 and config.backend == "unsloth":
        alone = max((tokens**2 for tokens in sizes if not uses_checkpointing(tokens, config)), default=0)
        training += each * shape["num_attention_heads"] * layers * (alone if attended is None else attended)
    if config.load_in_4bit:
        training += hidden * shape["intermediate_size"] * 2  # one matrix, out of its 4 bits
    validation = 2 * 4 * LOGITS_CHUNK_TOKENS * shape["vocab_size"]  # logits and their logarithms
    validation += VALIDATION_TOKEN_BUDGET * activation_bytes(shape, "unsloth", each)[1]  # nothing is kept
    buffers = 0.12 * GIB * min(1, count["base"] / 1e9)
    parts = [weights / GIB, adapter / GIB, (max(training, validation) + buffers) / GIB]
    return MemoryEstimate(*parts, peak=sum(parts) * ALLOCATOR_OVERHEAD)


def largest_token_budget(
    config: TrainingConfig, shape: dict, longest: int, gpu_gib: float, float32: bool = False
) -> int:
    """Returns the largest max_tokens, in steps of 128, whose estimated peak fits a GPU of so many GiB, else 0."""

    def fits(budget: int) -> bool:
        candidate = config.model_copy(update={"max_tokens": budget})
        attended = budget * min(budget, longest)
        return estimate_memory(candidate, shape, {budget, longest}, float32, attended).peak <= gpu_gib - SPARE_GIB

    return next(filter(fits, range(16_384, 0, -128)), 0)


def check_memory(
    config: TrainingConfig,
    shape: dict,
    sizes: set[int],
    longest: int,
    gpu_gib: float,
    float32: bool = False,
    attended: int | None = None,
) -> float | None:
    """Returns the estimated peak in GiB per GPU, None for the embedded model. Raises DoesNotFit.

    `sizes` are the tokens of the micro-batches, `longest` those of the longest row, `float32` and `attended` as in
    `estimate_memory`.
    """
    if shape["hidden_size"] == SHAPES["embedded"]["hidden_size"]:
        return None
    memory = estimate_memory(config, shape, sizes, float32, attended)
    if memory.peak > gpu_gib - SPARE_GIB:
        budget = largest_token_budget(config, shape, longest, gpu_gib, float32)
        smaller = "A smaller base_model" + " or load_in_4bit" * (not config.load_in_4bit) + " would help"
        way = f"train.max_tokens={budget} would fit" if budget else smaller
        raise DoesNotFit(
            f"estimated peak {memory.peak:.1f} GiB per GPU (weights {memory.weights:.1f}, adapter "
            f"{memory.adapter:.1f}, activations{' in float32' * float32} {memory.activations:.1f}); a GPU has "
            f"{gpu_gib:.2f} GiB, {SPARE_GIB} of them kept free. {way}.",
            budget,
        )
    return round(memory.peak, 2)
