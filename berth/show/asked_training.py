"""From the flags of `berth size --for training` to a task and what is wished of its plan."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sizing.errors import UserError

if TYPE_CHECKING:
    from sizing.models.facts import ModelFacts
    from sizing.training_plan.task import TrainingTask


def refuse_given(given: dict[str, object], purpose: str) -> None:
    """Raise `UserError` for an option of the other purpose that was given."""
    for name, value in given.items():
        if value not in (None, ""):
            raise UserError(
                f"{name} has no meaning with --for {purpose}; `berth size --help` says what belongs to which"
            )


def asked_task(
    model: ModelFacts,
    data: str | None,
    epochs: float,
    global_batch: int | None,
    task: str | None,
    input_tokens: int | None,
    output_tokens: int | None,
    context_window: int | None,
    tokenizer: str | None,
) -> TrainingTask:
    """The `TrainingTask` that the flags describe. Lengths come from the file where there is one and no count is given.

    Raises `UserError` without data.
    """
    from sizing.models.tasks import task_named
    from sizing.training_plan.dataset import read_data
    from sizing.training_plan.lengths import lengths_of
    from sizing.training_plan.task import DEFAULT_GLOBAL_BATCH, TrainingTask

    if data is None:
        raise UserError("--for training needs --data: how many examples there are, or a file of them")
    read = read_data(data, None if tokenizer is None else _counter(tokenizer))
    name = "" if task is None else task_named(task).name
    lengths = lengths_of(model, read.sample, input_tokens, output_tokens, context_window, name)
    notes = list(read.notes)
    if global_batch is None:
        notes.append(f"{DEFAULT_GLOBAL_BATCH} examples make a step (an assumption: --global-batch)")
    batch = DEFAULT_GLOBAL_BATCH if global_batch is None else global_batch
    return TrainingTask(read.examples, lengths, epochs, batch, tuple(notes))


def _counter(path: str) -> Callable[[str], int]:
    """A function that counts a text's tokens by a tokenizer.json, or a folder that holds one."""
    file = Path(path).expanduser()
    file = file / "tokenizer.json" if file.is_dir() else file
    if not file.is_file():
        raise UserError(f"tokenizer: {file} is not there; give a tokenizer.json or the model's folder")
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise UserError("tokenizer: counting needs the tokenizers package (`pip install tokenizers`)") from None
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError):
        raise UserError(f"tokenizer: {file} is no JSON") from None
    if not isinstance(known, dict) or "model" not in known:
        raise UserError(f"tokenizer: {file} is no tokenizer.json of the tokenizers library (it has no 'model')")
    tokenizer = Tokenizer.from_file(str(file))
    return lambda text: len(tokenizer.encode(text).ids)
