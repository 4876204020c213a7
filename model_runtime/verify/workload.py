"""What is asked while measuring: one's own prompts from a file, or made ones of a wished length."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model_runtime.errors import ModelError

_TEXT = (
    "the ship leaves harbour at dawn and its crew counts every crate before tide turns while agents on shore write "
    "down names weights prices and ports so that nothing is lost between here and there"
)
_WORDS = tuple(_TEXT.split())


@dataclass(frozen=True, slots=True)
class VerifyWorkload:
    """Prompts in turn, tokens of each answer, sampling parameters, and the latency wished (seconds, the 90th
    percentile)."""

    prompts: tuple[str, ...]
    output_tokens: int
    parameters: dict[str, Any] = field(default_factory=dict)
    latency_s: float | None = None
    source: str = "made"


def made_prompts(input_tokens: int, count: int, tokenizer: Any) -> tuple[str, ...]:
    """`count` different prompts of about `input_tokens` tokens (`tokenizer` None: 4/3 tokens a word)."""
    prompts = []
    for number in range(count):
        words = [f"{number}"]
        size = 1
        while size < input_tokens:
            # Words are added by the estimate and the length is read again, so few passes reach it.
            words += [
                _WORDS[(number + len(words) + i) % len(_WORDS)] for i in range(max(1, (input_tokens - size) * 3 // 4))
            ]
            size = _size(words, tokenizer)
        while len(words) > 1 and size > input_tokens:
            words.pop()
            size = _size(words, tokenizer)
        prompts.append(" ".join(words))
    return tuple(prompts)


def _size(words: list[str], tokenizer: Any) -> int:
    if tokenizer is None:
        return max(1, len(words) * 4 // 3)
    return len(tokenizer(" ".join(words), verbose=False)["input_ids"])


def read_workload(path: Path, *, output_tokens: int, latency_s: float | None) -> VerifyWorkload:
    """A workload file: JSON lines, each `{"inputs": "…"}` or a text; or one object
    `{"prompts": […], "output_tokens": n, "latency_s": s, "parameters": {…}}`. Raises `ModelError`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    try:
        try:
            document = json.loads(text)
        except ValueError:
            document = {"prompts": [json.loads(line) for line in text.splitlines() if line.strip()]}
    except ValueError as error:
        raise ModelError(f"{path} is neither JSON nor JSON lines: {error}") from error
    if isinstance(document, list):
        document = {"prompts": document}
    if isinstance(document, dict) and "inputs" in document:
        document = {"prompts": [document]}
    if not isinstance(document, dict) or not isinstance(document.get("prompts"), list):
        raise ModelError(f'{path} has no "prompts": a list of texts')
    prompts = [p.get("inputs") if isinstance(p, dict) else p for p in document["prompts"]]
    texts = tuple(p for p in prompts if isinstance(p, str) and p.strip())
    if not texts or len(texts) < len(prompts):
        raise ModelError(f"{path}: prompts must be at least one text, and none of them empty")
    tokens, wish = document.get("output_tokens", output_tokens), document.get("latency_s", latency_s)
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1:
        raise ModelError(f"{path}: output_tokens is {tokens!r}; a whole number of at least 1")
    if wish is not None and (isinstance(wish, bool) or not isinstance(wish, (int, float)) or wish <= 0):
        raise ModelError(f"{path}: latency_s is {wish!r}; a number of seconds above 0")
    parameters = document.get("parameters", {})
    if not isinstance(parameters, dict):
        raise ModelError(f"{path}: parameters must be an object")
    return VerifyWorkload(texts, tokens, parameters, wish, str(path))
