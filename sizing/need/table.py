"""The decision table of step 0: rows that decide, and notes that bear on what comes next. Read by `verdict.py`.

The order of the rows is that of cost: what needs no model comes before a service that is paid by the request, that
before a model of millions of parameters, and that before one of billions. Nothing is recommended that could not be
compared: without a test set of one's own there is no verdict yet. Texts are templates, filled in by `verdict.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sizing.need.questions import Answers, services

Verdict = Literal["not-language", "rule", "managed-service", "smaller-model", "smaller-model-first", "not-yet", "llm"]
TEST_EXAMPLES = 100
"""The fewest examples to judge by: a share measured on n of them is known to within ±0.98/√n at 95 % confidence
(normal approximation of the binomial at its widest), which is 10 points for 100."""
FINE_TUNING_EXAMPLES = 1000
"""LIMA: 1,000 chosen examples fine-tune a 65B model well (Zhou et al. 2023, arXiv:2305.11206)."""
RARE_PER_DAY = 144
"""One request in ten minutes: a machine that takes minutes to start would mostly wait."""
QUICK_SECONDS = 1.0

Condition = Callable[[Answers], bool]


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the decision table: `because` says, for each answer that it rests on, what follows from it."""

    verdict: Verdict
    when: Condition
    because: dict[str, str]


def _may_use_services(a: Answers) -> bool:
    # Speech has no open model here to fall back on, so an open question about the data does not rule the service out.
    return a.data_may_leave in ("yes", "aws-only") or (a.task == "transcription" and a.data_may_leave == "unknown")


ROWS: tuple[Row, ...] = (
    Row(
        "not-language",
        lambda a: a.task == "none",
        {"task": "a language model reads and writes text; for anything else it is the wrong tool"},
    ),
    Row(
        "rule",
        lambda a: a.rule == "yes",
        {"rule": "what a rule does well enough costs nothing to run, answers at once, and can be explained"},
    ),
    Row(
        "managed-service",
        lambda a: a.managed_service == "good-enough" and a.data_may_leave != "no",
        {
            "managed_service": "{service} was tried and does it: keep it, no model of your own is needed",
            "data_may_leave": "{may_leave}",
        },
    ),
    Row(
        "smaller-model",
        lambda a: a.smaller_model == "good-enough",
        {"smaller_model": "a model of millions of parameters was tried and does it: a larger one only costs more"},
    ),
    Row(
        "not-language",
        lambda a: a.task == "transcription" and (a.managed_service == "not-good-enough" or a.data_may_leave == "no"),
        {
            "task": "speech becomes text with a speech model, which Berth does not size; "
            "assess what is to be done with the text",
            "data_may_leave": "{may_leave}",
        },
    ),
    Row(
        "not-yet",
        lambda a: a.examples is None,
        {"examples": "count them: {test_examples} are the fewest that tell one candidate from another"},
    ),
    Row(
        "not-yet",
        lambda a: a.examples is not None and a.examples < TEST_EXAMPLES,
        {
            "examples": "collect at least {test_examples}: on {examples} a candidate's score is known only to within "
            "{points} points, too little to choose by"
        },
    ),
    Row(
        "managed-service",
        lambda a: a.managed_service == "not-tried" and a.service is not None and _may_use_services(a),
        {
            "managed_service": "{service} does this ({feature}); try it on your examples before anything is built",
            "data_may_leave": "{may_leave}",
        },
    ),
    Row(
        "smaller-model-first",
        lambda a: a.smaller_model == "not-tried" and a.of_task.smaller != "",
        {"smaller_model": "{smaller} do this task; fine-tuned on your examples one may be enough, and runs for less"},
    ),
    Row(
        "llm",
        lambda a: a.of_task.smaller == "",
        {"task": "models of millions of parameters are not made for this; start with the smallest large one"},
    ),
    Row(
        "llm",
        lambda a: True,  # noqa: ARG005 (every row has the same signature; this one takes what is left)
        {"smaller_model": "a model of millions of parameters was tried and falls short"},
    ),
)


@dataclass(frozen=True, slots=True)
class Note:
    """What an answer says that decides nothing but bears on the next steps; shown with the `verdicts` it matters to."""

    question: str
    when: Condition
    says: str
    verdicts: tuple[Verdict, ...]


_TEXT_MODEL: tuple[Verdict, ...] = ("smaller-model", "smaller-model-first", "not-yet", "llm")
_LARGE: tuple[Verdict, ...] = ("not-yet", "llm")

NOTES: tuple[Note, ...] = (
    Note("rule", lambda a: a.rule == "unknown", "a rule or a template is the cheapest trial", _LARGE),
    Note(
        "task",
        lambda a: a.of_task.asked != "",
        "a large model does it as question answering: the prompt holds the text and what to find in it",
        ("llm",),
    ),
    Note("rule", lambda a: a.rule == "no", "a rule or a template will not do", ("smaller-model-first", "llm")),
    Note(
        "managed_service",
        lambda a: a.managed_service == "not-tried" and a.task not in services(),
        "Berth knows of no managed AWS service made for this, short of a large model's API",
        ("llm",),
    ),
    Note(
        "managed_service",
        lambda a: a.managed_service == "not-tried" and a.service is not None and a.data_may_leave == "no",
        "{service} does this ({feature}), but the texts may not go there",
        _TEXT_MODEL,
    ),
    Note(
        "managed_service",
        lambda a: a.managed_service == "not-good-enough",
        "{service} was tried and falls short",
        ("smaller-model-first", "llm"),
    ),
    Note(
        "managed_service",
        lambda a: a.managed_service == "good-enough" and a.data_may_leave == "no",
        "{service} would do, but the texts may not go there",
        _TEXT_MODEL,
    ),
    Note(
        "managed_service",
        lambda a: a.managed_service == "not-tried" and a.service is not None and a.data_may_leave == "unknown",
        "{service} does this ({feature}); worth a trial if the texts may go there",
        (*_TEXT_MODEL, "managed-service"),
    ),
    Note(
        "managed_service",
        lambda a: a.managed_service == "not-tried" and a.service is not None and _may_use_services(a),
        "{service} does this ({feature}); it is the first candidate to try on your examples",
        ("not-yet",),
    ),
    Note(
        "languages",
        lambda a: a.unserved_by != "" and a.managed_service == "not-tried",
        "{unserved} does not take all of these languages for this task",
        _TEXT_MODEL,
    ),
    Note(
        "data_may_leave",
        lambda a: a.data_may_leave == "yes",
        "a closed model's API (ChatGPT and the like) is an option as well; compare its price with that of `berth size`",
        ("llm",),
    ),
    Note(
        "data_may_leave",
        lambda a: a.data_may_leave in ("no", "aws-only"),
        "a third party's API is out: open weights on your own machines",
        ("llm",),
    ),
    Note(
        "data_may_leave",
        lambda a: a.data_may_leave == "unknown",
        "ask before a text is sent to anyone; open weights on your own machines are safe either way",
        ("llm",),
    ),
    Note(
        "examples",
        lambda a: a.examples is not None and a.examples >= FINE_TUNING_EXAMPLES,
        "enough to fine-tune: keep {test_examples} or more aside to test with, train on the rest",
        _TEXT_MODEL,
    ),
    Note(
        "examples",
        lambda a: a.examples is not None and TEST_EXAMPLES <= a.examples < FINE_TUNING_EXAMPLES,
        "enough to test with and to show in a prompt; collect about {fine_tuning_examples} before fine-tuning",
        _TEXT_MODEL,
    ),
    Note(
        "languages",
        lambda a: any(code.split("-")[0] != "en" for code in a.languages),
        "most open models were trained on English first: take one that names these languages",
        ("smaller-model", "smaller-model-first", "llm"),
    ),
    Note(
        "requests_per_day",
        lambda a: a.requests_per_day is not None and a.requests_per_day < RARE_PER_DAY,
        "{every}: an always-on machine would mostly wait; compare starting on demand, batch and asynchronous endpoints",
        ("llm", "smaller-model", "smaller-model-first"),
    ),
    Note(
        "requests_per_day",
        lambda a: a.requests_per_day is not None and a.requests_per_day >= RARE_PER_DAY,
        "{every} on average, more at the peak",
        ("llm", "smaller-model", "smaller-model-first"),
    ),
    Note(
        "latency_seconds",
        lambda a: a.latency_seconds is not None and a.latency_seconds < QUICK_SECONDS and a.of_task.generates,
        "answers are written token by token, each after reading all the weights: under a second means few tokens or a "
        "small model",
        ("llm", "smaller-model", "smaller-model-first"),
    ),
)
