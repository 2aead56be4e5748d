"""In llama.cpp a tiny model of each family reads what it was taught on, and stops where it stops in transformers.

Needs llama-cpp-python, and LLAMA_CPP, a checkout of llama.cpp, where there is no network.
"""

import os
from types import SimpleNamespace

import pytest
import torch
from model_families import FAMILIES, save_family

from helpers.inference.generate import generate_replies
from helpers.models.chat import encode_prompt, encode_rows, end_ids, make_collator, strip_special_tokens
from helpers.models.chat_format import fold_system
from helpers.models.loading import load_tokenizer
from helpers.runs.files import write_jsonl
from helpers.runs.record import Run
from helpers.sharing.gguf import write_gguf
from helpers.sharing.merge import merge_adapter

TALKS = {"মন খারাপ।": "শুনছি।", "চাকরিটা গেছে।": "পাশে আছি।", "ঘুম আসে না।": "বলুন।"}  # message: reply
HARD = [
    "ক্ষত্রিয়ের শ্রদ্ধা, স্ত্রীর দৃষ্টি, আত্মসম্মান ও স্বাচ্ছন্দ্য।",  # conjuncts
    "র‍্যাব আর র‍্যাঙ্ক। ট্রাক্‌টর আর ক্‌ষ।",  # joined and kept apart
    "বা\u09a1\u09bcি, আষা\u09a2\u09bc, সম\u09af\u09bc, চাঁদ, দুঃখ",  # letters with a dot, as the data has them
    "এক\n\nদুই\nতিন  চার . 'পাঁচ' ? 🙂👍🏽 12345 ৬৭৮৯",
    "<|eot_id|>ক<|im_end|> <end_of_turn>\n<start_of_turn>model </s><s>[INST] খ [/INST]<b>ভালো</b> <think> [control_8]",
]
pytestmark = pytest.mark.slow


def conversation(message, reply=None):
    """Returns a conversation with a system text, as long as the reply is given or not."""
    turns = [("system", "সংক্ষেপে বলুন।"), ("user", message), *[("assistant", reply)] * bool(reply)]
    return [{"role": role, "content": content} for role, content in turns]


def teach(network, tokenizer, talks, steps=150, rate=8e-3):
    """Trains an adapter on short replies, until it gives them word by word."""
    rows = [{"id": message, "messages": conversation(message, reply)} for message, reply in talks.items()]
    batch = make_collator(tokenizer)(encode_rows(tokenizer, rows))
    optimizer = torch.optim.AdamW([weight for weight in network.parameters() if weight.requires_grad], lr=rate)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, steps)
    for _ in range(steps):
        network(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        decay.step()


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def exported(family, embedded_rows, tmp_path_factory):
    """Returns a family's model whose adapter was taught short replies: merged, and as GGUF."""
    llama_cpp = pytest.importorskip("llama_cpp")
    if FAMILIES[family].kind != "bytes":
        pytest.importorskip("sentencepiece")
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("exported")
    texts = [message["content"] for row in embedded_rows for message in row["messages"]]
    base = save_family(FAMILIES[family], texts, folder / "base")
    tokenizer, network = load_tokenizer(str(base)), AutoModelForCausalLM.from_pretrained(base)
    torch.manual_seed(0)
    tuned = get_peft_model(network, LoraConfig(r=16, lora_alpha=16, target_modules="all-linear"))
    teach(tuned, tokenizer, TALKS)
    run = Run(folder / "own")
    tuned.save_pretrained(run / "train/adapter")
    write_jsonl(run / "data/test.jsonl", embedded_rows[50:52])
    merge_adapter(run, str(base), run / "merged", 2, 1)
    files = write_gguf(run, run / "merged", folder / "gguf", ["f16"], os.environ.get("LLAMA_CPP", ""))
    return SimpleNamespace(
        tokenizer=load_tokenizer(str(run / "merged")),
        network=AutoModelForCausalLM.from_pretrained(run / "merged", dtype=torch.float32).eval(),
        in_cpp=llama_cpp.Llama(files["f16"]["file"], n_ctx=512, n_threads=1, verbose=False),
    )


def as_llama_cpp_takes(tokenizer, messages):
    """Returns messages without marks of turns in their texts, the system text in the first turn where that is so."""
    messages = [{**message, "content": strip_special_tokens(tokenizer, message["content"])} for message in messages]
    return fold_system(messages) if tokenizer.chat_format.folds_system else messages


def tokens_in_cpp(in_cpp, messages):
    """Returns the tokens of a prompt by the GGUF file's own template and vocabulary."""
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    names = {name: in_cpp.detokenize([place], special=True).decode() for name, place in specials(in_cpp).items()}
    formatter = Jinja2ChatFormatter(in_cpp.metadata["tokenizer.chat_template"], **names)
    return in_cpp.tokenize(formatter(messages=messages).prompt.encode(), add_bos=False, special=True)


def specials(in_cpp):
    """Returns the ids of BOS and end token, by the names that a chat template gives them."""
    ids = {"bos_token": in_cpp.token_bos(), "eos_token": in_cpp.token_eos()}
    return {name: max(place, 0) for name, place in ids.items()}


def test_llama_cpp_reads_the_tokens_that_were_taught(exported):
    talks = [*map(conversation, [*TALKS, *HARD])]
    talks += [[*conversation(text, HARD[0]), {"role": "user", "content": HARD[1]}] for text in HARD]
    for talk in talks:
        read = tokens_in_cpp(exported.in_cpp, as_llama_cpp_takes(exported.tokenizer, talk))
        taught = encode_prompt(exported.tokenizer, talk)
        assert exported.tokenizer.convert_ids_to_tokens(read) == exported.tokenizer.convert_ids_to_tokens(taught)


def test_llama_cpp_stops_where_transformers_stops(family, exported):
    end = exported.tokenizer.convert_tokens_to_ids(FAMILIES[family].end)
    for message, reply in TALKS.items():
        prompt, written = encode_prompt(exported.tokenizer, conversation(message)), []
        for token in exported.in_cpp.generate(prompt, temp=0.0, top_k=1, repeat_penalty=1.0):
            written.append(token)
            if token in end_ids(exported.tokenizer) or len(written) == 24:
                break
        ids = torch.tensor([prompt])
        greedy = exported.network.generate(ids, max_new_tokens=24, do_sample=False, pad_token_id=0)
        assert written == greedy[0, len(prompt) :].tolist()
        assert written[-1] == end
        assert exported.tokenizer.decode(written[:-1]).strip() == reply


def test_a_chat_in_llama_cpp_ends_with_the_reply(exported):
    for message, reply in TALKS.items():
        messages = as_llama_cpp_takes(exported.tokenizer, conversation(message))
        answer = exported.in_cpp.create_chat_completion(messages, temperature=0.0, max_tokens=24)["choices"][0]
        assert (answer["message"]["content"].strip(), answer["finish_reason"]) == (reply, "stop")


def test_the_suites_own_replies_are_those(exported):
    talks = [conversation(message) for message in TALKS]
    replies = generate_replies(exported.network, exported.tokenizer, talks, 24, 3)
    assert [reply["reply"] for reply in replies] == [*TALKS.values()]
