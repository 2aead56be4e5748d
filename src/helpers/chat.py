"""Conversation in, labels out: the one place that renders, tokenizes and masks, for training and inference alike."""

PAD, END, BEGIN = "<|finetune_right_pad_id|>", "<|eot_id|>", "<|begin_of_text|>"
END_OF_TEXT = "<|end_of_text|>"  # ends a plain text
HEADER, HEADER_END = "<|start_header_id|>", "<|end_header_id|>"
IGNORED = -100  # label of a token that is not learnt
DATE = "26 Jul 2024"  # Llama's templates print a date: a fixed one, so that training and inference see the same
TEMPLATE = (  # Llama 3's layout, for a tokenizer that brings no template of its own
    "{{ bos_token }}{% for message in messages %}"
    f"{HEADER}{{{{ message['role'] }}}}{HEADER_END}\n\n{{{{ message['content'] | trim }}}}{END}"
    "{% endfor %}{% if add_generation_prompt %}"
    f"{HEADER}assistant{HEADER_END}\n\n"
    "{% endif %}"
)


class TooLong(ValueError):
    """A message that no prompt has room for."""


def prepare_tokenizer(tokenizer):
    """Sets pad and end tokens and, where there is none, the template. Returns the tokenizer.

    The pad token is one of its own: with pad = end, a collator that masks pads also masks the end token, and the model
    never learns to stop. Raises ValueError for a tokenizer without Llama 3's special tokens.
    """
    vocabulary = tokenizer.get_vocab()
    missing = [token for token in (PAD, END, BEGIN, HEADER, HEADER_END) if token not in vocabulary]
    if missing:
        raise ValueError(f"the tokenizer has no {', '.join(missing)}: expected a Llama 3, 3.1 or 3.2 tokenizer.")
    tokenizer.pad_token, tokenizer.eos_token = PAD, END
    if not tokenizer.chat_template:
        tokenizer.chat_template = TEMPLATE
    return tokenizer


def plain(content: str) -> str:
    """Returns a content as it is rendered: stripped, and with no special token of its own making."""
    return content.strip().replace("<|", "< |")


def render(tokenizer, messages: list[dict], add_generation_prompt: bool = False) -> str:
    """Returns the conversation as the text the model reads, BOS included."""
    messages = [{**message, "content": plain(message["content"])} for message in messages]
    return tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=add_generation_prompt, date_string=DATE
    )


def _ids(tokenizer, rendered: str) -> list[int]:
    """Tokenizes rendered text: it brings its own special tokens, and its length is checked elsewhere."""
    return tokenizer(rendered, add_special_tokens=False, verbose=False)["input_ids"]


def encode_prompt(tokenizer, messages: list[dict] | str) -> list[int]:
    """Returns the token ids of a conversation that the assistant is to go on with, or of a plain text."""
    if isinstance(messages, str):
        return _ids(tokenizer, BEGIN + plain(messages))
    return _ids(tokenizer, render(tokenizer, messages, add_generation_prompt=True))


def fit(tokenizer, messages: list[dict], max_tokens: int) -> list[dict]:
    """Returns a conversation without its oldest turns, dropped whole, so that its prompt has at most `max_tokens`.

    The system message and the last message stay. Raises TooLong when those alone are longer.
    """
    system = [message for message in messages if message["role"] == "system"]
    rest = [message for message in messages if message["role"] != "system"]
    while len(encode_prompt(tokenizer, [*system, *rest])) > max_tokens:
        starts = [place for place, message in enumerate(rest) if message["role"] == "user" and place]
        if not starts:
            length = len(encode_prompt(tokenizer, [*system, *rest]))
            raise TooLong(f"the message has {length} tokens, at most {max_tokens} fit: make it shorter.")
        rest = rest[starts[0] :]
    return [*system, *rest]


def encode(tokenizer, row: dict) -> dict:
    """Returns `input_ids` and `labels` of a data row, equally long; never truncated.

    The labels are the assistant's turns with their <|eot_id|>, or all of a plain text; everything else is IGNORED.
    Turns are tokenized piece by piece where generation will start, so that training sees the very tokens that
    inference produces.
    Raises ValueError when the template does not continue its own prompt, or when nothing is left to learn.
    """
    if "text" in row:
        ids = _ids(tokenizer, BEGIN + plain(row["text"]) + END_OF_TEXT)
        return {"input_ids": ids, "labels": [IGNORED, *ids[1:]]}
    messages, ids, labels, read = row["messages"], [], [], ""
    for turn, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt = render(tokenizer, messages[:turn], add_generation_prompt=True)
        whole = render(tokenizer, messages[: turn + 1])
        if not prompt.startswith(read) or not whole.startswith(prompt) or not whole.endswith(END):
            raise ValueError(f"row {row['id']}: the chat template does not continue its own prompt up to {END}.")
        for piece, learnt in ((prompt[len(read) :], False), (whole[len(prompt) :], True)):
            tokens = _ids(tokenizer, piece)
            ids += tokens
            labels += tokens if learnt else [IGNORED] * len(tokens)
        read = whole
    if not ids:
        raise ValueError(f"row {row['id']} has no assistant turn: nothing to learn.")
    return {"input_ids": ids, "labels": labels}


def supervised(row: dict) -> str:
    """Returns the characters a data row is scored on: the assistant's turns, or the plain text."""
    return row.get("text") or "".join(m["content"] for m in row["messages"] if m["role"] == "assistant")


def supervised_text(tokenizer, example: dict) -> str:
    """Returns what the labels teach, decoded with special tokens: the cell to look at before training."""
    return tokenizer.decode([label for label in example["labels"] if label != IGNORED], skip_special_tokens=False)


def check_labels(tokenizer, rows: list[dict], examples: list[dict]) -> None:
    """Raises ValueError unless every example has one BOS, ends its labels with <|eot_id|> and teaches its answer."""
    begin, end, end_of_text = tokenizer.convert_tokens_to_ids([BEGIN, END, END_OF_TEXT])
    if tokenizer.pad_token_id in (end, None):
        raise ValueError(f"pad token and end token are both {END}: masking the pads would mask the end. Set {PAD}.")
    for row, example in zip(rows, examples, strict=True):
        learnt = [label for label in example["labels"] if label != IGNORED]
        if "text" in row:
            last, answers = end_of_text, plain(row["text"]) + END_OF_TEXT
        else:
            last, answers = end, "".join(plain(m["content"]) + END for m in row["messages"] if m["role"] == "assistant")
        if example["input_ids"].count(begin) != 1 or example["input_ids"][0] != begin:
            problem = f"{example['input_ids'].count(begin)} BOS tokens, expected one, at the start"
        elif learnt[-1] != last:
            wanted = tokenizer.convert_ids_to_tokens(last)
            problem = f"the last label is {tokenizer.convert_ids_to_tokens(learnt[-1])}, expected {wanted}"
        elif supervised_text(tokenizer, example) != answers:
            problem = f"the labels teach {supervised_text(tokenizer, example)!r}, expected {answers!r}"
        else:
            continue
        raise ValueError(f"row {row['id']}: {problem}. Look at the tokenizer's template.")


def collator(tokenizer):
    """Returns the collator that pads `input_ids` and `labels` to the longest row of a batch, labels with IGNORED."""
    from transformers import DataCollatorForSeq2Seq

    return DataCollatorForSeq2Seq(tokenizer, padding=True, label_pad_token_id=IGNORED)
