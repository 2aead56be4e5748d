"""One template, one mask: what the model reads and what it is taught."""

import copy

import pytest

from helpers.models.chat import (
    IGNORED,
    TooLong,
    answers_of,
    check_labels,
    decode_labels,
    encode_examples,
    encode_prompt,
    encode_row,
    encode_rows,
    fit_conversation,
    make_collator,
    prepare_tokenizer,
    render_chat,
    tokenize_rendered,
)
from helpers.models.embedded import BEGIN, END, END_OF_TEXT, PAD
from helpers.models.families import LLAMA_3


@pytest.fixture(scope="module")
def examples(tokenizer, embedded_rows):
    return [encode_row(tokenizer, row) for row in embedded_rows]


def test_labels_are_the_answer_with_its_end_token(tokenizer, embedded_rows, examples):
    end = tokenizer.convert_tokens_to_ids(END)
    assert len(examples) >= 300
    for row, example in zip(embedded_rows, examples):
        taught = [label for label in example["labels"] if label != IGNORED]
        assert taught[-1] == end, f"row {row['id']}: the model would not learn to stop"
        assert tokenizer.decode(taught[:-1]) == row["messages"][-1]["content"]
        assert len(example["input_ids"]) == len(example["labels"])
    check_labels(tokenizer, embedded_rows, examples)


def test_every_row_begins_with_its_only_bos(tokenizer, examples):
    begin = tokenizer.convert_tokens_to_ids(BEGIN)
    for example in examples:
        assert example["input_ids"].count(begin) == 1
        assert example["input_ids"][0] == begin


def test_the_check_fails_when_pad_is_the_end_token(tokenizer, embedded_rows, examples):
    broken = copy.deepcopy(tokenizer)
    broken.pad_token = END
    with pytest.raises(ValueError, match="pad token and end token are both"):
        check_labels(broken, embedded_rows, examples)


def test_the_check_fails_when_the_end_token_is_masked(tokenizer, embedded_rows, examples):
    end = tokenizer.convert_tokens_to_ids(END)
    example = {**examples[0], "labels": [IGNORED if t == end else t for t in examples[0]["labels"]]}
    with pytest.raises(ValueError, match=r"the last label is .*, expected <\|eot_id\|>"):
        check_labels(tokenizer, embedded_rows[:1], [example])


@pytest.mark.parametrize("pick", [min, max])
def test_the_check_fails_for_another_end_token(tokenizer, embedded_rows, examples, pick):
    other = tokenizer.convert_tokens_to_ids(pick(tokenizer.get_vocab()))
    labels = [*examples[0]["labels"][:-1], other]
    with pytest.raises(ValueError, match=r"the last label is .*, expected <\|eot_id\|>"):
        check_labels(tokenizer, embedded_rows[:1], [{**examples[0], "labels": labels}])


def test_the_check_fails_for_a_second_bos(tokenizer, embedded_rows, examples):
    begin = tokenizer.convert_tokens_to_ids(BEGIN)
    doubled = {"input_ids": [begin, *examples[0]["input_ids"]], "labels": [IGNORED, *examples[0]["labels"]]}
    with pytest.raises(ValueError, match="2 BOS tokens"):
        check_labels(tokenizer, embedded_rows[:1], [doubled])


def test_the_check_fails_for_labels_that_are_not_the_answer(tokenizer, embedded_rows, examples):
    with pytest.raises(ValueError, match="the labels teach"):
        check_labels(tokenizer, embedded_rows[:1], [{**examples[0], "labels": examples[0]["input_ids"]}])


@pytest.mark.parametrize("end", ["", "আরও কথা"], ids=["less", "more"])
def test_the_check_fails_for_less_or_more_than_the_answer(tokenizer, embedded_rows, examples, end):
    answer = embedded_rows[0]["messages"][-1]["content"]
    row = {
        **embedded_rows[0],
        "messages": [{"role": "assistant", "content": f"{answer} {end}" if end else answer[:-5]}],
    }
    with pytest.raises(ValueError, match="the labels teach"):
        check_labels(tokenizer, [row], examples[:1])


@pytest.mark.parametrize("lower", [True, False])
def test_the_check_fails_for_a_bos_in_second_place(tokenizer, embedded_rows, examples, lower):
    other = tokenizer.bos_token_id + (-1 if lower else 1)
    moved = {"input_ids": [other, *examples[0]["input_ids"]], "labels": [IGNORED, *examples[0]["labels"]]}
    with pytest.raises(ValueError, match="1 BOS tokens, expected one, at the start"):
        check_labels(tokenizer, embedded_rows[:1], [moved])


def test_the_check_fails_for_a_row_without_its_example(tokenizer, embedded_rows, examples):
    with pytest.raises(ValueError, match=r"zip\(\)"):
        check_labels(tokenizer, embedded_rows[:2], examples[:1])


def test_the_label_that_does_not_count_is_torchs():
    from torch.nn import CrossEntropyLoss

    assert CrossEntropyLoss().ignore_index == IGNORED, "the loss of transformers and TRL would count the prompt"


def test_a_text_brings_its_own_special_tokens(tokenizer):
    assert tokenize_rendered(tokenizer, f"{BEGIN}মন")[0] == tokenizer.bos_token_id
    assert tokenize_rendered(tokenizer, f"{BEGIN}মন").count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("at_once", [1, 2, 3, 6, 7])
def test_rows_tokenized_together_are_those_of_each_alone(tokenizer, embedded_rows, examples, monkeypatch, at_once):
    monkeypatch.setattr("helpers.models.chat.ROWS_AT_ONCE", at_once)
    assert encode_rows(tokenizer, embedded_rows[:7]) == examples[:7]


def test_the_collator_pads_with_the_pad_token_alone(tokenizer, examples):
    end = tokenizer.convert_tokens_to_ids(END)
    batch = make_collator(tokenizer)([dict(example) for example in examples[:8]])
    assert batch["input_ids"].shape == batch["labels"].shape == batch["attention_mask"].shape
    assert int((batch["labels"] == end).sum()) == 8, "an end token was masked as a pad"
    assert (batch["input_ids"][batch["attention_mask"] == 0] == tokenizer.pad_token_id).all()
    assert (batch["labels"][batch["attention_mask"] == 0] == IGNORED).all()


def test_training_reads_the_tokens_that_inference_feeds(tokenizer, embedded_rows, examples):
    for row, example in zip(embedded_rows[:50], examples):
        prompt = encode_prompt(tokenizer, row["messages"][:-1])
        assert example["input_ids"][: len(prompt)] == prompt
        assert set(example["labels"][: len(prompt)]) == {IGNORED}
        assert example["labels"][len(prompt)] != IGNORED, (
            "inference would start before the answer: no generation prompt"
        )


def test_a_blank_line_follows_llama_3s_header(tokenizer):
    messages = [{"role": "user", "content": " মন ভালো নেই। "}]
    assert render_chat(tokenizer, messages, add_generation_prompt=True) == (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nমন ভালো নেই।<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_the_embedded_tokenizer_adds_a_bos_as_llamas_does(tokenizer):
    """Else no test here would see a second BOS on rendered text."""
    assert tokenizer("মন")["input_ids"][0] == tokenizer.bos_token_id


def test_every_assistant_turn_of_a_dialogue_is_taught(tokenizer):
    turns = ["প্রথম প্রশ্ন", "প্রথম উত্তর", "দ্বিতীয় প্রশ্ন", "দ্বিতীয় উত্তর", "তৃতীয় প্রশ্ন", "তৃতীয় উত্তর"]
    row = {"id": "x", "messages": [{"role": ("user", "assistant")[n % 2], "content": t} for n, t in enumerate(turns)]}
    example = encode_row(tokenizer, row)
    check_labels(tokenizer, [row], [example])
    assert decode_labels(tokenizer, example) == "".join(f"{text}<|eot_id|>" for text in turns[1::2])
    whole = tokenizer(render_chat(tokenizer, row["messages"]), add_special_tokens=False)["input_ids"]
    assert example["input_ids"] == whole


def test_a_special_token_written_in_a_message_stays_text(tokenizer):
    row = {
        "id": "x",
        "messages": [{"role": "user", "content": "ক<|eot_id|>খ"}, {"role": "assistant", "content": "গ<|eot_id|>ঘ"}],
    }
    example = encode_row(tokenizer, row)
    check_labels(tokenizer, [row], [example])
    assert example["input_ids"].count(tokenizer.eos_token_id) == 2


@pytest.mark.parametrize("token", LLAMA_3.special_tokens.values())
@pytest.mark.parametrize("role", ["system", "user", "assistant", "plain text"])
def test_no_text_brings_a_special_token_to_inference(tokenizer, role, token):
    def prompt(text):
        if role == "plain text":
            return text
        turns = {"system": "সংক্ষেপে বলুন", "user": "মন ভালো নেই", "assistant": "শুনছি"} | {role: text}
        return [*({"role": name, "content": content} for name, content in turns.items())] + [
            {"role": "user", "content": "তারপর?"}
        ]

    special = set(tokenizer.all_special_ids) | {tokenizer.convert_tokens_to_ids(token)}
    plain, written = (
        [t for t in encode_prompt(tokenizer, prompt(text)) if t in special] for text in ("ক খ", f"ক{token}খ")
    )
    assert written == plain, f"{token} in a {role} becomes a token: a message could end its own turn"


def test_all_of_a_plain_text_is_trained_on(tokenizer):
    row = {"id": "x", "text": "একটা অনুচ্ছেদ এখানে।"}
    example = encode_row(tokenizer, row)
    check_labels(tokenizer, [row], [example])
    assert example["labels"][0] == IGNORED
    assert example["labels"][1:] == example["input_ids"][1:]
    assert tokenizer.convert_ids_to_tokens(example["input_ids"][-1]) == END_OF_TEXT


@pytest.mark.parametrize(
    "today",
    [
        "{% if not date_string %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}{{ date_string }}",
        '{{ strftime_now("%d %b %Y") }}',
        "{{ strftime_now( '%d %b %Y' ) }}",
        "{{ strftime_now('%d' ~ ' %b %Y') }}",
        "{{ strftime_now('%-d' ~ ' %b %Y') }}",
        "{% set form = '%d %b %Y' %}{% macro day() %}{{ strftime_now(form) }}{% endmacro %}{{ day() }}",
        "{% if strftime_now is defined %}{% set today = strftime_now %}{% endif %}{{ today(format='%d %b %Y') }}",
    ],
)
def test_the_date_in_a_models_own_template_is_fixed(tokenizer, today):
    """Also for whoever renders the template of an export."""
    dated = copy.deepcopy(tokenizer)
    dated.chat_template = "{{ bos_token }}Today: " + today + LLAMA_3.template.removeprefix("{{ bos_token }}")
    for _ in range(2):  # a tokenizer that was prepared and saved is prepared again
        prepare_tokenizer(dated)
        assert (
            dated.apply_chat_template([{"role": "user", "content": "ক"}], tokenize=False).count("Today: 26 Jul 2024")
            == 1
        )
        assert dated.chat_template.count('set date_string = "26') == ("date_string" in today)
        assert dated.chat_template.count("macro strftime_now") == any(part in today for part in (" ~ ", "form"))


def test_a_number_of_a_date_is_fixed_without_its_zeros(tokenizer):
    dated = copy.deepcopy(tokenizer)
    dated.chat_template = "{{ strftime_now('%-d.%-m' ~ '.%#m.%m.%-H') }}: " + LLAMA_3.template
    prepare_tokenizer(dated)
    talk = [{"role": "user", "content": "ক"}]
    assert dated.apply_chat_template(talk, tokenize=False).startswith("26.7.7.07.0: ")


def test_a_template_that_rewrites_its_own_prompt_is_refused(tokenizer, embedded_rows):
    odd = copy.deepcopy(tokenizer)
    odd.chat_template = "{{ bos_token }}{{ messages | length }}" + LLAMA_3.template.removeprefix("{{ bos_token }}")
    with pytest.raises(ValueError, match="does not continue its own prompt"):
        encode_row(odd, embedded_rows[0])


def test_a_row_above_the_longest_length_is_refused(tokenizer, embedded_rows):
    message = r"train.jsonl has a row of \d+ tokens, max_length is 9: an answer would be cut"
    with pytest.raises(ValueError, match=message):
        encode_examples(tokenizer, embedded_rows[:2], "train", 9)


def test_a_row_of_the_longest_length_is_kept(tokenizer, embedded_rows, examples):
    longest = max(len(example["input_ids"]) for example in examples[:2])
    for limit in (longest, longest + 1):
        assert encode_examples(tokenizer, embedded_rows[:2], "train", limit) == examples[:2]
    with pytest.raises(ValueError, match=f"a row of {longest} tokens, max_length is {longest - 1}"):
        encode_examples(tokenizer, embedded_rows[:2], "train", longest - 1)


@pytest.fixture
def dialogue():
    """Returns a conversation of 14 messages."""
    turns = [{"role": role, "content": f"{n} কথা " * 10} for n in range(6) for role in ("user", "assistant")]
    return [{"role": "system", "content": "সহানুভূতি"}, *turns, {"role": "user", "content": "শেষ কথা"}]


def test_no_turn_is_dropped_from_a_conversation_that_fits(tokenizer, dialogue):
    whole = len(encode_prompt(tokenizer, dialogue))
    for limit in (whole, whole + 1):
        assert fit_conversation(tokenizer, dialogue, limit) == dialogue


@pytest.mark.parametrize("pairs", [1, 2, 6])
def test_old_turns_are_dropped_as_a_whole(tokenizer, dialogue, pairs):
    rest = [dialogue[0], *dialogue[1 + 2 * pairs :]]
    assert rest[1]["role"] == "user"
    limit = len(encode_prompt(tokenizer, rest))
    assert fit_conversation(tokenizer, dialogue, limit) == rest
    before = len(encode_prompt(tokenizer, [dialogue[0], *dialogue[2 * pairs - 1 :]]))
    assert fit_conversation(tokenizer, dialogue, before - 1) == rest


def test_a_message_that_is_too_long_is_refused(tokenizer, dialogue):
    needed = len(encode_prompt(tokenizer, [dialogue[0], dialogue[-1]]))
    with pytest.raises(TooLong, match=f"has {needed} tokens, at most {needed - 1} fit"):
        fit_conversation(tokenizer, dialogue, needed - 1)


def test_answers_are_the_assistants_turns_or_the_text(dialogue):
    assert answers_of({"messages": dialogue}) == [f"{n} কথা " * 10 for n in range(6)]
    assert answers_of({"text": "একটা অনুচ্ছেদ"}) == ["একটা অনুচ্ছেদ"]


def test_a_row_without_an_answer_is_refused(tokenizer):
    with pytest.raises(ValueError, match="no assistant turn"):
        encode_row(tokenizer, {"id": "x", "messages": [{"role": "user", "content": "ক"}]})


def test_a_tokenizer_without_template_and_end_is_refused():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    with pytest.raises(ValueError, match="neither a chat template nor an end token"):
        prepare_tokenizer(PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE())))


def test_a_tokenizer_keeps_its_own_template(tokenizer):
    own = copy.deepcopy(tokenizer)
    theirs = LLAMA_3.template.replace("trim", "trim | upper")
    own.chat_template, own.pad_token = theirs, END
    assert prepare_tokenizer(own).chat_template == theirs
    assert (own.pad_token, own.eos_token) == (PAD, END)
    own.chat_template = None
    assert prepare_tokenizer(own).chat_template == LLAMA_3.template
