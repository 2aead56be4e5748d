"""GGUF files: a converter that is asked for where it is missing, and files that answer as the adapter does."""

import os

import pytest
from model_families import FAMILIES, build_tokenizer

from helpers.models.chat import encode_prompt, render_chat
from helpers.models.loading import load_tokenizer
from helpers.sharing.convert_gguf import has_space_behind_special, nearest_splitting
from helpers.sharing.gguf import write_gguf


def test_a_converter_that_cannot_be_fetched_is_asked_for(run, merged, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", fail)
    with pytest.raises(OSError, match=r"could not be fetched .*no route to host.* set export\.llama_cpp"):
        write_gguf(run, run / "export/merged", tmp_path / "gguf", ["f16"], "")


def test_a_folder_without_the_converter_is_refused(run, merged, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"export\.llama_cpp is to be a checkout"):
        write_gguf(run, run / "export/merged", tmp_path / "gguf", ["f16"], str(tmp_path))


def test_words_are_split_as_the_tokenizer_splits_them(tokenizer):
    known = {name: nearest_splitting(build_tokenizer(FAMILIES[name], ["ক খ"])) for name in ("Qwen 3", "SmolLM 3")}
    assert known == {"Qwen 3": "qwen2", "SmolLM 3": "llama-bpe"}
    assert nearest_splitting(tokenizer) == "qwen35", "llama.cpp would split the embedded model's words at vowel signs"


@pytest.mark.parametrize(("scheme", "expected"), [("first", False), ("always", True)])
def test_a_space_behind_special_tokens_is_the_tokenizers(tmp_path, scheme, expected):
    from tokenizers import pre_tokenizers

    tokenizer = build_tokenizer(FAMILIES["Mistral"], ["ক খ"])
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    tokenizer.save_pretrained(tmp_path)
    assert has_space_behind_special(tmp_path) is expected


@pytest.mark.slow
def test_gguf_files_answer_in_llama_cpp_as_the_adapter_does(run, merged, conversations, adapter_replies, tmp_path):
    """Needs llama-cpp-python, and LLAMA_CPP, a checkout of llama.cpp, where there is no network."""
    llama_cpp = pytest.importorskip("llama_cpp")
    files = write_gguf(run, run / "export/merged", tmp_path / "gguf", ["f16", "q8_0"], os.environ.get("LLAMA_CPP", ""))
    tokenizer = load_tokenizer(str(run / "data/model"))
    ends = set(tokenizer.convert_tokens_to_ids(["<|eot_id|>", "<|end_of_text|>"]))
    for kind, least in (("f16", 9), ("q8_0", 5)):
        model = llama_cpp.Llama(files[kind]["file"], n_ctx=512, verbose=False)
        replies = []
        for conversation in conversations:
            reply = []
            prompt = encode_prompt(tokenizer, conversation)
            rendered = render_chat(tokenizer, conversation, add_generation_prompt=True)
            assert model.tokenize(rendered.encode(), add_bos=False, special=True) == prompt
            for token in model.generate(prompt, temp=0.0, top_k=1, repeat_penalty=1.0):
                if token in ends or len(reply) == 24:
                    break
                reply.append(token)
            replies.append(tokenizer.decode(reply, skip_special_tokens=True).strip())
        same = sum(reply == other for reply, other in zip(replies, adapter_replies))
        print(f"{kind}: {same} of {len(replies)} greedy replies are the adapter's")
        assert same >= least, (kind, replies)
    assert files["q8_0"]["bytes"] < files["f16"]["bytes"]
