"""The worked examples of docs/numbers.md: their arithmetic is right, and the code comes to the same."""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from berth.review.agreement import cohen, wilson
from infra.bill.bill import bill_of
from infra.durations import parse_schedule
from infra.plan import plan_stack
from infra.stack_files import ROOT, read_stack
from infra.training_job import task_of, wishes_of
from sizing.choose import Choice, choose
from sizing.choosing.wishes import Wishes
from sizing.cost import Costs, costs_of
from sizing.dtypes import dtype
from sizing.hardware.load import load_hardware
from sizing.memory.inference import estimate_inference
from sizing.memory.setup import InferenceSetup
from sizing.memory.terms import MemoryEstimate
from sizing.memory.training.estimate import estimate_training
from sizing.models.resolve import resolve_model
from sizing.throughput import roofline
from sizing.throughput.capacity import Load
from sizing.throughput.device import Device, device_of
from sizing.throughput.roofline import Asked, Speed, speed_at
from sizing.throughput.tables import engine
from sizing.throughput.work import work_of
from sizing.training_plan.plan import Plan
from sizing.training_plan.search import search
from sizing.workload import Workload

PAGE = Path(ROOT) / "docs" / "numbers.md"
LINE = re.compile(r"^\[([^\]]+)\] (.+) = ([\d.,]+) ?(.*)$", flags=re.MULTILINE)
OPERATORS: dict[type[ast.AST], Callable[..., float]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Pow: operator.pow, ast.USub: operator.neg,
}  # fmt: skip
FUNCTIONS: dict[str, Callable[..., float]] = {"max": max, "min": min, "ceil": math.ceil, "sqrt": math.sqrt}


def examples() -> list[tuple[str, str, str]]:
    """(name, expression, result as written) of every example on the page."""
    return [(name, left, result) for name, left, result, _ in LINE.findall(PAGE.read_text(encoding="utf-8"))]


def reckoned(expression: str) -> float:
    """An expression's value; a comma between digits groups thousands."""
    plain = re.sub(r"(?<=\d),(?=\d{3})", "", expression).replace("×", "*").replace("^", "**")

    def value(node: ast.AST) -> float:
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            return float(node.value)
        if isinstance(node, ast.BinOp):
            return OPERATORS[type(node.op)](value(node.left), value(node.right))
        if isinstance(node, ast.UnaryOp):
            return OPERATORS[type(node.op)](value(node.operand))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            return FUNCTIONS[node.func.id](*map(value, node.args))
        raise ValueError(expression)

    return value(ast.parse(plain, mode="eval").body)


def half_a_digit(written: str) -> float:
    """Half of the last place of a number as it is written."""
    return 0.5001 * 10.0 ** -len(written.partition(".")[2])


@cache
def xl() -> Any:
    return resolve_model("google/flan-t5-xl")


@cache
def memory() -> MemoryEstimate:
    return estimate_inference(xl(), InferenceSetup(dtype="fp32", batch=1, input_tokens=512, output_tokens=128))


def term(name: str, place: str = "device") -> float:
    (found,) = [t.bytes for t in getattr(memory(), place).terms if t.name == name]
    return float(found)


@cache
def t4() -> Device:
    found = device_of(load_hardware().instance("g4dn.2xlarge"))
    assert isinstance(found, Device)
    return found


ASKED = Asked("fp32", "transformers", 512, 128)


@cache
def speed() -> Speed:
    return speed_at(work_of(xl(), "fp32"), ASKED, t4(), 1)


@cache
def step() -> Any:
    return roofline._step(work_of(xl(), "fp32"), ASKED, t4(), engine("transformers"), dtype("fp32"), 1, 64.0)


@cache
def choice() -> Choice:
    return choose(xl(), Workload(512, 128, requests_per_day=5000), load_hardware(), Wishes(dtype="fp32"))


@cache
def costs() -> Costs:
    return costs_of(choice())


def on_demand() -> Any:
    return costs().line("on-demand")


@cache
def run() -> Plan:
    file = read_stack("training", ROOT)
    found = search(xl(), task_of(file.settings, xl()), load_hardware(), wishes_of(file.settings, file.region))
    assert found.recommended is not None
    return found.recommended


@cache
def training_memory() -> MemoryEstimate:
    return estimate_training(xl(), run().setup)


def training_term(name: str) -> float:
    return float(sum(t.bytes for t in training_memory().device.terms if t.name == name))


def bill_line(start: str) -> float:
    plan = plan_stack("inference-dev", ROOT, clock=lambda: datetime(2026, 11, 24, 12, tzinfo=UTC))
    (line,) = [x for x in bill_of(plan).lines if x.item.startswith(start)]
    assert line.per_month is not None
    return float(line.per_month)


CODE: dict[str, Callable[[], float]] = {
    "weights": lambda: term("weights"),
    "kv cache": lambda: term("KV cache"),
    "cross-attention cache": lambda: term("KV cache, cross-attention"),
    "logits": lambda: term("logits"),
    "nf4 weight": lambda: dtype("nf4").weight_bytes,
    "rule of thumb": lambda: memory().rule_of_thumb.total_bytes / 2**30,
    "loading plain": lambda: term("weights, built model", "host") + term("weights, state dict", "host"),
    "zero-1 weights": lambda: training_term("weights"),
    "zero-1 states": lambda: training_term("optimizer states") + training_term("master weights"),
    "read a step": lambda: step().memory,
    "compute a step": lambda: step().arithmetic,
    "launch a step": lambda: step().launches,
    "step": lambda: speed().step,
    "latency": lambda: speed().total,
    "never idle": lambda: 1 / speed().total,
    "busiest hour": lambda: Load(5000).peak_per_s,
    "month": lambda: on_demand().usd_per_month,
    "1,000 requests": lambda: on_demand().usd_per_1000_requests,
    "million tokens": lambda: on_demand().usd_per_million_tokens,
    "reserved pays": lambda: costs().reserved_pays_above_hours or 0.0,
    "sagemaker": lambda: costs().sagemaker.difference_percent or 0.0,
    "office hours": lambda: parse_schedule("Mon-Fri 08:00-18:00 Europe/Berlin").hours_per_month,  # type: ignore[union-attr]
    "bill of the machine": lambda: bill_line("g4dn.2xlarge"),
    "disk": lambda: bill_line("gp3"),
    "steps": lambda: run().steps,
    "optimizer": lambda: run().time.step.optimizer,
    "training step": lambda: run().time.step.total,
    "run": lambda: run().hours,
    "cost of the run": lambda: run().usd.likely,
    "wilson low": lambda: wilson(30, 40)[0],  # type: ignore[index]
    "kappa": lambda: cohen(["a"] * 10 + ["b"] * 10, ["a"] * 9 + ["b"] + ["b"] * 9 + ["a"]).kappa,  # type: ignore[union-attr,return-value]
}
ELSEWHERE = {"gpt layer"}
"""Held against the code by a test of its own: tests/sizing/memory/training/test_training_layers.py."""


@pytest.mark.parametrize(("name", "expression", "written"), examples(), ids=lambda x: str(x)[:30])
def test_an_example_is_reckoned_rightly(name: str, expression: str, written: str) -> None:
    assert abs(reckoned(expression) - reckoned(written)) <= half_a_digit(written)


@pytest.mark.parametrize(("name", "expression", "written"), examples(), ids=lambda x: str(x)[:30])
def test_the_code_comes_to_what_the_page_says(name: str, expression: str, written: str) -> None:
    if name not in ELSEWHERE:
        assert abs(CODE[name]() - reckoned(written)) <= half_a_digit(written)


def test_no_example_is_without_its_code_and_none_is_lost() -> None:
    names = [name for name, _, _ in examples()]
    assert len(names) == len(set(names))
    assert set(names) == set(CODE) | ELSEWHERE


def test_every_file_that_the_page_names_is_there() -> None:
    text = PAGE.read_text(encoding="utf-8")
    named = re.findall(r"`((?:sizing|infra|berth|model_runtime|stacks)/[\w./-]+)`", text)
    assert len(named) > 25
    assert [path for path in named if not (ROOT / path).exists()] == []
