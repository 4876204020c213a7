"""The guide's steps run in their order and print what the page shows; the whole walk is one of the slow proofs."""

from __future__ import annotations

import pytest

from scripts.docs_commands import shown_in
from scripts.guide import PAGE, Guide, guide, render, steps

TEXT = PAGE.read_text(encoding="utf-8")


def test_the_steps_that_need_no_machine_print_what_the_page_shows() -> None:
    with guide() as running:
        for step in steps(TEXT):
            if not step.slow:
                assert running.output(step) == step.shown, f"{step.line}: run `python -m scripts.guide`"


@pytest.mark.slow
def test_the_whole_walk_from_the_need_to_the_feedback_runs() -> None:
    with guide() as running:
        walked = render(TEXT, running)
    assert [step.line for step in steps(walked)] == [step.line for step in steps(TEXT)]
    (down,) = [step.shown for step in steps(walked) if step.line == "berth sandbox down"]
    assert "nothing is left" in down


def test_every_step_has_its_output_and_the_walk_is_whole() -> None:
    shown = {step.line.split(" ")[1] for step in steps(TEXT) if step.line.startswith("berth ")}
    assert {
        "assess", "size", "new", "preview", "data", "up", "bundle", "status", "serve", "verify", "train", "fetch",
        "evaluate", "review", "feedback", "metrics", "report", "down", "sandbox",
    } <= shown  # fmt: skip
    silent = [
        s.line for s in steps(TEXT) if not s.shown and not s.line.endswith(" &") and not s.line.startswith("echo")
    ]
    assert silent == []
    assert len(shown_in(PAGE)) >= len(shown)


def test_a_step_that_fails_ends_the_walk() -> None:
    with guide() as running, pytest.raises(RuntimeError, match="ended with exit code 2"):
        Guide.output(running, steps("```console\n$ berth preview nowhere\n```\n")[0])
