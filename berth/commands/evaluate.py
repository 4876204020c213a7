"""`berth evaluate`: a model's answers on its test set, beside its base."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from berth.options import ColumnOption, FormOption, TestOption
from berth.output import JsonOption, console, print_json, table

_VERDICTS = {"better": "better", "worse": "worse", "no clear difference": "unclear"}
app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    epilog="MODEL is an artifact of fine-tuning, which knows its data, split and base; or any model (a folder, "
    "s3://BUCKET/PREFIX, a hub id) with --data. OUT gets predictions.jsonl, for a person to read, and evaluation.json."
)
def evaluate(
    model: Annotated[str, typer.Argument(help="The artifact or model to evaluate.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for predictions and report.")],
    data: Annotated[str, typer.Option("--data", help="A data set; none: what the artifact was trained with.")] = "",
    test: TestOption = "",
    split: Annotated[Path | None, typer.Option("--split", help="The file that keeps the split.")] = None,
    part: Annotated[str, typer.Option("--part", help="train, validation or test.")] = "test",
    form: FormOption = "auto",
    column: ColumnOption = None,
    base: Annotated[str, typer.Option("--base", help="The model beside it; none: without one.")] = "",
    prompt: Annotated[str, typer.Option("--prompt", help="What the model is given, with {input} in it.")] = "",
    output_tokens: Annotated[int, typer.Option("--output-tokens", min=1, help="Tokens of an answer at most.")] = 128,
    temperature: Annotated[float, typer.Option("--temperature", min=0, max=2, help="0 is greedy.")] = 0.0,
    top_p: Annotated[float, typer.Option("--top-p", min=0.01, max=1, help="Of the probability, when sampling.")] = 1.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of sampling and of the bootstrap.")] = 0,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Examples answered together.")] = 16,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Examples at most; 0: all.")] = 0,
    parquet: Annotated[bool, typer.Option("--parquet", help="Write predictions.parquet as well.")] = False,
    dtype: Annotated[str, typer.Option("--dtype", help="auto, fp32, fp16 or bf16.")] = "auto",
    quantize: Annotated[str, typer.Option("--quantize", help="none, int8, nf4 or nf4-dq.")] = "none",
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    json_output: JsonOption = False,
) -> None:
    """Answer a test set with a model and its base: metrics with confidence intervals, predictions to read."""
    from berth.runtime import needs_runtime
    from sizing.errors import UserError

    for option, given in (("--data", data), ("--test", test), ("--split", str(split or ""))):
        if given and "://" not in given and not Path(given).expanduser().exists():
            raise UserError(f"{option} {given} is no file here and no folder")
    needs_runtime("berth evaluate")
    from model_runtime.data.examples import column_names
    from model_runtime.errors import in_one_line
    from model_runtime.evaluate import Options
    from model_runtime.evaluate import evaluate as measure
    from model_runtime.load import LoadOptions
    from model_runtime.parameters import Sampling

    err = console(stderr=True)
    with in_one_line():
        report = measure(
            model,
            out,
            Options(
                data=data, test=test, split=split, part=part, form=form, columns=column_names(column or ()), base=base,
                prompt=prompt, batch_size=batch_size, limit=limit, seed=seed, parquet=parquet,
                sampling=Sampling(max_new_tokens=output_tokens, temperature=temperature, top_p=top_p, seed=seed),
                load=LoadOptions(dtype=dtype, quantize="" if quantize == "none" else quantize, device=device),
            ),
            say=lambda line: err.print(line, soft_wrap=True),
        )  # fmt: skip
    if json_output:
        print_json(report)
    else:
        _show(report, out)


def _show(report: dict[str, Any], out: Path) -> None:
    shown = console()
    shown.print(f"{report['examples']:,} examples of the {report['part']} part, {report['form']}", soft_wrap=True)
    beside = report["base"] is not None
    columns = ["Metric", "Model", *(["Base", "Difference", ""] if beside else [])]
    drawn = table(*columns, right=("Model", "Base", "Difference"))
    for metric in report["metrics"]:
        cells = [metric["metric"], _cell(metric["model"])]
        if beside:
            cells += [
                _cell(metric["base"]),
                _cell(metric["difference"], signed=True),
                _VERDICTS.get(metric["verdict"] or "", ""),
            ]
        drawn.add_row(*cells)
    shown.print()
    shown.print(drawn)
    shown.print(
        f"\nIn brackets: {report['bootstrap']['level_percent']:g} % of {report['bootstrap']['draws']:,} resamples."
    )
    if report["signs"]:
        own = report["signs"]["model"]
        shown.print(
            f"Of the answers {own['repetitive_percent']:g} % repeat themselves, {own['cut_percent']:g} % were cut at "
            f"the limit, {own['novel_numbers_percent']:g} % name numbers that the input lacks.",
            soft_wrap=True,
        )
    shown.print(f"\nRead the answers before you rely on the numbers: {out / 'predictions.jsonl'}", soft_wrap=True)


def _cell(interval: dict[str, Any] | None, *, signed: bool = False) -> str:
    if interval is None or interval["value"] is None:
        return "not known"
    sign = "+" if signed else ""
    low, high = interval["low"], interval["high"]
    spread = "" if low is None or high is None else f" [{low:{sign}.3g}, {high:{sign}.3g}]"
    return f"{interval['value']:{sign}.3g}{spread}"
