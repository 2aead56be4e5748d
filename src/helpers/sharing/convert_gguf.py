"""Runs llama.cpp's converter: `python convert_gguf.py PATH/TO/convert_hf_to_gguf.py ARGUMENTS`.

A byte-level tokenizer that it does not know (the embedded model's, or one with a vocabulary of its own) gets the
nearest way of splitting words. One of sentencepiece's kind says whether a space is put behind special tokens too, as
llama.cpp does if nothing is said.
"""

import runpy
import sys
from pathlib import Path
from typing import Any


def nearest_splitting(tokenizer: Any) -> str:
    """Returns llama.cpp's name for how a byte-level tokenizer splits words: GPT-2's own regular expression, one that
    keeps vowel signs in a word, or one that does not, and has numbers in pieces of three digits or of one."""
    split = tokenizer.backend_tokenizer.to_str()
    if "p{L}" not in split:
        return "gpt-2"
    if "p{M}" in split:
        return "qwen35"
    return "llama-bpe" if "p{N}{1,3}" in split else "qwen2"


def has_space_behind_special(folder: Path) -> bool:
    """Returns whether a tokenizer puts a space before a text that stands behind a special token."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    return tokenizer.tokenize(f"{tokenizer.eos_token}a")[1].startswith("▁")


if __name__ == "__main__":
    sys.argv = sys.argv[1:]
    sys.path[0] = str(Path(sys.argv[0]).parent)  # in place of this file's folder, whose gguf.py is another one
    from conversion.base import TextModel  # pyright: ignore[reportMissingImports]

    recognise = TextModel.get_vocab_base_pre

    def recognise_or_nearest(self: Any, tokenizer: Any) -> str:
        try:
            return recognise(self, tokenizer)
        except NotImplementedError:
            if "ByteLevel" not in str(tokenizer.backend_tokenizer.pre_tokenizer):
                raise
        return nearest_splitting(tokenizer)

    def and_space_prefix(set_vocab: Any) -> Any:
        def set_vocab_and_prefix(self: Any, *arguments: Any) -> None:
            set_vocab(self, *arguments)
            self.gguf_writer.add_add_space_prefix(has_space_behind_special(self.dir_model))

        return set_vocab_and_prefix

    TextModel.get_vocab_base_pre = recognise_or_nearest
    TextModel._set_vocab_sentencepiece = and_space_prefix(TextModel._set_vocab_sentencepiece)
    TextModel._set_vocab_llama_hf = and_space_prefix(TextModel._set_vocab_llama_hf)
    runpy.run_path(sys.argv[0], run_name="__main__")
