"""Which architecture does which task, and why: the mapping that `berth models --task` and the chooser go by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sizing.errors import unknown
from sizing.models.facts import Architecture


class Described(Protocol):
    """A model, or a line of the catalogue."""

    @property
    def name(self) -> str: ...

    @property
    def architecture(self) -> Architecture: ...

    @property
    def tasks(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True)
class Task:
    """A task: the architectures made for it, and the reason in a sentence."""

    name: str
    architectures: tuple[Architecture, ...]
    why: str


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            "summarization",
            ("decoder-only", "encoder-decoder"),
            "a summary is new text: it takes a decoder, which writes one token after another; an encoder in front of it"
            " reads the whole document first",
        ),
        Task(
            "qa",
            ("decoder-only", "encoder-decoder"),
            "an answer in words takes a decoder; an encoder alone can only mark a span of the text",
        ),
        Task(
            "translation",
            ("encoder-decoder",),
            "the whole sentence is read in one language before the first word is written in the other, which is what an"
            " encoder and a decoder with cross-attention are made for",
        ),
        Task(
            "sentiment",
            ("encoder-only", "encoder-decoder"),
            "a label needs no decoder: an encoder reads the text in both directions in one pass, with a model of a"
            " hundredth of the size",
        ),
        Task(
            "classification",
            ("encoder-only", "encoder-decoder"),
            "a label needs no decoder: an encoder reads the text in both directions in one pass, with a model of a"
            " hundredth of the size",
        ),
        Task(
            "chat",
            ("decoder-only",),
            "a conversation is one growing text to be continued, which is all that a decoder does",
        ),
        Task(
            "code",
            ("decoder-only",),
            "code is continued from what stands before it, which is all that a decoder does",
        ),
    )
}
ALIASES = {
    "summarisation": "summarization",
    "summary": "summarization",
    "summarize": "summarization",
    "question-answering": "qa",
    "questions": "qa",
    "translate": "translation",
    "sentiment-analysis": "sentiment",
    "text-classification": "classification",
    "classify": "classification",
    "conversation": "chat",
    "coding": "code",
}


def task_named(text: str) -> Task:
    """The task that `text` means. Raises `UserError` with the known ones for any other."""
    key = text.strip().lower().replace("_", "-").replace(" ", "-")
    key = ALIASES.get(key, key)
    if key not in TASKS:
        raise unknown("task", text, TASKS)
    return TASKS[key]


def suited(model: Described, task: str) -> tuple[bool, str]:
    """Whether `model` does `task`, and why (not), in a sentence.

    A model that was published for the task does it whatever its architecture; else the architecture decides, and the
    model is to be fine-tuned. Raises `UserError` for an unknown task.
    """
    asked = task_named(task)
    if asked.name in model.tasks:
        return True, f"{model.name} was published for {asked.name}"
    if model.architecture in asked.architectures:
        return True, f"{model.architecture} suits {asked.name}, but {model.name} must be fine-tuned for it: {asked.why}"
    return (
        False,
        f"{model.name} is {model.architecture}; {asked.name} wants {' or '.join(asked.architectures)}: {asked.why}",
    )
