"""GGUF files for llama.cpp."""

import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

from helpers.platforms.errors import describe_error
from helpers.runs.files import write_folder
from helpers.runs.record import Run

LLAMA_CPP = "0c1e57098"  # the commit whose converter was tried, with llama-cpp-python 0.3.36

ARCHIVE = f"https://github.com/ggml-org/llama.cpp/archive/{LLAMA_CPP}.tar.gz"

QUANTISED = ("q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_0", "q3_k_m", "q2_k")


def write_gguf(run: Run, source: Path, folder: Path, types: list[str], llama_cpp: str) -> dict[str, dict[str, Any]]:
    """Writes GGUF files of a merged model with llama.cpp's own converter, quantised by llama-cpp-python.

    `llama_cpp` is a checkout of llama.cpp, "" to fetch it. Returns {type: {"file", "bytes"}}. Raises OSError where the
    converter cannot be fetched, ModuleNotFoundError where quantising needs a package.
    """
    library: Any = None
    if set(types) & set(QUANTISED):
        try:
            import llama_cpp as library  # pyright: ignore[reportMissingImports]
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("quantised GGUF needs a package: pip install llama-cpp-python") from error
    converter = (Path(llama_cpp) if llama_cpp else fetch_llama_cpp(folder.parent)) / "convert_hf_to_gguf.py"
    if not converter.is_file():
        raise FileNotFoundError(f"{converter} is not there: export.llama_cpp is to be a checkout of llama.cpp.")
    files = {}
    with write_folder(folder) as part:
        full = part / f"{run.name}-f16.gguf"
        _convert(converter, source, full)
        for kind in types:
            file = part / f"{run.name}-{kind}.gguf"
            if kind != "f16":
                settings = library.llama_model_quantize_default_params()
                settings.ftype = getattr(library, f"LLAMA_FTYPE_MOSTLY_{kind.upper()}")
                if library.llama_model_quantize(str(full).encode(), str(file).encode(), settings):
                    raise RuntimeError(f"llama.cpp could not quantise to {kind}.")
            files[kind] = {"file": str(folder / file.name), "bytes": file.stat().st_size}
        if "f16" not in types:
            full.unlink()
    return files


def _convert(converter: Path, source: Path, target: Path) -> None:
    """Writes a model in 16 bits as GGUF. Raises RuntimeError with what the converter printed where it fails."""
    path = os.pathsep.join([str(converter.parent / "gguf-py"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(Path(__file__).with_name("convert_gguf.py")), str(converter), str(source)]
    command += ["--outtype", "f16", "--outfile", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    if done.returncode:
        raise RuntimeError(f"llama.cpp's converter ended with {done.returncode}:\n{done.stderr.strip()[-2000:]}")


def fetch_llama_cpp(parent: Path) -> Path:
    """Returns the folder of the pinned llama.cpp below `parent`, fetched once. Raises OSError where that fails."""
    folder = parent / f"llama.cpp-{LLAMA_CPP}"
    if not folder.is_dir():
        try:
            with tempfile.TemporaryDirectory(dir=parent) as scratch:
                with urllib.request.urlopen(ARCHIVE, timeout=60) as answer:
                    (Path(scratch) / "archive").write_bytes(answer.read())
                shutil.unpack_archive(Path(scratch) / "archive", scratch, "gztar", filter="data")
                next(Path(scratch).glob("llama.cpp-*")).rename(folder)
        except OSError as error:
            raise OSError(
                f"llama.cpp's converter could not be fetched from {ARCHIVE} ({describe_error(error)}): switch the "
                f"internet on, or set export.llama_cpp to a checkout."
            ) from error
    return folder
