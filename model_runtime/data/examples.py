"""What one example is, in each form that a task takes, and how a row of a file becomes one."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from model_runtime.errors import ModelError

Form = Literal["seq2seq", "causal", "chat", "classification"]
"""seq2seq: `input` and `target`; causal: `text`; chat: `messages`; classification: `text` and `label`."""
FORMS: tuple[Form, ...] = get_args(Form)
COLUMNS: dict[Form, tuple[str, ...]] = {
    "seq2seq": ("input", "target"),
    "causal": ("text",),
    "chat": ("messages",),
    "classification": ("text", "label"),
}
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Message:
    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Example:
    """`line` is the example's place in its file, from 1 (a CSV's header is line 1). A causal example's text is its
    `target`, a classification's label is; a chat's messages stand in `messages` alone."""

    line: int
    form: Form
    input: str = ""
    target: str = ""
    messages: tuple[Message, ...] = ()

    @property
    def asked(self) -> str:
        """What the model is given: the text by which examples count as the same."""
        if self.form == "chat":
            last = max(i for i, m in enumerate(self.messages) if m.role == "assistant")
            return "\n".join(f"{m.role}: {m.content}" for m in self.messages[:last])
        return self.target if self.form == "causal" else self.input

    @property
    def answer(self) -> str:
        """What the model is to say; empty for plain text."""
        if self.form == "chat":
            return next(m.content for m in reversed(self.messages) if m.role == "assistant")
        return "" if self.form == "causal" else self.target

    @property
    def whole(self) -> str:
        """All text of the example."""
        if self.form == "chat":
            return "\n".join(m.content for m in self.messages)
        return f"{self.input}\n{self.target}" if self.input else self.target


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a row. An `error` keeps it out of training; a `warning` is for a person to judge."""

    line: int
    kind: str
    message: str
    severity: Literal["error", "warning"] = "error"

    def to_json(self) -> dict[str, Any]:
        return {"line": self.line, "kind": self.kind, "severity": self.severity, "message": self.message}


def normalised(text: str) -> str:
    """`text` without case, punctuation and differences of white space: what two copies of an example share."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    kept = "".join(c if c.isalnum() else " " for c in folded)
    return " ".join(kept.split()) or " ".join(folded.split())


def column_names(given: Iterable[str]) -> dict[str, str]:
    """`["input=article"]` as {"input": "article"}. Raises `ModelError` for anything else."""
    known = sorted({name for names in COLUMNS.values() for name in names})
    found = {}
    for pair in given:
        name, equals, column = pair.partition("=")
        if not equals or not column or name not in known:
            raise ModelError(f"column {pair!r} is not NAME=COLUMN with NAME one of {', '.join(known)}")
        found[name] = column
    return found


def form_of(columns: Iterable[str], names: Mapping[str, str], where: str) -> Form:
    """The form whose columns are there. Raises `ModelError` naming what each form needs."""
    there = set(columns)
    for form in ("seq2seq", "classification", "chat", "causal"):
        if all(names.get(name, name) in there for name in COLUMNS[form]):
            return form
    needs = "; ".join(f"{form}: {', '.join(names.get(n, n) for n in cols)}" for form, cols in COLUMNS.items())
    shown = ", ".join(sorted(map(str, there))[:12]) or "none"
    raise ModelError(f"{where} has the columns {shown}; a form needs its own ({needs}); name others with NAME=COLUMN")


def example_of(row: Mapping[str, Any], line: int, form: Form, names: Mapping[str, str]) -> Example | Problem:
    """The example in `row`, or why it is none."""
    values = {}
    for name in COLUMNS[form]:
        column = names.get(name, name)
        if column not in row or row[column] is None:
            return Problem(line, "missing", f"{column} is missing")
        values[name] = row[column]
    if form == "chat":
        return _chat(values["messages"], line, names.get("messages", "messages"))
    texts = {}
    for name, value in values.items():
        column = names.get(name, name)
        if name == "label" and isinstance(value, int) and not isinstance(value, bool):
            value = str(value)  # noqa: PLW2901
        if not isinstance(value, str):
            return Problem(line, "type", f"{column} is {type(value).__name__}, not text")
        if not value.strip():
            return Problem(line, "empty", f"{column} is empty")
        if any(0xD800 <= ord(c) <= 0xDFFF for c in value):
            return Problem(line, "unicode", f"{column} holds half of a surrogate pair, which is no text")
        texts[name] = value
    if form == "seq2seq":
        return Example(line, form, texts["input"], texts["target"])
    if form == "classification":
        return Example(line, form, texts["text"], texts["label"].strip())
    return Example(line, form, target=texts["text"])


def _chat(value: Any, line: int, column: str) -> Example | Problem:
    if not isinstance(value, list) or not value:
        return Problem(line, "type", f"{column} is no list of messages")
    found = []
    for i, message in enumerate(value):
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            return Problem(line, "type", f"{column}[{i}] is no object with role and content")
        role, content = message["role"], message["content"]
        if role not in ROLES:
            return Problem(line, "role", f"{column}[{i}].role is {role!r}; one of {', '.join(ROLES)}")
        if not isinstance(content, str):
            return Problem(line, "type", f"{column}[{i}].content is {type(content).__name__}, not text")
        if not content.strip():
            return Problem(line, "empty", f"{column}[{i}].content is empty")
        found.append(Message(role, content))
    if not any(m.role == "assistant" for m in found[1:]):
        return Problem(line, "role", f"{column} holds no answer of the assistant to learn")
    return Example(line, "chat", messages=tuple(found))
