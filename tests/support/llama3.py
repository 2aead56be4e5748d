"""Llama 3.1's own tokenizer: pip downloads its public vocabulary, the template stands in the installed unsloth."""

import ast
import base64
import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

from helpers.models.chat import prepare_tokenizer
from helpers.models.embedded import BEGIN, END, END_OF_TEXT, PAD, TOKENS

FIRST_SPECIAL = 128_000  # the id of <|begin_of_text|>; 256 special tokens, most of them reserved
NAMED = {0: BEGIN, 1: END_OF_TEXT, 4: PAD, 6: TOKENS["header"], 7: TOKENS["header_end"], 8: "<|eom_id|>", 9: END}
NAMED[10] = "<|python_tag|>"


def special_tokens():
    """Returns the 256 special tokens in the order of their ids."""
    reserved = (f"<|reserved_special_token_{number}|>" for number in range(256))
    return [NAMED.get(place) or next(reserved) for place in range(256)]


def chat_template():
    """Returns Llama 3.1's chat template, without a system message of its own, as unsloth has it."""
    spec = importlib.util.find_spec("unsloth")
    source = ast.parse(Path(spec.origin).with_name("chat_templates.py").read_text(encoding="utf-8"))
    values = {ast.unparse(node.targets[0]): node.value for node in source.body if isinstance(node, ast.Assign)}
    return ast.literal_eval(values["llama31_template"]).replace("{system_message}", "")


def build_tokenizer(folder):
    """Returns the tokenizer, made from a download into `folder`. Raises ConnectionError without one."""
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import TikTokenConverter

    class Converter(TikTokenConverter):
        @staticmethod
        def load_tiktoken_bpe(path):  # transformers' own needs tiktoken
            lines = (line.split() for line in Path(path).read_bytes().splitlines())
            return {base64.b64decode(token): int(rank) for token, rank in lines}

    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--dest", str(folder), "llama-models"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired as late:
        raise ConnectionError(
            "pip could not download llama-models, which has the vocabulary: no answer in 120 s"
        ) from late
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1]
        raise ConnectionError(f"pip could not download llama-models, which has the vocabulary: {reason}")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        path = wheel.extract("llama_models/llama3/tokenizer.model", folder)
    fast = Converter(path, extra_special_tokens=special_tokens()).converted()
    adds_begin = processors.TemplateProcessing(single=f"{BEGIN} $A", special_tokens=[(BEGIN, FIRST_SPECIAL)])
    fast.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), adds_begin])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=fast, bos_token=BEGIN, chat_template=chat_template())
    return prepare_tokenizer(tokenizer)
