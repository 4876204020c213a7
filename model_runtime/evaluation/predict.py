"""What a model says to the inputs of a test set, through the same path that serves."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from model_runtime.data.examples import Example
from model_runtime.errors import ModelError
from model_runtime.generate import Generator, NoMemory
from model_runtime.load import Loaded
from model_runtime.parameters import Limits, RequestError, Sampling
from model_runtime.training.features import IGNORED, Collator, Encoder, Feature

Say = Callable[[str], None]
_NO_WINDOW = 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """`text` is the answer, or the label; `probability` of the label."""

    text: str
    tokens: int
    finish_reason: str
    truncated_tokens: int
    probability: float | None = None


def predict(
    loaded: Loaded,
    examples: Sequence[Example],
    sampling: Sampling,
    *,
    prompt: str = "{input}",
    batch_size: int = 16,
    say: Say | None = None,
) -> list[Answer]:
    """Answers in the examples' order; like lengths share a batch. Raises `ModelError` where one has no answer."""
    generator = Generator(loaded, Limits(max_output_tokens=sampling.max_new_tokens or Limits().max_output_tokens))
    rows = []
    for example in examples:
        try:
            rows.append(
                generator.prepare(_asked(generator, example, prompt), sampling, special_tokens=example.form != "chat")
            )
        except RequestError as error:
            raise ModelError(f"line {example.line}: {error.message}") from error
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i].ids))
    answers: dict[int, Answer] = {}
    for start in range(0, len(order), batch_size):
        picked = order[start : start + batch_size]
        batch = [rows[i] for i in picked]
        made: Sequence[Any] = generator.complete(batch) if generator.generates else generator.classify(batch)
        for i, one in zip(picked, made, strict=True):
            if isinstance(one, NoMemory):
                raise ModelError(f"line {examples[i].line}: out of memory with {one.input_tokens:,} input tokens alone")
            if isinstance(one, dict):
                label = max(one, key=lambda name: one[name])
                answers[i] = Answer(label, 0, "stop", rows[i].truncated_tokens, one[label])
            else:
                text = one.text
                answers[i] = Answer(text, len(one.tokens), one.finish_reason, one.truncated_tokens)
        if say is not None:
            say(f"{min(start + batch_size, len(order)):,} of {len(order):,} answers")
    return [answers[i] for i in range(len(rows))]


def _asked(generator: Generator, example: Example, prompt: str) -> str:
    if example.form != "chat":
        return prompt.replace("{input}", example.input)
    last = max(i for i, m in enumerate(example.messages) if m.role == "assistant")
    return generator.chat_prompt([{"role": m.role, "content": m.content} for m in example.messages[:last]])


def target_losses(
    loaded: Loaded, examples: Sequence[Example], *, prompt: str = "{input}", batch_size: int = 8
) -> list[tuple[float, int]]:
    """For each example the summed loss (nats) of its target's tokens, and their number. An example of which the window
    leaves no target is left out."""
    import torch

    window = loaded.input_window or _NO_WINDOW
    encoder = Encoder(loaded.tokenizer, loaded.architecture, window, window, prompt)
    features: list[Feature] = encoder.encode(examples).features
    collate = Collator(loaded.tokenizer.pad_token_id)
    found: dict[int, tuple[float, int]] = {}
    order = sorted(range(len(features)), key=lambda i: -len(features[i]["input_ids"]))
    shifts = loaded.architecture == "decoder-only"
    for start in range(0, len(order), batch_size):
        picked = order[start : start + batch_size]
        batch = {k: v.to(loaded.model.device) for k, v in collate([features[i] for i in picked]).items()}
        labels = batch["labels"]
        with torch.inference_mode():
            logits = loaded.model(**batch).logits.float()
        if shifts:
            logits, labels = logits[:, :-1], labels[:, 1:]
        losses = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none"
        ).sum(dim=1)
        counts = (labels != IGNORED).sum(dim=1)
        for i, loss, count in zip(picked, losses.tolist(), counts.tolist(), strict=True):
            if not math.isfinite(loss):
                raise ModelError(f"the loss is {loss} in {loaded.dtype}; evaluate in bf16 or fp32")
            found[i] = (loss, count)
    return [found[i] for i in range(len(features)) if found[i][1]]
