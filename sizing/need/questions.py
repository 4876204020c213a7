"""The questions of step 0: what is asked, what may be answered, and how an answer is read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from sizing.errors import UserError, unknown
from sizing.tables import read_rows

YesNo = Literal["yes", "no", "unknown"]
Tried = Literal["good-enough", "not-good-enough", "not-tried"]
MayLeave = Literal["yes", "aws-only", "no", "unknown"]
"""Whether texts may leave the account: to anyone's service, to AWS's own services only, or not at all."""


@dataclass(frozen=True, slots=True)
class Task:
    """Something people do with text. `smaller` names the families of millions of parameters that do it, "" for none."""

    name: str
    smaller: str = ""
    generates: bool = True
    """The answer is text, written token by token."""
    catalogue: str = ""
    """What `berth models --task` calls it; empty: the catalogue holds no models for it."""
    asked: str = ""
    """What `berth models --task` calls it when a model that generates is to do it, where that differs."""

    @property
    def generative(self) -> str:
        return self.asked or self.catalogue


_ENCODERS = "BERT, RoBERTa, DeBERTa or DistilBERT"
TASKS: dict[str, Task] = {
    t.name: t
    for t in (
        Task("summarization", "BART, Pegasus or the small FLAN-T5 models", catalogue="summarization"),
        Task("translation", "T5, mT0 or other encoder-decoder models", catalogue="translation"),
        Task(
            "qa",
            "the small FLAN-T5 models, or an encoder such as BERT that marks the answer in a passage,",
            catalogue="qa",
        ),
        Task("sentiment", _ENCODERS, generates=False, catalogue="sentiment", asked="qa"),
        Task("classification", _ENCODERS, generates=False, catalogue="classification", asked="qa"),
        Task("extraction", _ENCODERS, generates=False, catalogue="classification", asked="qa"),
        Task("chat", catalogue="chat"),
        Task("code", catalogue="code"),
        Task("writing", catalogue="chat"),
        Task("transcription"),
        Task("none", generates=False),
    )
}


@dataclass(frozen=True, slots=True)
class Service:
    """A managed AWS service that does a task. `languages` empty: its own list is too long or too changeable to copy."""

    task: str
    name: str
    feature: str
    languages: tuple[str, ...]
    source: str
    as_of: str

    def covers(self, languages: tuple[str, ...]) -> bool:
        """Whether it takes every language asked for; a regional variant (`pt-BR`) is covered by its language."""
        known = set(self.languages)
        return not known or all(code in known or code.split("-")[0] in known for code in languages)


SERVICE_COLUMNS = ("task", "service", "feature", "languages", "source", "as_of")


@cache
def services() -> dict[str, Service]:
    """The managed services by task, from `services.csv`. Raises `UserError` where it is damaged."""
    path = Path(__file__).with_name("services.csv")
    return {
        row.text("task"): Service(
            row.text("task"),
            row.text("service"),
            row.text("feature"),
            tuple(row.cells["languages"].split()),
            row.text("source"),
            row.date("as_of"),
        )
        for row in read_rows(path, SERVICE_COLUMNS)
    }


@dataclass(frozen=True, slots=True)
class Answers:
    """What is known of the need. Every default means "not known", and is treated so.

    `examples`: pairs of input and right answer of one's own. `requests_per_day`, `latency_seconds`: the load and the
    longest wait that is fine. `languages`: ISO 639 codes.
    """

    task: str
    rule: YesNo = "unknown"
    data_may_leave: MayLeave = "unknown"
    managed_service: Tried = "not-tried"
    smaller_model: Tried = "not-tried"
    examples: int | None = None
    languages: tuple[str, ...] = ()
    requests_per_day: float | None = None
    latency_seconds: float | None = None

    @property
    def of_task(self) -> Task:
        return TASKS[self.task]

    @property
    def service(self) -> Service | None:
        """The managed service that does this task in these languages."""
        service = services().get(self.task)
        return service if service and service.covers(self.languages) else None

    @property
    def unserved_by(self) -> str:
        """Name of the managed service that does this task but not in all these languages, "" where there is none."""
        service = services().get(self.task)
        return service.name if service and not service.covers(self.languages) else ""

    def given(self, key: str) -> str:
        """The answer to the question `key` as the command line takes it; "unknown" where there is none."""
        value = getattr(self, key)
        if isinstance(value, tuple):
            return ",".join(value) or "unknown"
        if value is None:
            return "unknown"
        return f"{value:.12g}" if isinstance(value, float) else str(value)

    def to_json(self) -> dict[str, Any]:
        values = {q.key: getattr(self, q.key) for q in QUESTIONS}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


@dataclass(frozen=True, slots=True)
class Question:
    """One question. `key` is its name in an answers file; `choices` are the allowed words, None for free answers."""

    key: str
    flag: str
    ask: str
    help: str
    kind: Literal["choice", "count", "number", "languages"] = "choice"
    choices: tuple[str, ...] = ()
    metavar: str = "WORD"


QUESTIONS: tuple[Question, ...] = (
    Question(
        "task",
        "--task",
        "What should be done with the text?",
        f"What should be done: {', '.join(TASKS)} (nothing with text).",
        choices=tuple(TASKS),
    ),
    Question(
        "rule",
        "--rule",
        "Would a rule, a regular expression or a template do it well enough?",
        "Would a rule, a regular expression or a template do: yes, no, unknown.",
        choices=("yes", "no", "unknown"),
    ),
    Question(
        "data_may_leave",
        "--data-may-leave",
        "May the texts leave your account: yes (to a third party's API), aws-only (to AWS's managed services), no?",
        "May the texts leave the account: yes (to a third party's API), aws-only (to managed services), no, unknown.",
        choices=("yes", "aws-only", "no", "unknown"),
    ),
    Question(
        "managed_service",
        "--managed-service",
        "Was a managed service (Amazon Comprehend, Translate, Transcribe …) tried, and how did it do?",
        "How a managed service (Comprehend, Translate, Transcribe …) did: good-enough, not-good-enough, not-tried.",
        choices=("good-enough", "not-good-enough", "not-tried"),
    ),
    Question(
        "smaller_model",
        "--smaller-model",
        "Was a smaller model (millions of parameters, BERT's size) tried, and how did it do?",
        "How a model of millions of parameters (BERT's size) did: good-enough, not-good-enough, not-tried.",
        choices=("good-enough", "not-good-enough", "not-tried"),
    ),
    Question(
        "examples",
        "--examples",
        "How many examples of your own have you (an input and its right answer each)?",
        "How many examples of your own there are, each an input and its right answer.",
        kind="count",
        metavar="N",
    ),
    Question(
        "languages",
        "--languages",
        "Which languages (ISO codes, such as en,de)?",
        "Languages of the texts as ISO 639 codes with commas between, such as en,de.",
        kind="languages",
        metavar="CODES",
    ),
    Question(
        "requests_per_day",
        "--requests-per-day",
        "How many requests a day?",
        "Requests a day.",
        kind="number",
        metavar="N",
    ),
    Question(
        "latency_seconds",
        "--latency",
        "Within how many seconds must an answer come?",
        "The longest wait for an answer that is fine, in seconds.",
        kind="number",
        metavar="SECONDS",
    ),
)
BY_KEY: dict[str, Question] = {q.key: q for q in QUESTIONS}

_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Z][A-Za-z]{1,3})?")
_MOST = 1e12
"""More examples or requests a day than there are: a slip of the keyboard."""


def _refuse(question: Question, given: Any, allowed: str) -> UserError:
    own_flag = question.flag == "--" + question.key.replace("_", "-")
    name = question.key if own_flag else f"{question.key} ({question.flag})"
    return UserError(f"{name} is {given!r}; {allowed}")


def _number(question: Question, given: Any) -> float:
    if isinstance(given, str):
        try:
            value = float(given.strip().replace(",", "").replace("_", ""))
        except ValueError:
            raise _refuse(question, given, "it must be a number") from None
    elif isinstance(given, (int, float)) and not isinstance(given, bool):
        value = float(given) if abs(given) <= _MOST else math.inf
    else:
        raise _refuse(question, given, "it must be a number")
    if not 0 <= value <= _MOST:  # not a number compares false
        raise _refuse(question, given, f"it must be between 0 and {_MOST:,.0f}")
    return value


def _languages(question: Question, given: Any) -> tuple[str, ...]:
    codes = re.split(r"[,\s]+", given.strip()) if isinstance(given, str) else given
    if not isinstance(codes, list) or not all(isinstance(c, str) for c in codes):
        raise _refuse(question, given, "it must be ISO 639 codes, such as en,de")
    for code in codes:
        if not _LANGUAGE.fullmatch(code):
            raise _refuse(question, code, "languages are ISO 639 codes with commas between, such as en,de or pt-BR")
    return tuple(dict.fromkeys(codes))


def read_answer(question: Question, given: Any) -> Any:
    """The value of an answer as a file, a flag or a person gives it. Raises `UserError` naming what is allowed.

    "unknown", "" and null mean that there is no answer, wherever the question allows that (all but the task).
    """
    if question.key != "task" and (
        given is None or (isinstance(given, str) and given.strip().lower() in ("", "unknown"))
    ):
        return Answers.__dataclass_fields__[question.key].default
    if question.kind == "languages":
        return _languages(question, given)
    if question.kind == "number":
        value = _number(question, given)
        if value == 0:
            raise _refuse(question, given, "it must be more than 0")
        return int(value) if value.is_integer() else value
    if question.kind == "count":
        value = _number(question, given)
        if value != int(value):
            raise _refuse(question, given, "it must be a whole number")
        return int(value)
    if isinstance(given, bool):
        given = "yes" if given else "no"
    word = given.strip().lower() if isinstance(given, str) else given
    if word not in question.choices:
        raise _refuse(question, given, f"allowed: {', '.join(question.choices)}")
    return word


def read_answers(given: Mapping[str, Any]) -> Answers:
    """`Answers` from the keys and values of an answers file or of flags. Raises `UserError` for what is not allowed."""
    for key in given:
        if key not in BY_KEY:
            raise unknown("question", str(key), BY_KEY, hint=f"known: {', '.join(BY_KEY)}")
    if given.get("task") is None:
        raise UserError(f"task is missing; say what should be done: {', '.join(TASKS)}")
    return Answers(**{key: read_answer(BY_KEY[key], value) for key, value in given.items()})
