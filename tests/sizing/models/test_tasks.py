"""Which architecture does which task, and what is said of a model that does not."""

from __future__ import annotations

import pytest

from sizing.errors import UserError
from sizing.models.catalogue import load_catalogue
from sizing.models.tasks import TASKS, suited, task_named
from sizing.workload import TASK_TOKENS

CATALOGUE = load_catalogue()


@pytest.mark.parametrize(
    ("task", "architectures"),
    [
        ("sentiment", {"encoder-only", "encoder-decoder"}),
        ("classification", {"encoder-only", "encoder-decoder"}),
        ("summarization", {"decoder-only", "encoder-decoder"}),
        ("qa", {"decoder-only", "encoder-decoder"}),
        ("translation", {"encoder-decoder"}),
        ("chat", {"decoder-only"}),
        ("code", {"decoder-only"}),
    ],
)
def test_the_mapping_and_its_reason(task: str, architectures: set[str]) -> None:
    assert set(TASKS[task].architectures) == architectures
    assert len(TASKS[task].why) > 40


def test_tasks_are_those_that_a_workload_knows() -> None:
    assert set(TASKS) == set(TASK_TOKENS)


@pytest.mark.parametrize("text", ["QA", "question-answering", "Question Answering", "qa "])
def test_a_task_goes_by_its_common_names(text: str) -> None:
    assert task_named(text).name == "qa"


def test_an_unknown_task_is_told_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"unknown task 'poetry'; known: chat, classification, code, qa"):
        task_named("poetry")


@pytest.mark.parametrize(
    ("model", "task", "does", "said"),
    [
        ("google/flan-t5-xl", "summarization", True, "was published for summarization"),
        ("google-bert/bert-base-uncased", "translation", False, "is encoder-only; translation wants encoder-decoder"),
        ("google-bert/bert-base-uncased", "sentiment", True, "was published for sentiment"),
        ("openai-community/gpt2", "sentiment", False, "sentiment wants encoder-only or encoder-decoder: a label needs"),
        (
            "openai-community/gpt2",
            "code",
            True,
            "decoder-only suits code, but openai-community/gpt2 must be fine-tuned",
        ),
        ("facebook/blenderbot-400M-distill", "chat", True, "was published for chat"),
        ("Qwen/Qwen3-8B", "translation", True, "was published for translation"),
    ],
)
def test_whether_a_model_suits_a_task_and_why(model: str, task: str, does: bool, said: str) -> None:
    result, reason = suited(CATALOGUE[model], task)

    assert result is does
    assert said in reason


def test_every_catalogue_model_suits_its_own_tasks_and_every_task_has_a_business_friendly_model() -> None:
    for entry in CATALOGUE.entries.values():
        assert all(suited(entry, task)[0] for task in entry.tasks)
    for task in TASKS:
        assert [e for e in CATALOGUE.entries.values() if task in e.tasks and e.verdict == "business-friendly"]
