"""What a tokenizer's own chat template puts around messages, read off a rendered probe conversation."""

import datetime
import re
from dataclasses import dataclass
from typing import Any

from helpers.models.families import FAMILIES, Family

Tokenizer = Any  # transformers.PreTrainedTokenizerBase, whose own annotations are unions that every caller must narrow
Messages = list[dict[str, str]]  # a conversation: [{"role", "content"}, …]

DAY = datetime.date(2024, 7, 26)  # that templates print in place of today
TODAY = re.compile(r"""strftime_now\(\s*(["'])((?:(?!\1)[^\\])*)\1\s*\)""")  # of a format that stands there
DIRECTIVES = {f"%{letter}": f"{DAY:%{letter}}" for letter in "aAbBdjmyYHIMSp"}  # in a format that a template makes
DIRECTIVES |= {  # without zeros in front, as Linux or Windows writes it
    f"%{flag}{letter}": DIRECTIVES[f"%{letter}"].lstrip("0") or "0" for flag in "-#" for letter in "djmyHIMS"
}
FIRST = {  # what stands before a template in which a pattern is found: also for whoever uses an export
    r"enable_thinking": "{% set enable_thinking = false %}",
    r"date_string": f'{{% set date_string = "{DAY:%d %b %Y}" %}}',
    r"strftime_now(?! is\b)": "{% macro strftime_now(format) %}{{ format"
    + "".join(f"|replace('{directive}', '{text}')" for directive, text in DIRECTIVES.items())
    + " }}{% endmacro %}",
}
EVERY_TURN = {  # where a template leaves the empty think block out of earlier answers: it then repeats its own prompts
    "loop.index0 > ns.last_query_index": "true",
    "loop.last or (not loop.last and reasoning_content)": "true",
}
TEXT_ENDS = ("<|end_of_text|>", "<|endoftext|>", "<eos>", "</s>")  # of a plain text, where the end token is a turn's
UNUSED = ("pad", r"reserved|unused|control_\d|extra_id|placeholder")  # in the names of tokens that are free to pad with
MARKER = r"<+[^<>\s]+>+|\[/?[A-Z_]+\]"  # what templates mark turns with, whether it is a token or text
SYSTEM, USER, ANSWER, NEXT = "⓪①②③"  # contents of the probe


@dataclass(frozen=True)
class ChatFormat:
    """How a tokenizer's conversations begin, end and are padded. Tokens are texts, not ids."""

    begin: str  # BOS, "" where the template writes none
    end: str  # of an answer
    end_of_text: str  # of a plain text
    pad: str  # none of the others: with pad = end, a collator that masks pads also masks the end token
    lead: str  # white space between prompt and answer
    folds_system: bool  # no system role: the system text stands at the start of the first user turn
    markers: re.Pattern[str]  # begins of special tokens and of what marks turns, in a message's text

    @property
    def text_begin(self) -> str:
        """The token before a plain text: BOS, or what ended the text before where there is none."""
        return self.begin or self.end_of_text


def choose_template(tokenizer: Tokenizer) -> str:
    """Returns the tokenizer's own chat template with thinking switched off and a fixed date, or that of the first
    family whose tokens it has; the last one marks turns in plain text and needs none.

    Raises ValueError for a tokenizer with neither template nor end token.
    """
    template = tokenizer.chat_template
    if isinstance(template, dict):  # several, by name
        template = template.get("default")
    if not template:
        template = _find_family(tokenizer).template
        if "eos_token" in template and not tokenizer.eos_token:
            raise ValueError("the tokenizer has neither a chat template nor an end token: take another base model.")
    template = TODAY.sub(lambda call: repr(DAY.strftime(call[2])), template)
    for pattern, first in FIRST.items():
        if re.search(pattern, template) and first not in template:
            template = first + template
    for written, needed in EVERY_TURN.items():
        template = template.replace(written, needed)
    return template


def apply_template(tokenizer: Tokenizer, messages: Messages, add_generation_prompt: bool = False) -> str:
    """Returns messages as the template renders them. Raises jinja2.TemplateError where it refuses."""
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt)


def fold_system(messages: Messages) -> Messages:
    """Returns messages with the system text at the start of the first user turn, a blank line between them."""
    if len(messages) < 2 or [message["role"] for message in messages[:2]] != ["system", "user"]:
        return messages
    system, first, *rest = messages
    return [{**first, "content": f"{system['content']}\n\n{first['content']}"}, *rest]


def read_format(tokenizer: Tokenizer) -> ChatFormat:
    """Returns the format of a tokenizer whose `chat_template` is chosen.

    Raises ValueError, with the reason, where training could not teach exactly the answers and their end token.
    """
    talk = [{"role": "user", "content": USER}, {"role": "assistant", "content": ANSWER}]
    prompt, answered = apply_template(tokenizer, talk[:1], True), apply_template(tokenizer, talk)
    if not answered.startswith(prompt):
        raise ValueError("the chat template does not continue its own prompt: take a base model with another one.")
    lead, answer, tail = answered[len(prompt) :].partition(ANSWER)
    if not answer or lead.strip():
        raise ValueError(
            f"the chat template puts {lead!r} between prompt and answer, such as a think block that cannot be "
            f"switched off: take a base model that answers at once."
        )
    vocabulary, end = tokenizer.get_vocab(), tail.rstrip()
    if end not in vocabulary:
        raise ValueError(f"the chat template puts {tail!r} after an answer: expected one token that ends it.")
    probe = apply_template(tokenizer, [*talk, {"role": "user", "content": NEXT}], True)
    begin, eos, own = tokenizer.bos_token or "", tokenizer.eos_token or end, _find_family(tokenizer).special_tokens
    if eos == end:
        eos = next((token for token in (own.get("end_of_text", ""), *TEXT_ENDS) if token in vocabulary), end)
    return ChatFormat(
        begin=begin if begin and probe.startswith(begin) and probe.count(begin) == 1 else "",
        end=end,
        end_of_text=eos,
        pad=_choose_pad(tokenizer, own.get("pad", ""), probe, {end, eos}),
        lead=lead,
        folds_system=not _keeps_system(tokenizer),
        markers=_compile_markers(tokenizer, probe),
    )


def _find_family(tokenizer: Tokenizer) -> Family:
    """Returns the first family all of whose special tokens, but for the pad token, are in the vocabulary."""
    vocabulary = tokenizer.get_vocab()
    for family in FAMILIES.values():
        if all(token in vocabulary for name, token in family.special_tokens.items() if name != "pad"):
            return family
    raise AssertionError("the last family has no special tokens of its own")


def _choose_pad(tokenizer: Tokenizer, known: str, probe: str, ends: set[str]) -> str:
    """Returns the pad token: the family's, the tokenizer's own if it ends nothing, else one that nothing else uses."""
    vocabulary, added = tokenizer.get_vocab(), tokenizer.get_added_vocab()
    if known in vocabulary:
        return known
    if tokenizer.pad_token and tokenizer.pad_token not in ends:
        return tokenizer.pad_token
    free = [token for token in sorted(added, key=added.__getitem__) if token not in ends and token not in probe]
    for name in UNUSED:
        for token in free:
            if re.search(name, token, re.IGNORECASE):
                return token
    if tokenizer.unk_token and tokenizer.unk_token not in ends:
        return tokenizer.unk_token
    raise ValueError(
        f"the tokenizer's pad token {tokenizer.pad_token} is an end token or none, and its vocabulary has no unused, "
        f"reserved or unknown token to pad with. With pad = end the model never learns to stop: take another one."
    )


def _keeps_system(tokenizer: Tokenizer) -> bool:
    """Returns whether the template writes a system text once, before the first turn, and leaves it there."""
    import jinja2

    roles = (("system", SYSTEM), ("user", USER), ("assistant", ANSWER), ("user", NEXT))
    talk = [{"role": role, "content": content} for role, content in roles]
    try:
        first, later = apply_template(tokenizer, talk[:2], True), apply_template(tokenizer, talk, True)
    except jinja2.TemplateError:
        return False
    return later.startswith(first) and -1 < first.find(SYSTEM) < first.find(USER)


def _compile_markers(tokenizer: Tokenizer, probe: str) -> re.Pattern[str]:
    """Returns what finds the first character of a special token or of a mark of turns in a text.

    A token such as <|im_end|> is found at its <|, whatever follows; any other where all of it stands. Tokens that were
    only added to the vocabulary, such as Gemma's <b>, are ordinary text unless the template writes them.
    """
    added = tokenizer.added_tokens_decoder.values()
    tokens = {str(token) for token in added if token.special or str(token) in tokenizer.chat_template}
    tokens |= {*tokenizer.all_special_tokens, *re.findall(MARKER, probe)}
    starts = {"<|" if token.startswith("<|") else token for token in tokens}
    named = sorted(start for start in starts if len(start) > 1 and not start.isalnum() and not start.isspace())
    return re.compile("|".join(f"{re.escape(start[0])}(?={re.escape(start[1:])})" for start in named) or "(?!)")
