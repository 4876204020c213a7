"""`berth bundle`: the folder that a machine runs, of a stack or of a model alone, and its way into the bucket."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from berth.options import sandbox_flag
from berth.output import JsonOption, console, print_json

if TYPE_CHECKING:
    from infra.uploads.content import StackBundle
    from infra.uploads.place import Artifacts
    from infra.uploads.send import Sent
    from model_runtime.handler.bundle import Bundle

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    epilog="WHAT is a stack: the bundle then follows its recorded settings, and options go over them. Or a folder with "
    "a model's files, s3://BUCKET/PREFIX, a hub id (org/name), or the word feedback. On a host and on SageMaker the "
    "environment variable BERTH_MODEL_DIR names the folder of the weights, and wins."
)
def bundle(
    what: Annotated[
        str, typer.Argument(metavar="WHAT", help="A stack, the model that the folder serves, or the word feedback.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            show_default=False,
            help="The folder to write; a stack's without it: build/bundles/STACK of the project.",
        ),
    ] = None,
    upload: Annotated[
        bool,
        typer.Option("--upload", help="Of a stack: put the bundle into its artifact bucket and record its manifest."),
    ] = False,
    model_folder: Annotated[
        Path | None,
        typer.Option(
            "--model-folder",
            metavar="DIR",
            help="With --upload: put this model's files where the stack looks for them.",
        ),
    ] = None,
    sandbox: Annotated[bool, typer.Option("--sandbox", help="With --upload: into the sandbox's bucket.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --upload: do not ask before storing in S3.")] = False,
    name: Annotated[str | None, typer.Option("--name", help="The model's name in answers.")] = None,
    dtype: Annotated[str | None, typer.Option("--dtype", help="auto (default), fp32, fp16 or bf16.")] = None,
    quantize: Annotated[str | None, typer.Option("--quantize", help="none (default), int8, nf4 or nf4-dq.")] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", help="Requests that are answered together at most (default 8).")
    ] = None,
    batch_delay: Annotated[
        int | None, typer.Option("--batch-delay", help="Milliseconds that a request waits for others (default 20).")
    ] = None,
    tensor_parallel: Annotated[
        int | None, typer.Option("--tensor-parallel", help="GPUs over which the model's layers are laid (default 1).")
    ] = None,
    input_tokens: Annotated[
        int | None, typer.Option("--input-tokens", help="Tokens of an input at most (default: the model's window).")
    ] = None,
    output_tokens: Annotated[
        int | None, typer.Option("--output-tokens", help="Tokens of an answer at most (default 256).")
    ] = None,
    queue: Annotated[
        int | None, typer.Option("--queue", help="Requests that may wait before others are sent away (default 100).")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option("--metrics", help="Where metric lines go: auto (default), stdout, off, or a file.")
    ] = None,
    include_weights: Annotated[
        bool, typer.Option("--include-weights", help="Of a model's folder: copy its files into the bundle.")
    ] = False,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Read pickled weights where no safetensors are; they can run code.")
    ] = False,
    archive: Annotated[
        bool | None, typer.Option("--archive/--no-archive", help="Write DIR.tar.gz as well; a stack's is by default.")
    ] = None,
    feedback_uri: Annotated[
        str, typer.Option("--feedback-uri", help="Of feedback: the S3 prefix that it is shipped to.")
    ] = "",
    json_output: JsonOption = False,
) -> None:
    """Write the folder that a stack's machines run, upload it; or a model folder for LMI, SageMaker, `berth serve`."""
    from berth.named import is_stack
    from sizing.errors import UserError

    options: dict[str, Any] = {
        "model_name": name, "dtype": dtype, "quantize": "" if quantize == "none" else quantize,
        "batch_size": batch_size, "max_batch_delay_ms": batch_delay, "tensor_parallel_degree": tensor_parallel,
        "max_input_tokens": input_tokens, "max_output_tokens": output_tokens, "job_queue_size": queue,
        "metrics": metrics, "allow_pickle": allow_pickle or None,
    }  # fmt: skip
    given = {key: value for key, value in options.items() if value is not None}
    stack_only = {
        "--upload": upload, "--model-folder": model_folder is not None, "--sandbox": sandbox, "--yes": yes,
    }  # fmt: skip
    if what != "feedback" and is_stack(what):
        if include_weights or feedback_uri:
            raise UserError("--include-weights and --feedback-uri are not for a stack; --model-folder uploads a model")
        if not upload and (wrong := [o for o in ("--model-folder", "--sandbox", "--yes") if stack_only[o]]):
            raise UserError(f"{', '.join(wrong)} need --upload")
        _of_stack(what, out, given, archive is not False, (model_folder, sandbox, yes) if upload else None, json_output)
        return
    if wrong := [option for option, used in stack_only.items() if used]:
        raise UserError(f"{', '.join(wrong)} are for a stack, and {what} is none of this project")
    if out is None:
        raise UserError("where is the folder to be written? Give --out DIR")
    made = _of_model(what, out, given, include_weights, bool(archive), feedback_uri)
    if json_output:
        print_json(_json(made, "feedback" if what == "feedback" else "serving", None))
        return
    _show(made)
    if what != "feedback":
        console().print(f"\nNext\n  berth serve {made.folder}", soft_wrap=True)


def _of_model(
    model: str, out: Path, given: dict[str, Any], include_weights: bool, archive: bool, feedback_uri: str
) -> Bundle:
    from model_runtime.errors import in_one_line
    from model_runtime.handler.bundle import write_bundle, write_feedback_bundle
    from model_runtime.handler.settings import ServingSettings
    from sizing.errors import UserError

    with in_one_line():
        if model == "feedback":
            return write_feedback_bundle(out, feedback_uri=feedback_uri, archive=archive)
        local = Path(model).expanduser()
        if include_weights and not local.is_dir():
            raise UserError(f"--include-weights needs a folder with the model's files; {model} is none")
        place = str(local.resolve()) if local.is_dir() else model
        settings = ServingSettings(**{"model": place, "model_name": local.name, **given})
        return write_bundle(out, settings, weights=local if include_weights else None, archive=archive)


def _of_stack(
    name: str,
    out: Path | None,
    given: dict[str, Any],
    archive: bool,
    send: tuple[Path | None, bool, bool] | None,
    json_output: bool,
) -> None:
    from berth.hub import find_model
    from infra.stack_files import project_root, read_stack
    from infra.uploads.content import write_stack_bundle
    from infra.uploads.place import open_artifacts

    root = project_root()
    # Where it goes is found out before anything is written.
    artifacts = open_artifacts(name, root, sandbox=send[1]) if send else None
    file = artifacts.file if artifacts else read_stack(name, root)
    target = out or root / "build" / "bundles" / name
    made = write_stack_bundle(file, target, overrides=given, archive=archive, find_model=find_model)
    sent: list[tuple[str, Sent]] = []
    notes = list(made.notes)
    if not json_output:
        _show(made.bundle)
    if artifacts and send:
        notes += _upload(artifacts, made, send[0], send[2], sent, quiet=json_output)
    if json_output:
        print_json(
            {
                **_json(made.bundle, made.kind, name),
                "uploads": [{"what": what, **_sent_json(entry)} for what, entry in sent],
                "notes": notes,
            }
        )
        return
    for note in notes:
        console().print(f"Note: {note}", soft_wrap=True)
    _next(name, made.kind, send)


def _upload(
    artifacts: Artifacts,
    made: StackBundle,
    folder: Path | None,
    yes: bool,
    sent: list[tuple[str, Sent]],
    *,
    quiet: bool,
) -> tuple[str, ...]:
    """Upload model and bundle, the bundle last; returns notes."""
    from berth.hub import find_model
    from berth.show.lifecycle import agreed, may_ask
    from infra.uploads.cost import stored_line
    from infra.uploads.send import model_notes, send_bundle, send_model
    from sizing.errors import UserError

    notes = model_notes(folder, artifacts.settings.model, find_model) if folder else ()
    if not artifacts.sandbox:
        typer.echo(stored_line(made.bundle, folder, artifacts.file.region), err=quiet)
        may_ask(yes, json_output=False)
        if not agreed(f"Store it in s3://{artifacts.bucket}?", yes, err=quiet):
            raise UserError("nothing was uploaded")
    if folder:
        sent.append(("model", send_model(artifacts, folder)))
    sent.append(("bundle", send_bundle(artifacts, made)))
    if not quiet:
        for what, entry in sent:
            _show_sent(what, entry, artifacts)
    return notes


def _show(made: Bundle) -> None:
    out = console()
    out.print(f"{made.folder}: {len(made.files)} files, {made.total_bytes:,} bytes", soft_wrap=True)
    out.print(f"SHA-256 of its manifest.json: {made.manifest_sha256}", soft_wrap=True)
    if made.archive is not None:
        out.print(f"{made.archive}", soft_wrap=True)


def _show_sent(what: str, entry: Sent, artifacts: Artifacts) -> None:
    key = "bundle_manifest_sha256" if what == "bundle" else "artifact_manifest_sha256"
    removed = f", {entry.removed} of an earlier one removed" if entry.removed else ""
    out = console()
    out.print(
        f"\n{entry.uri}: {entry.files} files, {entry.total_bytes:,} bytes, {entry.sent_bytes:,} of them sent{removed}",
        soft_wrap=True,
    )
    where = "the sandbox's copy of the stack file" if artifacts.sandbox else str(artifacts.file.path)
    out.print(f"  recorded in {where}: berth:{key}: {entry.manifest_sha256}", soft_wrap=True)


def _next(name: str, kind: str, send: tuple[Path | None, bool, bool] | None) -> None:
    out = console()
    if send is None:
        out.print(f"\nNext\n  berth bundle {name} --upload", soft_wrap=True)
    elif kind == "serving":
        serve = f"berth serve {name}{sandbox_flag(send[1])}"
        out.print(f"\nNext\n  {serve}      # fetches it from there, as the stack's host does", soft_wrap=True)


def _json(made: Bundle, kind: str, stack: str | None) -> dict[str, Any]:
    return {
        "kind": kind,
        "stack": stack,
        "folder": str(made.folder),
        "files": len(made.files),
        "bytes": made.total_bytes,
        "manifest_sha256": made.manifest_sha256,
        "archive": None if made.archive is None else str(made.archive),
        "uploads": [],
        "notes": [],
    }


def _sent_json(entry: Sent) -> dict[str, Any]:
    return {
        "uri": entry.uri,
        "files": entry.files,
        "bytes": entry.total_bytes,
        "sent_bytes": entry.sent_bytes,
        "removed": entry.removed,
        "manifest_sha256": entry.manifest_sha256,
    }
