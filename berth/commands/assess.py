"""`berth assess`: whether a large language model is needed at all, and what to run next."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from berth.output import JsonOption, print_json
from sizing.need.questions import BY_KEY, QUESTIONS, Answers, Question, read_answer, read_answers

if TYPE_CHECKING:
    from sizing.need.verdict import Assessment

app = typer.Typer(add_completion=False, rich_markup_mode=None)


def _option(key: str) -> Any:
    question = BY_KEY[key]
    return typer.Option(question.flag, help=question.help, metavar=question.metavar, show_default=False)


@app.command(
    epilog="Without any answer it asks. What is not answered counts as not known. An answers file is one JSON object, "
    f"its keys any of: {', '.join(BY_KEY)}."
)
def assess(
    task: Annotated[str | None, _option("task")] = None,
    rule: Annotated[str | None, _option("rule")] = None,
    data_may_leave: Annotated[str | None, _option("data_may_leave")] = None,
    managed_service: Annotated[str | None, _option("managed_service")] = None,
    smaller_model: Annotated[str | None, _option("smaller_model")] = None,
    examples: Annotated[str | None, _option("examples")] = None,
    languages: Annotated[str | None, _option("languages")] = None,
    requests_per_day: Annotated[str | None, _option("requests_per_day")] = None,
    latency: Annotated[str | None, _option("latency_seconds")] = None,
    answers: Annotated[
        Path | None,
        typer.Option(
            "--answers",
            metavar="FILE",
            help="Take the answers from this JSON file; - reads stdin, flags win over the file.",
        ),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Say whether a large language model is needed at all, why, and what to run next."""
    from sizing.errors import UserError
    from sizing.need.read import read_answers_file, read_answers_stream
    from sizing.need.verdict import assess as judge

    given: dict[str, Any] = {}
    if answers is not None:
        given = read_answers_stream(sys.stdin) if str(answers) == "-" else read_answers_file(answers)
    flags = {
        "task": task,
        "rule": rule,
        "data_may_leave": data_may_leave,
        "managed_service": managed_service,
        "smaller_model": smaller_model,
        "examples": examples,
        "languages": languages,
        "requests_per_day": requests_per_day,
        "latency_seconds": latency,
    }
    given |= {key: value for key, value in flags.items() if value is not None}
    if given or answers is not None:
        assessment = judge(read_answers(given))
    elif json_output:
        raise UserError("--json asks nothing; give the answers as flags (at least --task) or with --answers FILE")
    else:
        assessment = judge(_ask())
    if json_output:
        print_json(assessment.to_json())
    else:
        _show(assessment)


def _ask() -> Answers:
    """Ask the questions on stderr, one by one, until the verdict is settled. What cannot be read is asked again."""
    from dataclasses import replace

    from sizing.need.verdict import settled

    answers = Answers(_ask_one(QUESTIONS[0], optional=False))
    for question in QUESTIONS[1:]:
        if settled(answers):
            break
        answers = replace(answers, **{question.key: _ask_one(question, optional=True)})
    return answers


def _ask_one(question: Question, *, optional: bool) -> Any:
    """The answer to one question; a choice may be shortened to what tells it from the others (`y`, `sum`)."""
    from sizing.errors import UserError

    choices = f" [{', '.join(question.choices)}]" if question.choices else ""
    while True:
        typer.echo(f"{question.ask}{choices}{' (Enter: not known)' if optional else ''}: ", nl=False, err=True)
        line = sys.stdin.readline()
        if not line:
            typer.echo(err=True)
            raise UserError("no more answers on stdin; give them as flags (at least --task) or with --answers FILE")
        word = line.strip()
        meant = [choice for choice in question.choices if word and choice.startswith(word.lower())]
        try:
            return read_answer(question, meant[0] if len(meant) == 1 else word)
        except UserError as error:
            typer.echo(f"  {error}", err=True)


def _show(assessment: Assessment) -> None:
    from rich.text import Text

    from berth.output import console, folded

    out = console()
    out.print(Text(f"{assessment.verdict}: ", style="bold") + Text(assessment.summary))
    for title, decides in (("Because", True), ("And", False)):
        reasons = [r for r in assessment.reasons if r.decides is decides]
        if reasons:
            out.print(f"\n{title}")
        for reason in reasons:
            folded(out, f"{BY_KEY[reason.question].flag} {reason.given}: {reason.says}")
    out.print("\nNext")
    for step in assessment.next:
        folded(out, f"{step.when}:")
        # A command must survive being copied, so it is never folded.
        out.print(f"    {step.command}", soft_wrap=True)
