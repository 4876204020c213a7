"""The verdict of step 0: the first row of the decision table that holds, its reasons, and the commands that follow."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from typing import Any

from sizing.need.questions import BY_KEY, QUESTIONS, Answers
from sizing.need.table import FINE_TUNING_EXAMPLES, NOTES, ROWS, TEST_EXAMPLES, Verdict

SUMMARIES: dict[Verdict, str] = {
    "not-language": "No language model: this is not a task on text.",
    "rule": "No model: a rule does it.",
    "managed-service": "A managed service first: it needs no machine and no model of your own.",
    "smaller-model": "No large model: the smaller one is good enough.",
    "smaller-model-first": "A smaller model first: one of millions of parameters may do.",
    "not-yet": "Not yet: without examples of your own, nothing can be compared.",
    "llm": "A large language model is worth trying, the smallest that may do first.",
}


@dataclass(frozen=True, slots=True)
class Reason:
    """What one answer says. `decides`: the verdict follows from it; otherwise it bears on what to do next."""

    question: str
    given: str
    says: str
    decides: bool

    def to_json(self) -> dict[str, Any]:
        return {"question": self.question, "given": self.given, "says": self.says, "decides": self.decides}


@dataclass(frozen=True, slots=True)
class Step:
    """A command to run, and when. `ready`: it runs as it stands; otherwise it holds MODEL for the model chosen."""

    when: str
    command: str
    ready: bool = True

    def to_json(self) -> dict[str, Any]:
        return {"when": self.when, "command": self.command, "ready": self.ready}


@dataclass(frozen=True, slots=True)
class Assessment:
    """The verdict on a need, with the reasons for it and the commands that come next (at least one of each)."""

    answers: Answers
    verdict: Verdict
    reasons: tuple[Reason, ...]
    next: tuple[Step, ...]

    @property
    def summary(self) -> str:
        return SUMMARIES[self.verdict]

    def to_json(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "summary": self.summary,
            "reasons": [r.to_json() for r in self.reasons],
            "next": [s.to_json() for s in self.next],
            "answers": self.answers.to_json(),
        }


def _every(per_day: float) -> str:
    """How often a request comes, in words: `one every 17 s`."""
    rate = per_day / 86_400
    if rate >= 1:
        return f"{rate:,.0f} a second"
    seconds = 1 / rate
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"one every {seconds / size:,.0f} {unit}"
    return f"one every {seconds:,.0f} s"


# The opt-out: docs.aws.amazon.com/organizations/latest/userguide/orgs_manage_policies_ai-opt-out.html
_MAY_LEAVE = {
    "yes": "the texts may go to a managed service",
    "aws-only": "the texts may go to AWS's own services; an AI services opt-out policy keeps AWS from keeping them",
    "no": "the texts may not go to a managed service",
    "unknown": "make sure that the texts may go there",
}


def _words(a: Answers) -> dict[str, Any]:
    """What the texts of rows and notes are filled with."""
    return {
        "service": a.service.name if a.service else "a managed service",
        "feature": a.service.feature if a.service else "",
        "unserved": a.unserved_by,
        "may_leave": _MAY_LEAVE[a.data_may_leave],
        "smaller": a.of_task.smaller,
        "examples": a.examples,
        "test_examples": TEST_EXAMPLES,
        "fine_tuning_examples": f"{FINE_TUNING_EXAMPLES:,}",
        "points": f"±{98 / a.examples**0.5:.0f}" if a.examples else "±100",
        "every": _every(a.requests_per_day) if a.requests_per_day else "",
    }


def _again(a: Answers, **changed: Any) -> str:
    """`berth assess` with these answers, some of them changed."""
    revised = replace(a, **changed)
    plain = Answers(revised.task)
    words = ["berth", "assess"]
    for q in QUESTIONS:
        if q.key == "task" or getattr(revised, q.key) != getattr(plain, q.key):
            words += [q.flag, revised.given(q.key)]
    return shlex.join(words)


def _next(a: Answers, verdict: Verdict) -> tuple[Step, ...]:
    task = a.of_task.generative if verdict == "llm" else a.of_task.catalogue
    models = f"berth models --task {task} --licence business"
    load = [f" --task {task}"]
    if a.requests_per_day is not None:
        load.append(f" --requests-per-day {a.given('requests_per_day')}")
    if a.latency_seconds is not None:
        load.append(f" --latency {a.given('latency_seconds')}")
    price = Step("to price the model you choose", "berth size MODEL" + "".join(load), ready=False)
    if verdict == "llm":
        return Step("to see the open models that do it, smallest first", models), price
    if verdict in ("smaller-model", "smaller-model-first") and a.of_task.catalogue:
        steps = [Step("to see the small models that do it, smallest first", f"{models} --max-params 1B"), price]
        if verdict == "smaller-model-first":
            steps.append(Step("if it falls short on your examples", _again(a, smaller_model="not-good-enough")))
        return tuple(steps)
    if verdict == "managed-service":
        return (Step("if it falls short on your examples", _again(a, managed_service="not-good-enough")),)
    if verdict == "rule":
        return (Step("if the rule turns out not to do", _again(a, rule="no")),)
    if verdict == "not-yet":
        return (Step(f"once you have {TEST_EXAMPLES} examples", _again(a, examples=TEST_EXAMPLES)),)
    return (Step("when there is a task on text", "berth assess"),)


def settled(answers: Answers) -> bool:
    """Whether no further answer can change the verdict, so that nobody need be asked for one."""
    return answers.task == "none" or answers.rule == "yes"


def assess(answers: Answers) -> Assessment:
    """The verdict on `answers`: the first row of `ROWS` that holds, with what the other answers add to it.

    Total and deterministic: any answers have exactly one verdict, at least one deciding reason and one next step.
    """
    row = next(r for r in ROWS if r.when(answers))
    words = _words(answers)
    reasons = [Reason(key, answers.given(key), text.format(**words), decides=True) for key, text in row.because.items()]
    reasons += [
        Reason(note.question, answers.given(note.question), note.says.format(**words), decides=False)
        for note in NOTES
        if row.verdict in note.verdicts and note.question not in row.because and note.when(answers)
    ]
    order = list(BY_KEY)
    reasons.sort(key=lambda r: (not r.decides, order.index(r.question)))
    return Assessment(answers, row.verdict, tuple(reasons), _next(answers, row.verdict))
