"""Other families than Llama 3: what is read and taught follows from each tokenizer and its own chat template."""

import copy
import unicodedata
from itertools import groupby

import pytest
import torch
from model_families import FAMILIES, build_model, build_tokenizer

from helpers.inference.generate import generate_replies, stream_reply
from helpers.models.attention import NAME, use_capped_attention, use_grouped_attention
from helpers.models.chat import (
    IGNORED,
    check_labels,
    encode_prompt,
    encode_rows,
    make_collator,
    prepare_tokenizer,
    render_chat,
    strip_special_tokens,
)
from helpers.models.chat_format import FIRST
from helpers.models.likelihood import score_tokens

TURNS = ("system", "user", "assistant", "user", "assistant", "user")
HARD = [
    "ক্ষত্রিয়ের শ্রদ্ধা, স্ত্রীর দৃষ্টি, আত্মসম্মান ও স্বাচ্ছন্দ্য।",
    "র‍্যাব আর র‍্যাঙ্ক। ট্রাক্‌টর আর ক্‌ষ।",
    "বা\u09a1\u09bcি, আষা\u09a2\u09bc; বা\u09dcি, সম\u09df, চাঁদ, দুঃখ",  # letters in two parts, and in one
    "এক\n\nদুই\nতিন  চার . 'পাঁচ' ? 🙂👍🏽",
    "।শুরুতেই দাঁড়ি",
    "<b>ভালো</b> | < | > [ADD] {{ bos_token }} a<b",
]


@pytest.fixture(scope="module")
def texts(embedded_rows):
    return [message["content"] for row in embedded_rows for message in row["messages"]]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def own(family, texts):
    """Returns a family's tokenizer, prepared."""
    return prepare_tokenizer(build_tokenizer(family, texts))


@pytest.fixture(scope="module")
def dialogues(embedded_rows):
    """Returns rows of one turn and of several, hard texts among them."""
    long = [
        {
            "id": f"long {n}",
            "messages": [{"role": role, "content": HARD[(n + k) % len(HARD)]} for k, role in enumerate(TURNS[:-1])],
        }
        for n in range(len(HARD))
    ]
    return [*embedded_rows[:40], *long, *({**row, "messages": row["messages"][1:]} for row in long)]


def taught_runs(example):
    """Returns the ids of each answer that is trained on."""
    return [[*run] for trained, run in groupby(example["labels"], lambda label: label != IGNORED) if trained]


def test_the_format_is_read_off_the_template(family, own):
    form = own.chat_format
    assert (form.begin, form.end, form.end_of_text, form.pad) == (
        family.begin,
        family.end,
        family.end_of_text,
        family.pad,
    )
    assert (own.eos_token, own.pad_token) == (family.end, family.pad)


def test_a_conversation_is_rendered_as_published(family, own):
    talk = [{"role": role, "content": content} for role, content in zip(TURNS, "⓪①②③")]
    assert render_chat(own, talk, add_generation_prompt=True) == family.prompt


def test_labels_are_the_answers_with_their_end_token(family, own, dialogues):
    end = own.convert_tokens_to_ids(family.end)
    examples = encode_rows(own, dialogues)
    check_labels(own, dialogues, examples)
    for row, example in zip(dialogues, examples):
        answers = [message["content"] for message in row["messages"] if message["role"] == "assistant"]
        runs = taught_runs(example)
        assert [run[-1] for run in runs] == [end] * len(answers), f"row {row['id']}: the model would not learn to stop"
        taught = [unicodedata.normalize("NFC", own.decode(run[:-1]).strip()) for run in runs]
        assert taught == [unicodedata.normalize("NFC", answer.strip()) for answer in answers]


def test_training_reads_the_tokens_that_inference_feeds(own, dialogues):
    for row, example in zip(dialogues, encode_rows(own, dialogues)):
        for turn, message in enumerate(row["messages"]):
            if message["role"] == "assistant":
                prompt = encode_prompt(own, row["messages"][:turn])
                assert example["input_ids"][: len(prompt)] == prompt, f"row {row['id']}, turn {turn}"
                assert example["labels"][len(prompt) - 1] == IGNORED
                assert example["labels"][len(prompt)] != IGNORED


def test_no_text_brings_a_special_token_of_its_family(family, own):
    marks = {*family.special, *family.added} - {"<b>", "</b>", "\n\n"}  # Gemma's, which end nothing
    marks |= {"[INST]", "[/INST]"} if "INST" in family.prompt else set()
    ids = set(own.convert_tokens_to_ids([*family.special, *family.added]))  # the marks that are tokens
    for place in range(len(TURNS)):
        for mark in sorted(marks):
            texts = [["ক খ"] * len(TURNS) for _ in range(2)]
            texts[1][place] = f"ক{mark}খ {mark}"
            talks = [[{"role": role, "content": text} for role, text in zip(TURNS, each)] for each in texts]
            plain, written = (encode_prompt(own, talk) for talk in talks)
            assert [token for token in written if token in ids] == [token for token in plain if token in ids], mark


def test_no_message_renders_a_mark_of_a_turn(family, own):
    for mark in ("[INST]", "[/INST]") if "INST" in family.prompt else family.special:
        assert mark not in strip_special_tokens(own, f"{mark}{mark} ক{mark}")


def test_ordinary_text_is_left_as_it_is(own):
    for text in [*HARD, "৫ < ৬ > ৪", "[১] দেখুন", "a</a><br/>", "x | y", "s> </p>"]:
        assert strip_special_tokens(own, text) == text


def test_all_of_a_plain_text_is_trained_on(family, own):
    row = {"id": "x", "text": HARD[0]}
    example = encode_rows(own, [row])[0]
    check_labels(own, [row], [example])
    first, last = own.convert_ids_to_tokens([example["input_ids"][0], example["input_ids"][-1]])
    assert (first, last) == (family.begin or family.end_of_text, family.end_of_text)
    assert example["labels"] == [IGNORED, *example["input_ids"][1:]]
    assert encode_prompt(own, HARD[0]) == example["input_ids"][:-1]


def test_a_saved_tokenizer_is_prepared_alike(own, tmp_path):
    from transformers import AutoTokenizer

    own.save_pretrained(tmp_path)
    again = prepare_tokenizer(AutoTokenizer.from_pretrained(tmp_path))
    assert again.chat_format == own.chat_format
    assert again.chat_template == own.chat_template


def test_pads_end_nothing(family, own, dialogues):
    batch = make_collator(own)(encode_rows(own, dialogues[:8]))
    assert (batch["input_ids"][batch["attention_mask"] == 0] == own.convert_tokens_to_ids(family.pad)).all()
    assert int((batch["labels"] == own.eos_token_id).sum()) == 8, "an end token was masked as a pad"


@pytest.fixture(scope="module")
def network(family, own):
    return build_model(family, own)


def test_a_reply_ends_at_the_familys_end_token(family, own, network):
    letter, end = own("ক", add_special_tokens=False)["input_ids"][-1], own.convert_tokens_to_ids(family.end)
    asked, written = [{"role": "user", "content": "মন খারাপ।"}], []

    def write(module, inputs, logits):
        written.append(None)
        forced = torch.zeros_like(logits)
        forced[..., end if len(written) % 4 == 0 else letter] = 1e4
        return forced

    hook = network.lm_head.register_forward_hook(write)
    try:
        reply = generate_replies(network, own, [asked], 12, 1)[0]
        streamed = [*stream_reply(network, own, asked, 12)]
    finally:
        hook.remove()
    assert (reply["reply"].replace(" ", ""), reply["new_tokens"], reply["hit_cap"]) == ("ককক", 4, False)
    assert streamed[-1] == reply["reply"]


def test_replies_in_a_batch_are_those_that_stream(own, network):
    """Gemma and Mistral attend to a window of late tokens, shorter than these prompts."""
    asked = [[{"role": "user", "content": text}] for text in ("মন খারাপ। " * 12, "ঘুম আসে না।")]
    replies = generate_replies(network, own, asked, 40, 2)
    assert [reply["reply"] for reply in replies] == [[*stream_reply(network, own, talk, 40)][-1] for talk in asked]


def test_answers_are_as_likely_as_the_model_finds_them(own, network, dialogues):
    """Gemma 2 caps its scores after the output layer."""
    batch = make_collator(own)(encode_rows(own, dialogues[38:44]))
    network.lm_head.weight.data *= 40  # else no score is near the cap
    nll, correct, _ = score_tokens(network, batch)
    with torch.no_grad():
        logits = network(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    network.lm_head.weight.data /= 40
    targets = batch["labels"][:, 1:]
    expected = torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")[targets != IGNORED]
    torch.testing.assert_close(nll.float(), expected, rtol=1e-4, atol=1e-4)
    assert correct.tolist() == (logits.argmax(-1) == targets)[targets != IGNORED].tolist()


def test_capped_attention_is_not_left_out(family, network):
    model = copy.deepcopy(network)
    use_capped_attention(model)
    use_grouped_attention(model)
    assert model.config._attn_implementation == ("eager" if family.architecture == "Gemma2" else NAME)


def changed(texts, name, **changes):
    """Returns a family's tokenizer with other attributes, not prepared."""
    tokenizer = build_tokenizer(FAMILIES[name], texts)
    for attribute, value in changes.items():
        setattr(tokenizer, attribute, value)
    return tokenizer


def test_a_think_block_that_stays_open_is_refused(texts):
    template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ '<think>\n\n</think>\n' if m.role == 'assistant' }}"
    template += "{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    with pytest.raises(ValueError, match="between prompt and answer, such as a think block"):
        prepare_tokenizer(changed(texts, "Qwen 3", chat_template=template))


def test_a_template_without_an_end_token_is_refused(texts):
    template = "{% for m in messages %}### {{ m.role }}\n{{ m.content }}\n{% endfor %}### assistant\n"
    with pytest.raises(ValueError, match=r"does not continue its own prompt|expected one token that ends it"):
        prepare_tokenizer(changed(texts, "Qwen 2.5", chat_template=template))


def test_a_tokenizer_without_a_token_to_pad_with_is_refused(texts):
    with pytest.raises(ValueError, match="no unused, reserved or unknown token to pad with"):
        prepare_tokenizer(changed(texts, "Llama without tokens for turns", unk_token=None))


def test_no_pad_token_is_one_that_the_template_writes(texts):
    template = FAMILIES["SmolLM 3"].template.replace("<|im_start|>", "<|reserved_special_token_0|>")
    with pytest.raises(ValueError, match="no unused, reserved or unknown token to pad with"):
        prepare_tokenizer(changed(texts, "SmolLM 3", chat_template=template))


def test_a_bos_token_that_begins_every_turn_is_no_bos(texts, dialogues):
    own = prepare_tokenizer(changed(texts, "Qwen 3 base", bos_token="<|im_start|>"))
    assert own.chat_format.begin == ""
    check_labels(own, dialogues[-4:], encode_rows(own, dialogues[-4:]))


def test_a_space_before_an_answer_is_trained_on(texts, dialogues):
    other = changed(texts, "Llama 3 with another vocabulary", chat_template=FAMILIES["Mistral"].template)
    own = prepare_tokenizer(other)
    examples = encode_rows(own, dialogues[-4:])
    check_labels(own, dialogues[-4:], examples)
    assert own.decode(taught_runs(examples[0])[0]).startswith(" ")


def test_thinking_is_off_for_whoever_uses_an_export(texts):
    own = prepare_tokenizer(build_tokenizer(FAMILIES["Qwen 3"], texts))
    asked = [{"role": "user", "content": "ক"}]
    assert own.chat_template.startswith(FIRST["enable_thinking"])
    theirs = own.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    assert theirs.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_roles_that_a_template_refuses_name_the_row(texts):
    own = prepare_tokenizer(build_tokenizer(FAMILIES["Gemma 3"], texts))
    turns = ("user", "user", "assistant")
    row = {"id": "7", "messages": [{"role": role, "content": "ক"} for role in turns]}
    with pytest.raises(ValueError, match="row 7: the chat template refuses it .*must alternate"):
        encode_rows(own, [row])
