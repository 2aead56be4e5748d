"""Runs llama.cpp's converter: `python convert_gguf.py PATH/TO/convert_hf_to_gguf.py ARGUMENTS`.

A byte-level tokenizer whose way of splitting words it does not know (the embedded model's) is taken for Llama 3's.
"""

import runpy
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.argv = sys.argv[1:]
    sys.path[0] = str(Path(sys.argv[0]).parent)  # in place of this file's folder, whose gguf.py is another one
    from conversion.base import TextModel  # pyright: ignore[reportMissingImports]

    recognise = TextModel.get_vocab_base_pre

    def recognise_or_llama(self: Any, tokenizer: Any) -> str:
        try:
            return recognise(self, tokenizer)
        except NotImplementedError:
            if "ByteLevel" not in str(tokenizer.backend_tokenizer.pre_tokenizer):
                raise
        return "llama-bpe"

    TextModel.get_vocab_base_pre = recognise_or_llama
    runpy.run_path(sys.argv[0], run_name="__main__")
