"""`berth bundle`: the model folder that LMI, SageMaker and `berth serve` run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from berth.output import JsonOption, console, print_json

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    epilog="MODEL is a folder with a model's files, s3://BUCKET/PREFIX, or a hub id. On a host and on SageMaker the "
    "environment variable BERTH_MODEL_DIR names the folder of the weights, and wins."
)
def bundle(
    model: Annotated[str, typer.Argument(help="The model that the folder serves, or the word feedback.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The model folder to write.")],
    name: Annotated[str, typer.Option("--name", help="The model's name in answers; empty: from MODEL.")] = "",
    dtype: Annotated[str, typer.Option("--dtype", help="auto, fp32, fp16 or bf16.")] = "auto",
    quantize: Annotated[str, typer.Option("--quantize", help="none, int8, nf4 or nf4-dq.")] = "none",
    batch_size: Annotated[int, typer.Option("--batch-size", help="Requests that are answered together at most.")] = 8,
    batch_delay: Annotated[
        int, typer.Option("--batch-delay", help="Milliseconds that a request waits for others to join it.")
    ] = 20,
    tensor_parallel: Annotated[
        int, typer.Option("--tensor-parallel", help="GPUs over which the model's layers are laid.")
    ] = 1,
    input_tokens: Annotated[
        int | None, typer.Option("--input-tokens", help="Tokens of an input at most; none: the model's own window.")
    ] = None,
    output_tokens: Annotated[int, typer.Option("--output-tokens", help="Tokens of an answer at most.")] = 256,
    queue: Annotated[int, typer.Option("--queue", help="Requests that may wait before others are sent away.")] = 100,
    metrics: Annotated[
        str, typer.Option("--metrics", help="Where metric lines go: auto, stdout, off, or a file.")
    ] = "auto",
    include_weights: Annotated[
        bool, typer.Option("--include-weights", help="Copy the files of the folder MODEL into the bundle.")
    ] = False,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Read pickled weights where no safetensors are; they can run code.")
    ] = False,
    archive: Annotated[bool, typer.Option("--archive", help="Write OUT.tar.gz as well.")] = False,
    feedback_uri: Annotated[
        str, typer.Option("--feedback-uri", help="With MODEL feedback: the S3 prefix that feedback is shipped to.")
    ] = "",
    json_output: JsonOption = False,
) -> None:
    """Write the model folder that a host, a SageMaker endpoint and `berth serve` run."""
    from model_runtime.errors import ModelError
    from model_runtime.handler.bundle import write_bundle, write_feedback_bundle
    from model_runtime.handler.settings import ServingSettings
    from sizing.errors import UserError

    try:
        if model == "feedback":
            made = write_feedback_bundle(out, feedback_uri=feedback_uri, archive=archive)
        else:
            local = Path(model).expanduser()
            if include_weights and not local.is_dir():
                raise UserError(f"--include-weights needs a folder with the model's files; {model} is none")
            settings = ServingSettings(
                model=str(local.resolve()) if local.is_dir() else model,
                model_name=name or local.name,
                dtype=dtype,
                quantize="" if quantize == "none" else quantize,
                tensor_parallel_degree=tensor_parallel,
                batch_size=batch_size,
                max_batch_delay_ms=batch_delay,
                max_input_tokens=input_tokens,
                max_output_tokens=output_tokens,
                job_queue_size=queue,
                metrics=metrics,
                allow_pickle=allow_pickle,
            )
            made = write_bundle(out, settings, weights=local if include_weights else None, archive=archive)
    except ModelError as error:
        raise UserError(str(error)) from error
    if json_output:
        print_json(
            {
                "folder": str(made.folder),
                "files": len(made.files),
                "bytes": made.total_bytes,
                "manifest_sha256": made.manifest_sha256,
                "archive": None if made.archive is None else str(made.archive),
            }
        )
        return
    out_console = console()
    out_console.print(f"{made.folder}: {len(made.files)} files, {made.total_bytes:,} bytes", soft_wrap=True)
    out_console.print(f"SHA-256 of its manifest.json: {made.manifest_sha256}", soft_wrap=True)
    if made.archive is not None:
        out_console.print(f"{made.archive}", soft_wrap=True)
    if model != "feedback":
        out_console.print(f"\nNext\n  berth serve {made.folder}", soft_wrap=True)
