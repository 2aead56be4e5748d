"""One template, one mask: what the model reads and what it is taught."""

import copy

import pytest

from helpers import chat


@pytest.fixture(scope="module")
def examples(tokenizer, embedded_rows):
    return [chat.encode(tokenizer, row) for row in embedded_rows]


def test_every_row_teaches_its_answer_and_the_end_token_and_has_one_bos(tokenizer, embedded_rows, examples):
    begin, end = tokenizer.convert_tokens_to_ids([chat.BEGIN, chat.END])
    assert len(examples) >= 300
    for row, example in zip(embedded_rows, examples):
        learnt = [label for label in example["labels"] if label != chat.IGNORED]
        assert learnt[-1] == end
        assert example["input_ids"].count(begin) == 1 and example["input_ids"][0] == begin
        assert tokenizer.decode(learnt[:-1]) == row["messages"][-1]["content"]
        assert len(example["input_ids"]) == len(example["labels"])
    chat.check_labels(tokenizer, embedded_rows, examples)


def test_the_check_fails_when_pad_is_the_end_token(tokenizer, embedded_rows, examples):
    broken = copy.deepcopy(tokenizer)
    broken.pad_token = chat.END
    with pytest.raises(ValueError, match="pad token and end token are both"):
        chat.check_labels(broken, embedded_rows, examples)


def test_the_check_fails_when_pads_are_masked_by_their_id_and_pad_is_the_end_token(tokenizer, embedded_rows, examples):
    end = tokenizer.convert_tokens_to_ids(chat.END)
    example = {**examples[0], "labels": [chat.IGNORED if t == end else t for t in examples[0]["labels"]]}
    with pytest.raises(ValueError, match="the last label is .*expected <|eot_id|>"):
        chat.check_labels(tokenizer, embedded_rows[:1], [example])


def test_the_check_fails_for_a_second_bos_and_for_labels_that_are_not_the_answer(tokenizer, embedded_rows, examples):
    begin = tokenizer.convert_tokens_to_ids(chat.BEGIN)
    example = examples[0]
    doubled = {"input_ids": [begin, *example["input_ids"]], "labels": [chat.IGNORED, *example["labels"]]}
    with pytest.raises(ValueError, match="2 BOS tokens"):
        chat.check_labels(tokenizer, embedded_rows[:1], [doubled])
    with pytest.raises(ValueError, match="the labels teach"):
        chat.check_labels(tokenizer, embedded_rows[:1], [{**example, "labels": example["input_ids"]}])


def test_the_collator_pads_with_the_pad_token_and_keeps_every_end_label(tokenizer, examples):
    end = tokenizer.convert_tokens_to_ids(chat.END)
    batch = chat.collator(tokenizer)([dict(example) for example in examples[:8]])
    assert batch["input_ids"].shape == batch["labels"].shape == batch["attention_mask"].shape
    assert int((batch["labels"] == end).sum()) == 8
    assert (batch["input_ids"][batch["attention_mask"] == 0] == tokenizer.pad_token_id).all()
    assert (batch["labels"][batch["attention_mask"] == 0] == chat.IGNORED).all()


def test_training_reads_the_tokens_that_inference_feeds(tokenizer, embedded_rows, examples):
    for row, example in zip(embedded_rows[:50], examples):
        prompt = chat.encode_prompt(tokenizer, row["messages"][:-1])
        assert example["input_ids"][: len(prompt)] == prompt
        assert set(example["labels"][: len(prompt)]) == {chat.IGNORED}


def test_the_layout_is_llama_threes_with_a_blank_line_after_the_header(tokenizer):
    messages = [{"role": "user", "content": " মন ভালো নেই। "}]
    assert chat.render(tokenizer, messages, add_generation_prompt=True) == (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nমন ভালো নেই।<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_the_embedded_tokenizer_adds_a_bos_of_its_own_as_llamas_does(tokenizer):
    """Else no test here would see a second BOS on rendered text."""
    assert tokenizer("মন")["input_ids"][0] == tokenizer.bos_token_id


def test_every_assistant_turn_of_a_dialogue_is_taught(tokenizer):
    turns = ["প্রথম প্রশ্ন", "প্রথম উত্তর", "দ্বিতীয় প্রশ্ন", "দ্বিতীয় উত্তর"]
    row = {"id": "x", "messages": [{"role": ("user", "assistant")[n % 2], "content": t} for n, t in enumerate(turns)]}
    example = chat.encode(tokenizer, row)
    chat.check_labels(tokenizer, [row], [example])
    assert chat.supervised_text(tokenizer, example) == "প্রথম উত্তর<|eot_id|>দ্বিতীয় উত্তর<|eot_id|>"
    whole = tokenizer(chat.render(tokenizer, row["messages"]), add_special_tokens=False)["input_ids"]
    assert example["input_ids"] == whole


def test_a_special_token_written_in_a_message_stays_text(tokenizer):
    row = {
        "id": "x",
        "messages": [{"role": "user", "content": "ক<|eot_id|>খ"}, {"role": "assistant", "content": "গ<|eot_id|>ঘ"}],
    }
    example = chat.encode(tokenizer, row)
    chat.check_labels(tokenizer, [row], [example])
    assert example["input_ids"].count(tokenizer.eos_token_id) == 2


def test_plain_text_is_learnt_whole_and_ends_with_its_own_token(tokenizer):
    row = {"id": "x", "text": "একটা অনুচ্ছেদ এখানে।"}
    example = chat.encode(tokenizer, row)
    chat.check_labels(tokenizer, [row], [example])
    assert example["labels"][0] == chat.IGNORED and example["labels"][1:] == example["input_ids"][1:]
    assert tokenizer.convert_ids_to_tokens(example["input_ids"][-1]) == chat.END_OF_TEXT


def test_the_date_in_llamas_own_template_is_fixed(tokenizer):
    dated = copy.deepcopy(tokenizer)
    dated.chat_template = "{{ bos_token }}Today: {{ date_string }}" + chat.TEMPLATE.removeprefix("{{ bos_token }}")
    assert f"Today: {chat.DATE}" in chat.render(dated, [{"role": "user", "content": "ক"}])


def test_a_template_that_rewrites_its_own_prompt_is_refused(tokenizer, embedded_rows):
    odd = copy.deepcopy(tokenizer)
    odd.chat_template = "{{ bos_token }}{{ messages | length }}" + chat.TEMPLATE.removeprefix("{{ bos_token }}")
    with pytest.raises(ValueError, match="does not continue its own prompt"):
        chat.encode(odd, embedded_rows[0])


def test_a_row_without_an_answer_and_a_tokenizer_without_llamas_tokens_are_refused(tokenizer):
    with pytest.raises(ValueError, match="no assistant turn"):
        chat.encode(tokenizer, {"id": "x", "messages": [{"role": "user", "content": "ক"}]})
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    with pytest.raises(ValueError, match="expected a Llama 3"):
        chat.prepare_tokenizer(PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE())))
