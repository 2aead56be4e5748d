"""Conversation in, labels out: the one place that renders, tokenizes and masks, for training and inference alike."""

from collections.abc import Callable
from itertools import groupby
from typing import Any, NamedTuple

import regex

from helpers.models.chat_format import Messages, Tokenizer, apply_template, choose_template, fold_system, read_format

IGNORED = -100  # label of a token that is not trained on
ROWS_AT_ONCE = 4096  # through the tokenizer


class TokenPiece(NamedTuple):
    """Tokens of an example that are shown together, because they share a letter."""

    text: str
    trained: bool  # whether the labels hold them
    tokens: int


class TooLong(ValueError):
    """A message that no prompt has room for."""


def prepare_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    """Sets the template, `chat_format`, which is read off it, and pad and end token by that; returns the tokenizer.

    Raises ValueError as `choose_template` and `read_format` do.
    """
    tokenizer.chat_template = choose_template(tokenizer)
    tokenizer.chat_format = read_format(tokenizer)
    tokenizer.pad_token, tokenizer.eos_token = tokenizer.chat_format.pad, tokenizer.chat_format.end
    return tokenizer


def strip_special_tokens(tokenizer: Tokenizer, content: str) -> str:
    """Returns a content as it is rendered: stripped, and with no special token or mark of a turn of its own making."""
    return tokenizer.chat_format.markers.sub(r"\g<0> ", content.strip())


def render_chat(tokenizer: Tokenizer, messages: Messages, add_generation_prompt: bool = False) -> str:
    """Returns the conversation as the text the model reads, BOS included."""
    messages = [{**message, "content": strip_special_tokens(tokenizer, message["content"])} for message in messages]
    if tokenizer.chat_format.folds_system:
        messages = fold_system(messages)
    return apply_template(tokenizer, messages, add_generation_prompt)


def tokenize_rendered(tokenizer: Tokenizer, rendered: str) -> list[int]:
    """Returns the token ids of a rendered text, which brings its own special tokens."""
    return tokenizer(rendered, add_special_tokens=False, verbose=False)["input_ids"]


def encode_prompt(tokenizer: Tokenizer, messages: Messages | str) -> list[int]:
    """Returns the token ids of a conversation that the assistant is to continue, or of a plain text."""
    if isinstance(messages, str):
        rendered = tokenizer.chat_format.text_begin + strip_special_tokens(tokenizer, messages)
    else:
        rendered = render_chat(tokenizer, messages, True)
    return tokenize_rendered(tokenizer, rendered)


def end_ids(tokenizer: Tokenizer) -> list[int]:
    """Returns the ids of the tokens at which a reply ends: an answer's, a plain text's, and Llama's before a tool."""
    form, vocabulary = tokenizer.chat_format, tokenizer.get_vocab()
    ends = dict.fromkeys((form.end, form.end_of_text, "<|eom_id|>"))
    return [vocabulary[token] for token in ends if token in vocabulary]


def fit_conversation(tokenizer: Tokenizer, messages: Messages, max_tokens: int) -> Messages:
    """Returns a conversation without its oldest turns, so that its prompt has at most `max_tokens`.

    The system message and the last message stay. Raises TooLong when those alone are longer.
    """
    system = [message for message in messages if message["role"] == "system"]
    rest = [message for message in messages if message["role"] != "system"]
    while (length := len(encode_prompt(tokenizer, [*system, *rest]))) > max_tokens:
        starts = [place for place, message in enumerate(rest) if message["role"] == "user" and place]
        if not starts:
            raise TooLong(f"the message has {length} tokens, at most {max_tokens} fit: make it shorter.")
        rest = rest[starts[0] :]
    return [*system, *rest]


def encode_row(tokenizer: Tokenizer, row: dict[str, Any]) -> dict[str, list[int]]:
    """Returns `encode_rows` of one data row."""
    return encode_rows(tokenizer, [row])[0]


def encode_rows(tokenizer: Tokenizer, rows: list[dict[str, Any]]) -> list[dict[str, list[int]]]:
    """Returns `input_ids` and `labels` of each data row, equally long; never truncated.

    The labels are the assistant's turns with their end token, or all of a plain text; everything else is IGNORED. What
    a template writes behind an end token, such as a new line, belongs to the next turn.
    Turns are tokenized piece by piece where generation will start, so that training sees the very tokens that
    inference produces. The pieces of ROWS_AT_ONCE rows go through the tokenizer together, which uses every core.
    Raises ValueError when the template does not continue its own prompt, or when no token is left to train on.
    """
    examples = []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        chunk = [_render_pieces(tokenizer, row) for row in rows[start : start + ROWS_AT_ONCE]]
        texts = [text for pieces in chunk for text, _ in pieces]
        encoded = iter(tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"])
        for row, pieces in zip(rows[start:], chunk):
            ids, labels = [], []
            for (_, taught), tokens in zip(pieces, encoded):
                ids += tokens
                labels += tokens if taught else [IGNORED] * len(tokens)
            examples.append({"input_ids": ids, "labels": [IGNORED, *labels[1:]] if "text" in row else labels})
    return examples


def count_tokens(tokenizer: Tokenizer, rows: list[dict[str, Any]]) -> list[int]:
    """Returns the tokens of each data row, those of the template included."""
    return [len(example["input_ids"]) for example in encode_rows(tokenizer, rows)]


def _render_pieces(tokenizer: Tokenizer, row: dict[str, Any]) -> list[tuple[str, bool]]:
    """Returns the rendered data row in pieces, and whether each is trained on."""
    import jinja2

    form = tokenizer.chat_format
    if "text" in row:
        return [(form.text_begin + strip_special_tokens(tokenizer, row["text"]) + form.end_of_text, True)]
    messages, rendered, pieces = row["messages"], "", []
    for turn, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        try:
            prompt = render_chat(tokenizer, messages[:turn], add_generation_prompt=True)
            answered = render_chat(tokenizer, messages[: turn + 1]).rstrip()
        except jinja2.TemplateError as error:
            raise ValueError(f"row {row['id']}: the chat template refuses it ({error}).") from error
        if not prompt.startswith(rendered) or not answered.startswith(prompt) or not answered.endswith(form.end):
            raise ValueError(f"row {row['id']}: the chat template does not continue its own prompt up to {form.end}.")
        pieces += [(prompt[len(rendered) :], False), (answered[len(prompt) :], True)]
        rendered = answered
    if not pieces:
        raise ValueError(f"row {row['id']} has no assistant turn: there is nothing to train on.")
    return pieces


def encode_examples(
    tokenizer: Tokenizer, rows: list[dict[str, Any]], part: str, max_length: int
) -> list[dict[str, list[int]]]:
    """Returns `encode_rows` of the data rows of a part, checked.

    Raises ValueError when a row is longer than `max_length` tokens, and as `encode_rows` and `check_labels` do.
    """
    examples = encode_rows(tokenizer, rows)
    check_labels(tokenizer, rows, examples)
    longest = max(len(example["input_ids"]) for example in examples)
    if longest > max_length:
        raise ValueError(
            f"{part}.jsonl has a row of {longest} tokens, max_length is {max_length}: an answer would be cut. Prepare "
            f"the data again with shared.max_length, so that such rows are dropped."
        )
    return examples


def answers_of(row: dict[str, Any]) -> list[str]:
    """Returns the texts of a data row that are trained on and scored: the assistant's turns, or the plain text."""
    if "text" in row:
        return [row["text"]]
    return [message["content"] for message in row["messages"] if message["role"] == "assistant"]


def decode_labels(tokenizer: Tokenizer, example: dict[str, list[int]]) -> str:
    """Returns what the labels teach, decoded with special tokens: the cell to look at before training."""
    return tokenizer.decode([label for label in example["labels"] if label != IGNORED], skip_special_tokens=False)


def split_into_pieces(tokenizer: Tokenizer, example: dict[str, list[int]]) -> list[TokenPiece]:
    """Returns an example as the fewest tokens at a time that hold whole letters, special tokens included.

    A token may end inside a letter's bytes, or inside a conjunct. A piece is either trained on or not.
    """
    pieces: list[TokenPiece] = []
    pending: list[int] = []
    before: list[int] = []  # the piece before: alone, a token of sentencepiece's would lose the space it begins with
    trained = [label != IGNORED for label in example["labels"]]
    for place, token in enumerate(example["input_ids"]):
        pending.append(token)
        text, shown = (tokenizer.decode(ids, skip_special_tokens=False) for ids in ([*before, *pending], before))
        whole = text.startswith(shown)  # not where the labels begin inside a letter
        text = text.removeprefix(shown) if whole else tokenizer.decode(pending, skip_special_tokens=False)
        ends = place + 1 == len(trained) or trained[place + 1] != trained[place]
        if text.endswith("\ufffd") and not ends:
            continue
        piece = TokenPiece(text, trained[place], len(pending))
        before, pending = pending, []
        if pieces and pieces[-1].trained == piece.trained and _share_letter(pieces[-1].text, text):
            last = pieces.pop()
            piece = TokenPiece(last.text + text, piece.trained, last.tokens + piece.tokens)
        pieces.append(piece)
    return pieces


def _share_letter(before: str, after: str) -> bool:
    """Returns whether a conjunct, or a letter and its sign, goes from one text into the next."""
    ends, begins = regex.findall(r"\X", before)[-1:], regex.findall(r"\X", after)[:1]
    return len(regex.findall(r"\X", "".join(ends + begins))) < len(ends) + len(begins)


def check_labels(tokenizer: Tokenizer, rows: list[dict], examples: list[dict[str, list[int]]]) -> None:
    """Raises ValueError unless every example has the one BOS of its format, ends its labels with its end token and
    teaches its answers."""
    form = tokenizer.chat_format
    if tokenizer.pad_token in (form.end, None):
        raise ValueError(
            f"pad token and end token are both {form.end}: masking the pads would mask the end. Set {form.pad}."
        )
    for row, example in zip(rows, examples, strict=True):
        if problem := _find_problem(tokenizer, row, example):
            raise ValueError(f"row {row['id']}: {problem}. Look at the tokenizer's template.")


def _find_problem(tokenizer: Tokenizer, row: dict[str, Any], example: dict[str, list[int]]) -> str:
    """Returns what is wrong with an example, "" if nothing is."""
    form, ids = tokenizer.chat_format, example["input_ids"]
    begin, end = (form.text_begin, form.end_of_text) if "text" in row else (form.begin, form.end)
    begins = ids.count(tokenizer.convert_tokens_to_ids(begin)) - (begin == end)
    if begin and (begins != 1 or ids[0] != tokenizer.convert_tokens_to_ids(begin)):
        return f"{begins} BOS tokens, expected one, at the start"
    last = tokenizer.convert_ids_to_tokens([label for label in example["labels"] if label != IGNORED][-1])
    if last != end:
        return f"the last label is {last}, expected {end}"
    taught = [
        tokenizer.decode([*run]).removeprefix(form.lead)
        for ignored, run in groupby(example["labels"], IGNORED.__eq__)
        if not ignored
    ]
    expected = [strip_special_tokens(tokenizer, answer) + end for answer in answers_of(row)]
    if [_normalize(tokenizer, text) for text in taught] == [_normalize(tokenizer, text) for text in expected]:
        return ""
    return f"the labels teach {''.join(taught)!r}, expected {''.join(expected)!r}"


def _normalize(tokenizer: Tokenizer, text: str) -> str:
    """Returns a text as the tokenizer reads it, the same where it changes none: Qwen's composes letters, Gemma's writes
    ▁ for a space."""
    normalizer = tokenizer.backend_tokenizer.normalizer
    return normalizer.normalize_str(text).replace("▁", " ").strip() if normalizer else text


def make_collator(tokenizer: Tokenizer) -> Callable[[list[dict]], Any]:
    """Returns the collator that pads `input_ids` and `labels` to the longest row of a batch, labels with IGNORED."""
    from transformers import DataCollatorForSeq2Seq

    return DataCollatorForSeq2Seq(tokenizer, padding=True, label_pad_token_id=IGNORED)
