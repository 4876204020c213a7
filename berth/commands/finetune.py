"""`berth finetune`: a fine-tuning run on this machine, as the training node does it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None)

INTERRUPTED = 75
"""Exit code of a run that was stopped and can go on."""


@app.command(
    epilog="With SETTINGS, a JSON file, everything can be set (docs/fine-tuning.md); options go over it. OUT gets "
    "checkpoints, metrics.jsonl, artifact. Start it again with the same OUT to go on where it stopped. Ctrl-C ends "
    "it at once; SIGTERM saves a checkpoint first, and it ends with exit code 75."
)
def finetune(
    settings: Annotated[Path | None, typer.Argument(help="A JSON file with the run's settings.")] = None,
    model: Annotated[str, typer.Option("--model", "-m", help="The base model: a folder, S3 or a hub id.")] = "",
    data: Annotated[str, typer.Option("--data", help="The data set (see berth data check).")] = "",
    out: Annotated[str, typer.Option("--out", "-o", help="The folder of the run.")] = "",
    plan: Annotated[str, typer.Option("--plan", help="The folder that berth size --for training wrote.")] = "",
    method: Annotated[str, typer.Option("--method", help="full, lora or qlora.")] = "",
    epochs: Annotated[float | None, typer.Option("--epochs", help="Times that the data is seen.")] = None,
    micro_batch: Annotated[int | None, typer.Option("--micro-batch", help="Examples a process and pass.")] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", help="The highest of the schedule.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of split, order and dropout.")] = None,
    upload: Annotated[str, typer.Option("--upload", help="s3://BUCKET/PREFIX for checkpoints and artifact.")] = "",
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "",
    bundle: Annotated[
        Path | None, typer.Option("--bundle", help="Train nothing: write the folder that a training node runs.")
    ] = None,
) -> None:
    """Fine-tune a model on this machine, by a plan or without, into an artifact that is verified."""
    from berth.runtime import needs_runtime
    from sizing.errors import UserError

    needs_runtime("berth finetune")
    from model_runtime.errors import in_one_line
    from model_runtime.training.bundle import write_training_bundle
    from model_runtime.training.launch import run
    from model_runtime.training.meeting import MeetingError
    from model_runtime.training.notice import Notice
    from model_runtime.training.settings import read_settings, settings_from

    given: dict[str, Any] = {
        "model": model, "data": data, "output": out, "plan": plan, "method": method, "epochs": epochs,
        "micro_batch_size": micro_batch, "learning_rate": learning_rate, "seed": seed, "upload": upload,
        "device": device,
    }  # fmt: skip
    given = {name: value for name, value in given.items() if value not in ("", None)}
    with in_one_line(MeetingError):
        if settings is not None:
            chosen = settings_from({**read_settings(settings).to_json(), **given}, str(settings))
        else:
            missing = [name for name, value in (("model", model), ("data", data), ("out", out)) if not value]
            if missing:
                raise UserError(f"give SETTINGS, or {', '.join(f'--{name}' for name in missing)}")
            chosen = settings_from(given, "berth finetune")
        if bundle is not None:
            made = write_training_bundle(bundle, chosen)
            typer.echo(f"{made.folder}: {len(made.files)} files, {made.total_bytes:,} bytes")
            typer.echo(f"SHA-256 of its manifest.json: {made.manifest_sha256}")
            return
        outcome = run(chosen, say=typer.echo, notice=Notice.here())
    if outcome.kind == "interrupted":
        typer.echo(f"stopped {outcome.message}; start it again to go on")
        raise typer.Exit(INTERRUPTED)
    typer.echo(f"\nNext\n  berth evaluate {outcome.message} --out {Path(outcome.message).parent / 'evaluation'}")
