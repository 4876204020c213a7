"""What the handler adds to plain `generate` for one client, counted and not timed: tensor operations and calls."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from model_runtime.generate import Generator
from model_runtime.handler.service import Service
from model_runtime.handler.settings import ServingSettings
from model_runtime.load import LoadOptions, load
from model_runtime.tiny import build

TOKENS = 16
TEXT = "Which berth is free tonight, and what does it cost for a week?"


class Operations(TorchDispatchMode):
    """Counts tensor operations as they reach the kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def operations(run: Callable[[], None]) -> int:
    with Operations() as counted:
        run()
    return counted.count


def calls(run: Callable[[], None]) -> int:
    """Calls of Python and C functions in this thread."""
    found = 0

    def seen(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal found
        found += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        run()
    finally:
        sys.setprofile(before)
    return found


@pytest.mark.parametrize(("kind", "least"), [("t5", 0), ("llama", 0), ("llama", TOKENS), ("gpt2", 0)])
def test_one_client_costs_at_most_a_twentieth_over_plain_generate(kind: str, least: int, tmp_path: Path) -> None:
    folder = build(kind, tmp_path / kind, hidden_size=64, layers=4)
    plain = load(str(folder), LoadOptions(device="cpu"))
    settings = ServingSettings(str(folder), model_name="m", metrics=str(tmp_path / "metrics.log"))
    service = Service(Generator(load(str(folder), LoadOptions(device="cpu")), settings.limits), settings)
    body = json.dumps({"inputs": TEXT, "parameters": {"max_new_tokens": TOKENS, "min_new_tokens": least}}).encode()

    def loop() -> str:
        inputs = plain.tokenizer(TEXT, return_tensors="pt")
        arguments = {"min_new_tokens": least} if least else {}
        with torch.inference_mode():
            out = plain.model.generate(
                inputs.input_ids,
                attention_mask=inputs.attention_mask,
                do_sample=False,
                max_new_tokens=TOKENS,
                **arguments,
            )
        start = inputs.input_ids.shape[1] if kind != "t5" else 0
        return str(plain.tokenizer.decode(out[0, start:], skip_special_tokens=True))

    answer: list[Any] = []
    runs: list[Callable[[], Any]] = [loop, lambda: answer.append(service.answer([body])[0].body)]
    expected, _ = (run() for run in runs)
    assert answer[0]["generated_text"] == expected
    for count in (operations, calls):
        alone, served = (count(run) for run in runs)
        assert served <= 1.05 * alone, f"{count.__name__}: {served:,} against {alone:,}"
