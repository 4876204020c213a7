"""Step 0: the decision table is total, deterministic, traceable, and says what the process says."""

from __future__ import annotations

import shlex
from dataclasses import replace
from itertools import product
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sizing.errors import UserError
from sizing.need.questions import BY_KEY, QUESTIONS, TASKS, Answers, read_answers, services
from sizing.need.table import TEST_EXAMPLES, Verdict
from sizing.need.verdict import SUMMARIES, assess, settled

CHOICES = {q.key: q.choices for q in QUESTIONS if q.choices}
ANSWERS = st.builds(
    Answers,
    **{key: st.sampled_from(choices) for key, choices in CHOICES.items()},
    examples=st.none() | st.integers(0, 10**7),
    languages=st.lists(st.sampled_from(["en", "de", "pt-BR", "zh", "xh"]), unique=True, max_size=3).map(tuple),
    requests_per_day=st.none() | st.floats(1e-3, 1e9),
    latency_seconds=st.none() | st.floats(1e-3, 1e5),
)

SUPPORT_TICKETS = Answers(
    task="summarization",
    rule="no",
    data_may_leave="no",
    smaller_model="not-good-enough",
    examples=3000,
    languages=("en", "de"),
    requests_per_day=5000,
    latency_seconds=5,
)


@given(ANSWERS)
def test_any_answers_have_one_verdict_with_a_deciding_reason_and_a_next_step(answers: Answers) -> None:
    assessment = assess(answers)

    assert assessment.verdict in get_args(Verdict)
    assert any(reason.decides for reason in assessment.reasons)
    assert assessment.next
    assert assess(answers) == assessment


@given(ANSWERS)
def test_every_reason_names_one_question_and_the_answer_that_was_given(answers: Answers) -> None:
    for reason in assess(answers).reasons:
        assert reason.given == answers.given(reason.question)
        assert reason.says
        assert "{" not in reason.says


def test_no_combination_of_words_is_left_without_a_verdict() -> None:
    seen: set[str] = set()
    for words in product(*CHOICES.values()):
        for examples in (None, 0, TEST_EXAMPLES - 1, TEST_EXAMPLES, 10_000):
            seen.add(assess(Answers(**dict(zip(CHOICES, words, strict=True)), examples=examples)).verdict)
    assert seen == set(SUMMARIES), "every verdict can be reached, and none is without its summary"


@given(ANSWERS)
def test_a_reason_is_traceable_by_putting_the_answers_through_their_own_flags(answers: Answers) -> None:
    given_again = {q.key: answers.given(q.key) for q in QUESTIONS if answers.given(q.key) != "unknown"}
    read = read_answers(given_again)
    assert assess(read).verdict == assess(answers).verdict


@given(ANSWERS)
def test_texts_that_may_not_leave_are_never_sent_to_a_service(answers: Answers) -> None:
    assert assess(replace(answers, data_may_leave="no")).verdict != "managed-service"


@given(ANSWERS)
def test_without_a_test_set_no_model_is_recommended(answers: Answers) -> None:
    few = replace(answers, examples=TEST_EXAMPLES - 1)
    assert assess(few).verdict not in ("llm", "smaller-model-first")


@given(ANSWERS)
def test_a_large_model_only_where_what_is_cheaper_is_ruled_out(answers: Answers) -> None:
    if assess(answers).verdict == "llm":
        assert answers.rule != "yes"
        assert answers.task not in ("none", "transcription")
        assert answers.smaller_model == "not-good-enough" or not TASKS[answers.task].smaller


@given(ANSWERS)
def test_a_settled_need_stays_as_it_is_whatever_else_is_answered(answers: Answers) -> None:
    if settled(answers):
        assert assess(answers).verdict == assess(Answers(task=answers.task, rule=answers.rule)).verdict


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [
        ({}, "llm"),
        ({"task": "none"}, "not-language"),
        ({"rule": "yes"}, "rule"),
        ({"smaller_model": "good-enough"}, "smaller-model"),
        ({"smaller_model": "not-tried"}, "smaller-model-first"),
        ({"examples": 0}, "not-yet"),
        ({"examples": None}, "not-yet"),
        ({"task": "translation", "data_may_leave": "aws-only"}, "managed-service"),
        ({"task": "translation", "data_may_leave": "aws-only", "managed_service": "not-good-enough"}, "llm"),
        # Amazon Translate has no Xhosa.
        ({"task": "translation", "data_may_leave": "aws-only", "languages": ("en", "xh")}, "llm"),
        ({"managed_service": "good-enough", "data_may_leave": "yes"}, "managed-service"),
        ({"task": "chat", "smaller_model": "not-tried"}, "llm"),
        ({"task": "transcription", "data_may_leave": "aws-only"}, "managed-service"),
        ({"task": "transcription"}, "not-language"),
    ],
)
def test_the_support_tickets_and_what_changes_their_verdict(changed: dict[str, Any], verdict: str) -> None:
    assert assess(replace(SUPPORT_TICKETS, **changed)).verdict == verdict


def test_the_next_commands_carry_the_load_that_was_given() -> None:
    commands = [step.command for step in assess(SUPPORT_TICKETS).next]
    assert commands == [
        "berth models --task summarization --licence business",
        "berth size MODEL --task summarization --requests-per-day 5000 --latency 5",
    ]


@given(ANSWERS)
def test_asking_again_as_proposed_gets_past_the_verdict(answers: Answers) -> None:
    """A proposed `berth assess …` is understood, and following it changes what decides."""
    assessment = assess(answers)
    for step in assessment.next:
        words = shlex.split(step.command)
        if words[:2] == ["berth", "assess"] and len(words) > 2:
            flags = dict(zip(words[2::2], words[3::2], strict=True))
            revised = read_answers({q.key: flags[q.flag] for q in QUESTIONS if q.flag in flags})
            deciding = [r for r in assess(revised).reasons if r.decides]
            assert deciding != [r for r in assessment.reasons if r.decides]


def test_a_closed_api_is_an_option_only_where_texts_may_leave() -> None:
    def mentions_closed(may_leave: str) -> bool:
        assessment = assess(replace(SUPPORT_TICKETS, data_may_leave=may_leave))  # type: ignore[arg-type]
        return any("closed model's API" in reason.says for reason in assessment.reasons)

    assert mentions_closed("yes")
    assert not mentions_closed("no")
    assert not mentions_closed("aws-only")


def test_every_service_has_a_source_a_date_and_a_task_that_is_known() -> None:
    for task, service in services().items():
        assert task in TASKS
        assert service.source.startswith("https://docs.aws.amazon.com/")
        assert len(service.as_of) == len("2026-01-31")
        assert len(set(service.languages)) == len(service.languages)


def test_a_regional_variant_is_covered_by_its_language() -> None:
    assert services()["sentiment"].covers(("pt-BR", "en"))
    assert not services()["sentiment"].covers(("pl",))


@pytest.mark.parametrize(
    ("given_answers", "says"),
    [
        ({}, "task is missing"),
        ({"task": None}, "task is missing"),
        ({"task": "summarisation"}, "task is 'summarisation'; allowed: summarization"),
        ({"task": ["qa"]}, "task is ['qa']"),
        ({"task": "qa", "rules": "no"}, "unknown question 'rules'; did you mean rule?"),
        ({"task": "qa", "rule": "perhaps"}, "rule is 'perhaps'; allowed: yes, no, unknown"),
        ({"task": "qa", "examples": -1}, "examples is -1"),
        ({"task": "qa", "examples": 1.5}, "a whole number"),
        ({"task": "qa", "examples": "many"}, "must be a number"),
        ({"task": "qa", "examples": True}, "must be a number"),
        ({"task": "qa", "requests_per_day": 0}, "more than 0"),
        ({"task": "qa", "requests_per_day": float("nan")}, "between 0 and"),
        ({"task": "qa", "requests_per_day": 10**400}, "between 0 and"),
        ({"task": "qa", "latency_seconds": "inf"}, "latency_seconds (--latency) is 'inf'"),
        ({"task": "qa", "languages": "English"}, "ISO 639 codes"),
        ({"task": "qa", "languages": [1]}, "ISO 639 codes"),
    ],
)
def test_an_answer_that_does_not_do_is_named_with_what_is_allowed(given_answers: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as error:
        read_answers(given_answers)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_spellings_that_mean_the_same_are_read_alike() -> None:
    from_file = read_answers({"task": "qa", "rule": False, "examples": 1200, "languages": ["en", "de"]})
    from_flags = read_answers({"task": "QA ", "rule": "no", "examples": "1,200", "languages": "en, de"})
    assert from_file == from_flags
    assert read_answers({"task": "qa", "rule": None, "examples": "unknown", "languages": ""}) == Answers("qa")


def test_questions_and_answers_have_the_same_keys_in_the_same_order() -> None:
    assert tuple(BY_KEY) == tuple(Answers.__dataclass_fields__)
