"""`berth serve`: a model folder, or what a stack uploaded, behind the routes that LMI has, on this machine."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from model_runtime.serving import Options

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    epilog="WHAT is a model folder of `berth bundle`, a model's own folder (config.json, *.safetensors), or a stack: "
    "its bundle and model are then fetched from its bucket and held against the manifests that its file records, as "
    "its host does. SIGTERM and Ctrl-C drain: what was taken is answered, new requests get 503."
)
def serve(
    what: Annotated[
        str,
        typer.Argument(metavar="WHAT", help="A model folder, a model's own folder, or a stack.", show_default=False),
    ] = "",
    sandbox: Annotated[bool, typer.Option("--sandbox", help="Of a stack: what it uploaded to the local AWS.")] = False,
    port: Annotated[int, typer.Option("--port", "-p", help="The port; 0 takes a free one and prints it.")] = 8080,
    host: Annotated[str, typer.Option("--host", help="The address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    tiny: Annotated[
        str, typer.Option("--tiny", help="Instead of WHAT: a tiny model made on the spot: t5, llama, gpt2 or bert.")
    ] = "",
    dtype: Annotated[str, typer.Option("--dtype", help="Over the folder's own: auto, fp32, fp16 or bf16.")] = "",
    quantize: Annotated[str, typer.Option("--quantize", help="Over the folder's own: none, int8, nf4, nf4-dq.")] = "",
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", help="Over the folder's own: requests answered together.")
    ] = None,
    batch_delay: Annotated[
        int | None, typer.Option("--batch-delay", help="Over the folder's own: milliseconds to wait for others.")
    ] = None,
    output_tokens: Annotated[
        int | None, typer.Option("--output-tokens", help="Over the folder's own: tokens of an answer at most.")
    ] = None,
    queue: Annotated[
        int | None, typer.Option("--queue", help="Over the folder's own: requests that may wait before a 503.")
    ] = None,
    max_body: Annotated[int, typer.Option("--max-body", help="Bytes of a request at most.")] = 12_000_000,
    timeout: Annotated[
        float | None, typer.Option("--timeout", help="Seconds in which an answer must be there.")
    ] = None,
    drain: Annotated[
        float, typer.Option("--drain", help="Seconds to refuse new work before the port closes, at the end.")
    ] = 0.0,
    api_key: Annotated[
        str, typer.Option("--api-key", help="Ask every client for this key.", envvar="BERTH_API_KEY", show_envvar=True)
    ] = "",
    feedback: Annotated[
        Path | None, typer.Option("--feedback", help="Take feedback at /feedback and write it into this folder.")
    ] = None,
    metrics: Annotated[
        str, typer.Option("--metrics", help="Where CloudWatch's metric lines go: off, stdout, or a file.")
    ] = "off",
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Read pickled weights where no safetensors are; they can run code.")
    ] = False,
) -> None:
    """Serve a model on this machine: LMI's routes and OpenAI's, batching, health, metrics, draining."""
    from berth.runtime import needs_runtime
    from sizing.errors import UserError

    needs_runtime("berth serve")
    from tempfile import TemporaryDirectory

    from berth.named import is_stack
    from berth.show.progress import progress
    from model_runtime.errors import in_one_line
    from model_runtime.serving import Options, open_and_serve

    if bool(what) == bool(tiny):
        raise UserError("give a model folder or a stack, or --tiny t5|llama|gpt2|bert for one made on the spot")
    stack = bool(what) and is_stack(what)
    if sandbox and not stack:
        raise UserError(f"--sandbox is for a stack, and {what or '--tiny'} is none of this project")
    options = Options(
        overrides={
            name: value
            for name, value in {
                "dtype": dtype,
                "quantize": quantize,
                "batch_size": batch_size,
                "max_batch_delay_ms": batch_delay,
                "max_output_tokens": output_tokens,
                "job_queue_size": queue,
                "allow_pickle": allow_pickle or None,
                "metrics": metrics,
            }.items()
            if value not in (None, "")
        },
        max_body_bytes=max_body,
        answer_s=timeout,
        drain_s=drain,
        api_key=api_key,
        feedback=feedback,
    )

    def say(text: str) -> None:
        typer.echo(text, err=True)

    with in_one_line(), TemporaryDirectory(prefix="berth-tiny-") as place:
        folder = Path(what)
        if tiny:
            from model_runtime.tiny import KINDS, build

            if tiny not in KINDS:
                raise UserError(f"--tiny is {tiny!r}; one of {', '.join(KINDS)}")
            folder = build(tiny, Path(place) / f"tiny-{tiny}")
        elif stack:
            folder, options = _of_stack(what, sandbox, options, say)
        open_and_serve(folder, host, port, options, say=say, watched=progress)
    sys.stdout.flush()


def _of_stack(name: str, sandbox: bool, options: Options, say: Callable[[str], None]) -> tuple[Path, Options]:
    """Fetch a stack's bundle and model, checked; its weights are those that were fetched, as `BERTH_MODEL_DIR` says on
    the host."""
    from dataclasses import replace

    from berth.show.progress import progress
    from infra.stack_files import project_root
    from infra.uploads.place import open_artifacts
    from infra.uploads.receive import receive

    with progress() as told:
        got = receive(open_artifacts(name, project_root(), sandbox=sandbox), say=say, progress=told)
    return got.bundle, replace(options, overrides={**options.overrides, "model": str(got.model.resolve())})
