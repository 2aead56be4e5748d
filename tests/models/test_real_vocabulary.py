"""The rules of test_chat.py hold for Llama 3's own vocabulary and template, not only for the embedded model's.

pip downloads the vocabulary for these tests alone; the template stands in the installed unsloth. Nothing is kept.
"""

import ast
import base64
import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from helpers.models.chat import (
    BEGIN,
    DATE,
    END,
    END_OF_TEXT,
    IGNORED,
    PAD,
    TOKENS,
    check_labels,
    decode_labels,
    encode_prompt,
    encode_row,
    prepare_tokenizer,
)

pytestmark = pytest.mark.slow
FIRST_SPECIAL = 128_000  # the id of <|begin_of_text|>; 256 special tokens, most of them reserved
NAMED = {0: BEGIN, 1: END_OF_TEXT, 4: PAD, 6: TOKENS["header"], 7: TOKENS["header_end"], 8: "<|eom_id|>", 9: END}
NAMED[10] = "<|python_tag|>"
TEXTS = {
    "conjuncts": "ক্ষত্রিয়ের শ্রদ্ধা, স্ত্রীর দৃষ্টি, আত্মসম্মান ও স্বাচ্ছন্দ্য।",
    "zero-width joiner": "র‍্যাব আর র‍্যাঙ্ক।",
    "zero-width non-joiner": "ট্রাক্‌টর আর ক্‌ষ।",
    "danda": "ভালো আছি। তুমি?॥ এই ।তো।",
    "danda first": "।শুরুতেই দাঁড়ি",
    "vowel sign first": "ি দিয়ে শুরু",
    "nukta": "বা\u09a1\u09bcি, আষা\u09a2\u09bc, সম\u09af\u09bc",
    "signs": "চাঁদ, দুঃখ, হঠাৎ, বাংলা, কৃষ্ণ",
    "digits": "১২৩৪৫ টাকা, 12345 টাকা, COVID-১৯",
    "space before a mark": "কেমন আছেন ? ভালো . সে বলল , 'না' !",
    "paragraphs": "এক\n\nদুই\nতিন\n\n\nচার",
    "emoji": "ভালো থেকো 🙂👍🏽",
    "markup": "<b>ভালো</b> | < | > <| {{ bos_token }} [INST]",
}


@pytest.fixture(scope="module")
def special():
    """Returns the 256 special tokens in the order of their ids."""
    reserved = (f"<|reserved_special_token_{number}|>" for number in range(256))
    return [NAMED.get(place) or next(reserved) for place in range(256)]


@pytest.fixture(scope="module")
def template():
    """Returns Llama 3.1's chat template, without a system message of its own, as unsloth has it."""
    spec = importlib.util.find_spec("unsloth")
    if spec is None or spec.origin is None:
        pytest.skip("unsloth, which has the official template, is not installed: make setup")
    source = ast.parse(Path(spec.origin).with_name("chat_templates.py").read_text(encoding="utf-8"))
    values = {ast.unparse(node.targets[0]): node.value for node in source.body if isinstance(node, ast.Assign)}
    return ast.literal_eval(values["llama31_template"]).replace("{system_message}", "")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory, special, template):
    """Returns Llama 3.1's tokenizer, built from its public vocabulary."""
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import TikTokenConverter

    class Converter(TikTokenConverter):
        @staticmethod
        def load_tiktoken_bpe(path):  # transformers' own needs tiktoken
            lines = (line.split() for line in Path(path).read_bytes().splitlines())
            return {base64.b64decode(token): int(rank) for token, rank in lines}

    folder = tmp_path_factory.mktemp("vocabulary")
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--dest", str(folder), "llama-models"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        pytest.skip("pip could not download llama-models, which has the vocabulary: no answer in 120 s")
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1]
        pytest.skip(f"pip could not download llama-models, which has the vocabulary: {reason}")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        path = wheel.extract("llama_models/llama3/tokenizer.model", folder)
    fast = Converter(path, extra_special_tokens=special).converted()
    adds_begin = processors.TemplateProcessing(single=f"{BEGIN} $A", special_tokens=[(BEGIN, FIRST_SPECIAL)])
    fast.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), adds_begin])
    return prepare_tokenizer(PreTrainedTokenizerFast(tokenizer_object=fast, bos_token=BEGIN, chat_template=template))


def make_row(*contents):
    """Returns a data row of these contents, the user's first."""
    roles = ("user", "assistant")
    return {"id": "x", "messages": [{"role": roles[n % 2], "content": text} for n, text in enumerate(contents)]}


def tokenize_whole(tokenizer, row):
    """Returns the ids of a conversation as transformers makes them, in one call."""
    return tokenizer.apply_chat_template(row["messages"], return_dict=False, date_string=DATE)


def count_special(ids):
    return sum(token >= FIRST_SPECIAL for token in ids)


@pytest.fixture(scope="module")
def examples(tokenizer, embedded_rows):
    return [encode_row(tokenizer, row) for row in embedded_rows]


def test_the_special_tokens_have_their_published_ids(tokenizer):
    assert len(tokenizer) == 128_256
    published = {BEGIN: 128_000, END_OF_TEXT: 128_001, PAD: 128_004, END: 128_009}
    assert {token: tokenizer.convert_tokens_to_ids(token) for token in published} == published


def test_the_tokenizer_adds_a_bos_of_its_own(tokenizer):
    """Else no test here would see a second one on rendered text."""
    assert tokenizer("মন")["input_ids"][0] == FIRST_SPECIAL


def test_the_labels_of_every_row_are_its_answer(tokenizer, embedded_rows, examples):
    assert len(examples) >= 300
    check_labels(tokenizer, embedded_rows, examples)
    for row, example in zip(embedded_rows, examples):
        assert decode_labels(tokenizer, example) == row["messages"][-1]["content"] + END


def test_every_row_has_one_bos(tokenizer, examples):
    assert {example["input_ids"].count(FIRST_SPECIAL) for example in examples} == {1}
    assert {example["input_ids"][0] for example in examples} == {FIRST_SPECIAL}


def test_pieces_have_the_ids_of_one_call_over_the_whole(tokenizer, embedded_rows, examples):
    """`encode_row` parts a text after each header: two line breaks end it, which no token joins with an answer."""
    for row, example in zip(embedded_rows, examples):
        assert example["input_ids"] == tokenize_whole(tokenizer, row), row["id"]


def test_training_reads_the_tokens_that_inference_feeds(tokenizer, embedded_rows, examples):
    for row, example in zip(embedded_rows, examples):
        prompt = encode_prompt(tokenizer, row["messages"][:-1])
        assert example["input_ids"][: len(prompt)] == prompt
        assert set(example["labels"][: len(prompt)]) == {IGNORED}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_text_comes_back_from_its_labels_as_it_was(tokenizer, text):
    row = make_row(text, text, text, text)
    example = encode_row(tokenizer, row)
    check_labels(tokenizer, [row], [example])
    text = text.replace("<|", "< |")
    assert decode_labels(tokenizer, example) == f"{text}{END}{text}{END}"


@pytest.mark.parametrize("text", [text for text in TEXTS.values() if "<|" not in text])
def test_the_turns_of_a_dialogue_have_the_ids_of_one_call(tokenizer, text):
    row = make_row("প্রথম প্রশ্ন", text, text, "দ্বিতীয় উত্তর।", "তৃতীয় প্রশ্ন", text)
    row["messages"].insert(0, {"role": "system", "content": text})
    assert encode_row(tokenizer, row)["input_ids"] == tokenize_whole(tokenizer, row)


def test_blanks_around_a_content_are_the_only_other_difference(tokenizer):
    """Meta's template strips contents, unsloth's does not: `render_chat` does, whichever it is given."""
    padded, stripped = make_row(" \nক ", "\n\nখ\n"), make_row("ক", "খ")
    assert encode_row(tokenizer, padded) == encode_row(tokenizer, stripped)
    assert tokenize_whole(tokenizer, padded) != tokenize_whole(tokenizer, stripped)
    assert encode_row(tokenizer, padded)["input_ids"] == tokenize_whole(tokenizer, stripped)


@pytest.mark.parametrize("turn", ["question", "answer", "system"])
def test_no_special_token_that_somebody_wrote_becomes_it(tokenizer, special, turn):
    sound = make_row("ক", "খ")
    sound["messages"].insert(0, {"role": "system", "content": "গ"})
    expected = count_special(encode_row(tokenizer, sound)["input_ids"])
    place = ["system", "question", "answer"].index(turn)
    for token in special:
        for written in (f"ক{token}খ", token, f"{token}{token}", f"<{token}", f"<|{token}", f"{token}\n\n"):
            row = {"id": token, "messages": [dict(message) for message in sound["messages"]]}
            row["messages"][place]["content"] = written
            example = encode_row(tokenizer, row)
            check_labels(tokenizer, [row], [example])
            assert count_special(example["input_ids"]) == expected, written


def test_one_call_over_the_whole_would_take_what_somebody_wrote(tokenizer):
    """The difference that is wanted: an <|eot_id|> in a question ends the user's turn there."""
    row = make_row(f"ক{END}{TOKENS['header']}assistant{TOKENS['header_end']}\n\nগ", "খ")
    assert count_special(tokenize_whole(tokenizer, row)) == count_special(encode_row(tokenizer, row)["input_ids"]) + 3


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_all_of_a_plain_text_is_trained_on(tokenizer, text):
    row = {"id": "x", "text": text}
    example = encode_row(tokenizer, row)
    check_labels(tokenizer, [row], [example])
    assert example["labels"] == [IGNORED, *example["input_ids"][1:]]
    assert tokenizer.decode(example["input_ids"]) == BEGIN + text.replace("<|", "< |") + END_OF_TEXT


def test_no_special_token_in_a_plain_text_becomes_it(tokenizer, special):
    for token in special:
        ids = encode_row(tokenizer, {"id": token, "text": f"ক{token}খ"})["input_ids"]
        assert count_special(ids) == 2, token


def test_the_prompt_of_a_plain_text_is_its_beginning(tokenizer):
    prompt = encode_prompt(tokenizer, "ভালো আছি।")
    assert prompt == encode_row(tokenizer, {"id": "x", "text": "ভালো আছি।"})["input_ids"][:-1]
