"""Names each word that the project has a better one for: one name per thing, in code, pages, plots, logs and docs.

python tools/check_words.py                 every text of the checkout
python tools/check_words.py PATH …          these files
python tools/check_words.py --rendered DIR  what a reader sees of the HTML pages below DIR, such as a run's folder

Prints `file:line: word → use` and exits 1 if there was one. A line that holds `words: ok` says what it says.
"""

import argparse
import ast
import io
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import regex

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = "words: ok"
SUFFIXES = {".py", ".md", ".yaml", ".yml", ".html", ".j2", ".toml", ".txt", ".js", ".cff", ".mplstyle"}
SKIPPED = {"tools/check_words.py", "tests/tools/test_check_words.py"}  # they hold the words
COMMENTS_ONLY = {  # the rest is what people write, not what the project writes
    "src/helpers/data/prompts.yaml",
    "src/helpers/language/care.yaml",
    "tests/language/crisis_held_out.yaml",
    "tests/language/crisis_later.yaml",
    "tests/language/crisis_unseen_1.yaml",
    "tests/language/crisis_unseen_2.yaml",
    "tests/language/crisis_unseen_3.yaml",
    "src/helpers/language/crisis_words.yaml",
    "tests/language/crisis_training.csv",
}
PLOTS = regex.compile(r"report|comparison|figures|notebooks/")  # paths where a figure is a plot
BARRIER, PLACEHOLDER = "¦", "×"  # what stands for code between two texts, and for a value in an f-string

UNIT = (
    r"(?:\b(?:tokens?|nats?|bits?|bytes?|rows?|repl(?:y|ies)|steps?|words|characters|notebooks?|epochs?|seconds?|minutes?"
    r"|hours?|[KMGT]i?B|[GT]?FLOPs?|[GT]FLOPS|arithmetic)|[\d×]\s?(?:s|ms|h))"
)
PER = (
    r"(?:useful |real |optimizer )?(?:token|GPU|card|device|step|reply|row|micro-batch|batch|epoch|session|process"
    r"|rank|second|minute|word|character|candidate|message|prompt)"
)
# "model card", "data card", and "the card" shortly after one of them
NO_CARD_BEFORE = r"(?<!\b(?i:model|data|dataset) )(?<!\b(?i:model|data) card\b(?s:.{0,400})\b(?i:the|this|its) )"


class Rule(NamedTuple):
    """Something said in a worse way: its pattern, where a space is any white space; what to write; an example."""

    pattern: str
    use: str
    example: str


RULES = [
    Rule(rf"{UNIT} an? {PER}\b(?! (?:time|pass)\b)", "per token, per GPU, per step", "peaks at 1.5 GiB a process"),
    Rule(r"\b(?:compute|cost|memory|time) an? useful token\b", "per useful token", "the compute a useful token takes"),
    Rule(r"\bprocess(?:es)? a (?:GPU|card)\b", "per GPU", "one process a GPU"),
    Rule(r"[\d×] an? (?:token|GPU|second|reply)\b", "per token, per GPU, per second", "costs 48 a token"),
    Rule(r"\bnumber formats?\b", "dtype", "in another number format"),
    Rule(r"\blearnt\b", "trained on", "the tokens that are learnt"),
    Rule(
        r"\bwhole checkpoints?\b|\bcheckpoints? (?:is|are) whole\b", "valid checkpoint", "its newest whole checkpoint"
    ),
    Rule(r"\bpassed over\b", "skipped", "the checkpoint is passed over"),
    Rule(
        r"\b(?:go|goes|going|went|gone) on\b(?! (?:the|an?|each|its|this|top)\b)",
        "resume, continue",
        "the same command goes on",
    ),
    Rule(r"\b(?:take|takes|taken|took) up again\b", "resume", "a run that is taken up again"),
    Rule(r"\bpric(?:e|es|ed|ing)\b", "estimate", "what the plan prices"),
    Rule(r"\bpredicted\b(?! (?:next|tokens?|labels?|class)\b)", "estimate, estimated hours", "4 hours predicted"),
    Rule(rf"{NO_CARD_BEFORE}\bcards?\b", "GPU; model card, data card", "split over two cards"),
    Rule(r"\buntuned\b", "base model", "the untuned model"),
    Rule(r"\brows that (?:are|were) scored\b", "held-out rows", "the rows that are scored"),
    Rule(r"\bfigures\b", "numbers, or what they are: scores, hours", "the figures of the benchmark"),
    Rule(r"\bHELD\b|\bPOSITIONS\b", "a constant's name says what it bounds", "as many rows as `HELD` allows"),
    Rule(r"\b[Rr]eference [A-E]\b", "the preset's name", "as reference C does"),
    Rule(r"\bmet with\b", "answered with", "the message is met with helplines"),
    Rule(r"\bno matter\b", "whichever, whatever", "no matter which machine"),
]
PATTERNS = [regex.compile(rule.pattern.replace(" ", r"\s+"), regex.MULTILINE) for rule in RULES]

THING = "what it is: score, rows, errors, lines"
NAMES = {
    **dict.fromkeys(("found", "said", "told", "one", "mine", "made"), THING),
    "figures": "numbers, or what they are: scores, hours",
    "price": "estimate",
    "judge": "llm_judge (a model that rates), on_rung (a callback), evaluation (settings)",
    "HELD": "what it bounds: GENERATION_TOKEN_BUDGET",
    "POSITIONS": "what it bounds: LOGITS_CHUNK_TOKENS",
}
FUNCTIONS: dict[str, str] = dict.fromkeys(
    ("agree", "checkpoint", "climb", "go_on", "plan"), "verb + object: estimate_hours"
)


class Finding(NamedTuple):
    """A word where it stands, and what to write instead."""

    path: str
    line: int
    word: str
    use: str


def blank(text: str, pattern: str, keep: int | None = None) -> str:
    """Returns a text with what the pattern matches, or all of it but one group, as blanks: offsets and lines stay."""

    def spaces(match: regex.Match) -> str:
        whole = regex.sub(r"\S", " ", match.group())
        if keep is None or match.group(keep) is None:
            return whole
        begin, end = (offset - match.start() for offset in match.span(keep))
        return whole[:begin] + match.group(keep) + whole[end:]

    return regex.sub(pattern, spaces, text, flags=regex.DOTALL | regex.IGNORECASE)


def python_prose(source: str) -> str:
    """Returns a Python source's comments and strings, each where it stands; what is between them is a barrier."""
    lines = source.splitlines(keepends=True)
    prose = [regex.sub(r"\S", BARRIER, line) for line in lines]
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        name = tokenize.tok_name[token.type]
        if name not in ("COMMENT", "STRING", "FSTRING_START", "FSTRING_MIDDLE", "FSTRING_END"):
            continue
        text = token.string
        if name == "STRING":
            opening = regex.match(r"\w*(\"\"\"|'''|\"|')", text)
            assert opening is not None, "a string begins with its quotes"
            if "f" in opening.group().lower():
                text = regex.sub(r"{[^{}\n]*}", lambda match: PLACEHOLDER * len(match.group()), text)
            quotes = len(opening[1])
            text = " " * opening.end() + text[opening.end() : -quotes] + " " * quotes
        elif name == "COMMENT":
            alone = not lines[token.start[0] - 1][: token.start[1]].strip()
            text = text.replace("#", " " if alone else BARRIER, 1)
        elif name != "FSTRING_MIDDLE":
            text = " " * len(text)
        first, column = token.start
        for number, part in enumerate(text.splitlines(keepends=True), first - 1):
            line, begin = prose[number], column if number == first - 1 else 0
            prose[number] = line[:begin] + part.rstrip("\n") + line[begin + len(part.rstrip("\n")) :]
    return "".join(prose)


def prose_of(path: str, text: str) -> str:
    """Returns what a file says in words, with code, markup and names of files blanked; offsets and lines stay."""
    if path.endswith(".py"):
        text = python_prose(text)
    elif path in COMMENTS_ONLY:
        text = blank(text, r"(?m)^[^#\n]*(?:#([^\n]*))?$", keep=1)
    elif ".html" in path:
        text = blank(text, r"<style\b.*?</style>")
        text = blank(text, r"<[a-z/!][^>]*?(?:(?:title|alt|aria-label|placeholder)=\"([^\">]*)\"[^>]*)?>", keep=1)
    elif path.endswith(".toml"):
        text = blank(text, r"(?m)^[^#\n]*(?:#([^\n]*))?$", keep=1)
    elif not path.endswith(".md"):
        text = blank(text, r"(?m)^\s*#")
    if ".html" in path or path.endswith(".j2"):
        text = blank(text, r"{{.*?}}|{%.*?%}")
    text = blank(text, r"<!-- exchange .*?<!-- /exchange")  # what people and a model write
    names = r"https?://\S+|\b\w+\.(?:py|ya?ml|html|md)\b|(?<=\])\([^)\s]*\)|`(?!(?-i:[A-Z])+`)[^`\s]+`"
    return blank(text, names)


def check_text(path: str, text: str, prose: str) -> Iterator[Finding]:
    """Yields what a text says in a worse way; `prose` is its part in words, of the same length."""
    lines = text.splitlines()
    for rule, pattern in zip(RULES, PATTERNS):
        if rule.pattern == r"\bfigures\b" and PLOTS.search(path):
            continue
        for match in pattern.finditer(prose):
            line = prose.count("\n", 0, match.start()) + 1
            if ALLOWED not in lines[line - 1]:
                yield Finding(path, line, " ".join(match.group().split()), rule.use)


def assigned_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yields each name that a module gives to a variable, an argument, an attribute, a class or a function."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()) | ast.arg(arg=name):
                yield name, node.lineno
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, node.lineno
            case ast.ExceptHandler(name=str(name)) | ast.alias(asname=str(name)) | ast.MatchAs(name=str(name)):
                yield name, node.lineno
            case ast.Call(func=ast.Name(id="SimpleNamespace"), keywords=keywords):
                yield from ((keyword.arg, keyword.value.lineno) for keyword in keywords if keyword.arg)


def check_names(path: str, source: str) -> Iterator[Finding]:
    """Yields the names of a Python source that do not say what they name."""
    lines, tree = source.splitlines(), ast.parse(source)
    functions = {
        (node.name, node.lineno) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    for name, line in assigned_names(tree):
        use = NAMES.get(name) or (FUNCTIONS.get(name) if (name, line) in functions else None)
        if use and ALLOWED not in lines[line - 1] and not (name == "figures" and PLOTS.search(path)):
            yield Finding(path, line, name, use)


def check_file(path: Path, name: str) -> list[Finding]:
    """Returns what a file has of the words, in the order of its lines; `name` is how the findings call it."""
    text = path.read_text(encoding="utf-8")
    findings = list(check_text(name, text, prose_of(name, text)))
    if name.endswith(".py"):
        findings += check_names(name, text)
    return sorted(findings, key=lambda finding: finding.line)


def check_page(path: Path) -> list[Finding]:
    """Returns what a rendered page shows of the words; code, and the replies and glosses on it, are left out."""
    text = path.read_text(encoding="utf-8")
    code = r"<(script|svg)\b.*?</\1>|class=\"highlight\b[^>]*>\s*<pre\b.*?</pre>"
    shown = blank(text, code + r"|<dl class=\"pair\".*?</dl>|<div class=\"gloss\".*?</div>")
    return sorted(check_text(str(path), text, prose_of("page.html", shown)), key=lambda finding: finding.line)


def texts() -> list[str]:
    """Returns the checkout's texts, by their paths in it: what git tracks or would."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    chosen = (name for name in sorted(set(listed)) if Path(name).suffix in SUFFIXES or Path(name).name == "Makefile")
    return [name for name in chosen if name not in SKIPPED and (ROOT / name).is_file()]


def main(arguments: list[str] | None = None) -> int:
    """Prints what there is of the words, in the checkout, in the files given or on rendered pages; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="files (default: the checkout's texts)")
    parser.add_argument("--rendered", type=Path, metavar="DIR", help="a folder whose HTML pages are read instead")
    chosen = parser.parse_args(arguments)
    if chosen.rendered:
        findings = [finding for page in sorted(chosen.rendered.rglob("*.html")) for finding in check_page(page)]
    else:
        files = [(path, str(path)) for path in chosen.paths] or [(ROOT / name, name) for name in texts()]
        findings = [finding for path, name in files for finding in check_file(path, name)]
    for path, line, word, use in findings:
        print(f"{path}:{line}: {word} → {use}")
    if findings:
        print(f"{len(findings)} to say in the project's words; a line that needs one as it is says `{ALLOWED}`")
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
