"""Tiny models of other families: their architectures, kinds of tokenizers, special tokens and chat templates.

Templates that trl brings are read from there; the others are written here from the published formats.
"""

from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from helpers.models.embedded import PIECES

VOCABULARY = 900  # tokens
LLAMA = {"<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}
WORDS = (  # of Llama 3, SmolLM 3 and Qwen: a word ends before each vowel sign
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_pad|>", "<|image_pad|>"]
MISTRAL = """{%- if messages[0]["role"] == "system" %}{%- set system = messages[0]["content"] %}
{%- set turns = messages[1:] %}{%- else %}{%- set turns = messages %}{%- endif %}
{{- bos_token }}
{%- for message in turns %}
  {%- if (message["role"] == "user") != (loop.index0 % 2 == 0) %}
    {{- raise_exception("roles must alternate") }}{%- endif %}
  {%- if message["role"] == "user" %}
    {%- if loop.last and system is defined %}{{- "[INST] " + system + "\\n\\n" + message["content"] + "[/INST]" }}
    {%- else %}{{- "[INST] " + message["content"] + "[/INST]" }}{%- endif %}
  {%- else %}{{- " " + message["content"] + eos_token }}{%- endif %}
{%- endfor %}"""
SMOLLM3 = """{# defaults #}
{%- if enable_thinking is not defined -%}{%- set enable_thinking = true -%}{%- endif -%}
{%- if enable_thinking -%}{%- set mode = "/think" -%}{%- else -%}{%- set mode = "/no_think" -%}{%- endif -%}
{{- "<|im_start|>system\\n## Metadata\\n\\nToday Date: " + strftime_now("%d %B %Y") + "\\nReasoning Mode: " + mode -}}
{%- if messages[0].role == "system" -%}
  {{- "\\n\\n## Custom Instructions\\n\\n" + messages[0].content.rstrip() -}}{%- endif -%}
{{- "<|im_end|>\\n" -}}
{%- for message in messages -%}
  {%- if message.role == "user" -%}{{- "<|im_start|>user\\n" + message.content + "<|im_end|>\\n" -}}
  {%- elif message.role == "assistant" -%}
    {%- if mode == "/think" -%}{{- "<|im_start|>assistant\\n" + message.content.lstrip("\\n") + "<|im_end|>\\n" -}}
    {%- else -%}
      {{- "<|im_start|>assistant\\n<think>\\n\\n</think>\\n" + message.content.lstrip("\\n") + "<|im_end|>\\n" -}}
    {%- endif -%}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {%- if mode == "/think" -%}{{- "<|im_start|>assistant\\n" -}}
  {%- else -%}{{- "<|im_start|>assistant\\n<think>\\n\\n</think>\\n" -}}{%- endif -%}
{%- endif -%}"""


@dataclass(frozen=True)
class TinyFamily:
    """A family of base models: what makes its tokenizer and its architecture what they are, and what is expected."""

    architecture: str  # of transformers, without Config and ForCausalLM
    kind: str  # of the tokenizer: "bytes" (byte-level BPE), "gemma" or "llama" (as of sentencepiece)
    special: list[str]
    named: dict[str, str]  # special tokens by their names, as in tokenizer_config.json
    template: str  # a file of trl's, or the template itself, or ""
    begin: str  # expected
    end: str
    end_of_text: str
    pad: str
    prompt: str  # expected of system ⓪, user ①, assistant ②, user ③
    added: list[str] = field(default_factory=list)  # tokens that are not special, as <think>
    shape: dict = field(default_factory=dict)  # what is special to its config


CHATML_PROMPT = (
    "<|im_start|>system\n⓪<|im_end|>\n<|im_start|>user\n①<|im_end|>\n<|im_start|>assistant\n{0}②<|im_end|>\n"
    "<|im_start|>user\n③<|im_end|>\n<|im_start|>assistant\n{0}"
)
GEMMA_PROMPT = (
    "<bos><start_of_turn>user\n⓪\n\n①<end_of_turn>\n<start_of_turn>model\n②<end_of_turn>\n"
    "<start_of_turn>user\n③<end_of_turn>\n<start_of_turn>model\n"
)
GEMMA = {
    "kind": "gemma",
    "special": ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"],
    "named": {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"},
    "begin": "<bos>",
    "end": "<end_of_turn>",
    "end_of_text": "<eos>",
    "pad": "<pad>",
    "prompt": GEMMA_PROMPT,
    "added": ["<b>", "</b>", "\n\n"],
}
FAMILIES = {
    "Llama 3 with another vocabulary": TinyFamily(
        architecture="Llama",
        kind="bytes",
        special=sorted({*LLAMA, "<|finetune_right_pad_id|>"}),
        named={"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"},
        template="",
        begin="<|begin_of_text|>",
        end="<|eot_id|>",
        end_of_text="<|end_of_text|>",
        pad="<|finetune_right_pad_id|>",
        prompt="<|begin_of_text|>"
        + "".join(
            f"<|start_header_id|>{role}<|end_header_id|>\n\n{content}<|eot_id|>"
            for role, content in (("system", "⓪"), ("user", "①"), ("assistant", "②"), ("user", "③"))
        )
        + "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "Llama without tokens for turns": TinyFamily(
        architecture="Llama",
        kind="llama",
        special=["<unk>", "<s>", "</s>"],
        named={"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
        template="",
        begin="<s>",
        end="</s>",
        end_of_text="</s>",
        pad="<unk>",
        prompt="<s> [INST] ⓪\n\n① [/INST] ②</s> [INST] ③ [/INST]",
    ),
    "Qwen 2.5": TinyFamily(
        architecture="Qwen2",
        kind="bytes",
        special=QWEN,
        named={"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
        template="qwen2_5",
        begin="",
        end="<|im_end|>",
        end_of_text="<|endoftext|>",
        pad="<|vision_pad|>",
        prompt=CHATML_PROMPT.format(""),
        added=["<tool_call>", "</tool_call>"],
        shape={"tie_word_embeddings": True},
    ),
    "Qwen 3": TinyFamily(
        architecture="Qwen3",
        kind="bytes",
        special=QWEN,
        named={"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
        template="qwen3",
        begin="",
        end="<|im_end|>",
        end_of_text="<|endoftext|>",
        pad="<|vision_pad|>",
        prompt=CHATML_PROMPT.format("<think>\n\n</think>\n\n"),
        added=["<think>", "</think>", "<tool_response>"],
        shape={"head_dim": 32, "tie_word_embeddings": True},
    ),
    "Qwen 3 base": TinyFamily(
        architecture="Qwen3",
        kind="bytes",
        special=QWEN,
        named={"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
        template="",
        begin="",
        end="<|im_end|>",
        end_of_text="<|endoftext|>",
        pad="<|vision_pad|>",
        prompt=CHATML_PROMPT.format(""),
        shape={"head_dim": 32},
    ),
    "Gemma 2": TinyFamily(
        architecture="Gemma2",
        template="gemma",
        shape={"head_dim": 32, "sliding_window": 16, "query_pre_attn_scalar": 32},
        **GEMMA,
    ),
    "Gemma 3": TinyFamily(
        architecture="Gemma3", template="gemma3", shape={"head_dim": 32, "sliding_window": 16}, **GEMMA
    ),
    "Mistral": TinyFamily(
        architecture="Mistral",
        kind="llama",
        special=["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[control_8]", "[control_9]"],
        named={"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
        template=MISTRAL,
        begin="<s>",
        end="</s>",
        end_of_text="</s>",
        pad="[control_8]",
        prompt="<s>[INST] ⓪\n\n①[/INST] ②</s>[INST] ③[/INST]",
        shape={"sliding_window": 32},
    ),
    "SmolLM 3": TinyFamily(
        architecture="SmolLM3",
        kind="bytes",
        special=[*sorted(LLAMA), "<|reserved_special_token_0|>", "<|im_start|>", "<|im_end|>"],
        named={"eos_token": "<|im_end|>", "pad_token": "<|im_end|>"},
        template=SMOLLM3,
        begin="",
        end="<|im_end|>",
        end_of_text="<|end_of_text|>",
        pad="<|reserved_special_token_0|>",
        prompt=CHATML_PROMPT.format("<think>\n\n</think>\n").replace(
            "⓪",
            "## Metadata\n\nToday Date: 26 July 2024\nReasoning Mode: /no_think\n\n## Custom Instructions\n\n⓪",
        ),
        added=["<think>", "</think>"],
        shape={"pad_token_id": None},  # the tokenizer's is the end token, and the model would keep that at zero
    ),
}


def chat_template(family):
    """Returns a family's own template, None where it has none."""
    if not family.template or "{" in family.template:
        return family.template or None
    folder = Path(find_spec("trl").origin).parent / "chat_templates"
    return (folder / f"{family.template}.jinja").read_text(encoding="utf-8")


def build_tokenizer(family, texts):
    """Returns a family's tokenizer, trained on the texts, as its own files would give it: nothing prepared."""
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerFast

    fast = byte_level_bpe(family, texts) if family.kind == "bytes" else sentencepiece_bpe(family, texts)
    fast.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in family.special])
    fast.add_tokens([AddedToken(token, special=False, normalized=False) for token in family.added])
    return PreTrainedTokenizerFast(tokenizer_object=fast, chat_template=chat_template(family), **family.named)


def byte_level_bpe(family, texts):
    """Returns a byte-level BPE; Qwen's composes letters first."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    fast = Tokenizer(models.BPE())
    if family.architecture.startswith("Qwen"):
        fast.normalizer = normalizers.NFC()
    digits = r"\p{N}" if family.architecture.startswith("Qwen") else r"\p{N}{1,3}"
    split = pre_tokenizers.Split(Regex(WORDS.replace(r"\p{N}+", digits)), behavior="isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    fast.pre_tokenizer, fast.decoder = pre_tokenizers.Sequence([split, to_bytes]), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    fast.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=VOCABULARY, initial_alphabet=alphabet, show_progress=False)
    )
    return fast


def sentencepiece_bpe(family, texts):
    """Returns a BPE over characters with bytes for the unknown ones, ▁ for spaces; Llama's puts one before a text."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(PIECES), behavior="isolated"), pre_tokenizers.Metaspace(prepend_scheme="never")]
    )
    trained.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=VOCABULARY, show_progress=False))
    ranks = trained.get_vocab()
    pieces = sorted(ranks, key=ranks.get)
    specials = [token for token in family.special if token not in ("[INST]", "[/INST]")]
    tokens = [*specials, *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    vocabulary = {token: place for place, token in enumerate(dict.fromkeys([*tokens, "▁", "\n"]))}
    # sentencepiece joins whatever two pieces make an earlier one, whichever two that one was trained of
    cuts = [(piece[:cut], piece[cut:]) for piece in pieces for cut in range(1, len(piece))]
    merges = [pair for pair in cuts if pair[0] in ranks and pair[1] in ranks]
    fast = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if family.kind == "gemma":
        fast.normalizer = normalizers.Replace(" ", "▁")
        fast.pre_tokenizer = pre_tokenizers.Split("▁", behavior="merged_with_next")
    else:
        fast.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
        parts.append(decoders.Strip(" ", 1, 0))
    fast.decoder = decoders.Sequence(parts)
    return fast


def write_pieces(family, tokenizer, file):
    """Writes the vocabulary as sentencepiece's own tokenizer.model, which llama.cpp's converter reads.

    As published, Gemma's tokens of turns are "user-defined" in it, and special in tokenizer.json alone.
    """
    from sentencepiece import sentencepiece_model_pb2 as formats

    model, kinds = formats.ModelProto(), formats.ModelProto.SentencePiece.Type.Value
    ids = tokenizer.get_vocab()
    for token in sorted(ids, key=ids.get):
        kind = "BYTE" if len(token) == 6 and token.startswith("<0x") else "NORMAL"
        if token in family.special:
            kind = "USER_DEFINED" if "_of_turn" in token else "CONTROL"
        kind = "UNKNOWN" if token == "<unk>" else "USER_DEFINED" if token in family.added else kind
        model.pieces.add(piece=token, score=-float(ids[token]), type=kinds(kind))
    model.trainer_spec.model_type = formats.TrainerSpec.BPE
    model.trainer_spec.byte_fallback = True
    model.trainer_spec.vocab_size = len(ids)
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = family.kind == "llama"
    model.normalizer_spec.remove_extra_whitespaces = False
    file.write_bytes(model.SerializeToString())


def build_model(family, tokenizer):
    """Returns a random model of a family's architecture with two layers."""
    import torch
    import transformers

    name = f"{family.architecture}{'Text' if family.architecture == 'Gemma3' else ''}Config"
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    small = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    small |= {"num_key_value_heads": 2, "max_position_embeddings": 2048, "vocab_size": len(tokenizer)}
    config = getattr(transformers, name)(**{**small, **ids, **family.shape})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return getattr(transformers, f"{family.architecture}ForCausalLM")(config).eval()


def save_family(family, texts, folder):
    """Saves a family's tokenizer and a random model of it in a folder, as they are published."""
    tokenizer = build_tokenizer(family, texts)
    build_model(family, tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if family.kind != "bytes" and find_spec("sentencepiece"):
        write_pieces(family, tokenizer, Path(folder) / "tokenizer.model")
    return folder
