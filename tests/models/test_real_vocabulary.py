"""The rules of test_chat.py hold for Llama 3's own vocabulary and template, not only for the embedded model's.

pip downloads the vocabulary for these tests alone; the template stands in the installed unsloth. Nothing is kept.
"""

import llama3
import pytest

from helpers.models.chat import (
    IGNORED,
    check_labels,
    decode_labels,
    encode_prompt,
    encode_row,
)
from helpers.models.embedded import BEGIN, END, END_OF_TEXT, PAD, TOKENS

pytestmark = pytest.mark.slow
FIRST_SPECIAL = llama3.FIRST_SPECIAL
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
    return llama3.special_tokens()


@pytest.fixture(scope="module")
def template():
    """Returns Llama 3.1's chat template, without a system message of its own."""
    return llama3.chat_template()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """Returns Llama 3.1's tokenizer, built from its public vocabulary."""
    try:
        return llama3.build_tokenizer(tmp_path_factory.mktemp("vocabulary"))
    except ConnectionError as error:
        pytest.skip(str(error))


def make_row(*contents):
    """Returns a data row of these contents, the user's first."""
    roles = ("user", "assistant")
    return {"id": "x", "messages": [{"role": roles[n % 2], "content": text} for n, text in enumerate(contents)]}


def tokenize_whole(tokenizer, row):
    """Returns the ids of a conversation as transformers makes them, in one call."""
    return tokenizer.apply_chat_template(row["messages"], return_dict=False)


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
