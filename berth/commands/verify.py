"""`berth verify`: what a served model does on this machine, measured beside its estimate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from berth.output import JsonOption, console, print_json, table

if TYPE_CHECKING:
    from rich.console import Console

    from berth.stack_target import Target

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    epilog="Of a folder everything is measured, in processes of its own: start-up, largest batch, memory, latency and "
    "throughput. Of a URL, and of a stack (its address, or its SageMaker endpoint), what can be seen from outside: "
    "latency and throughput. The report is a Measurement file; that of a folder is what berth size --measured takes."
)
def verify(
    target: Annotated[
        str, typer.Argument(help="A model folder, a model's own folder, the URL of a server, or a stack that is up.")
    ],
    url: Annotated[
        str, typer.Option("--url", help="Of a stack: where it is reached, instead of its own address.")
    ] = "",
    sandbox: Annotated[
        bool, typer.Option("--sandbox", help="Of a stack: the one of the local AWS; needs --url.")
    ] = False,
    workload: Annotated[
        Path | None, typer.Option("--workload", help="Your own prompts: JSON lines, or an object with prompts.")
    ] = None,
    report: Annotated[Path | None, typer.Option("--report", help="Write the Measurement to this file.")] = None,
    input_tokens: Annotated[
        int | None,
        typer.Option("--input-tokens", min=1, help="Tokens of the prompts that are made (default 64, or the stack's)."),
    ] = None,
    output_tokens: Annotated[
        int | None,
        typer.Option("--output-tokens", min=1, help="Tokens of each answer (default 32, or the stack's)."),
    ] = None,
    requests: Annotated[int, typer.Option("--requests", min=1, help="Requests of each run.")] = 32,
    runs: Annotated[int, typer.Option("--runs", min=1, help="Runs of each concurrency, for their spread.")] = 3,
    starts: Annotated[
        int, typer.Option("--starts", min=1, help="Of a folder: how often its start is measured, for the spread.")
    ] = 3,
    fetch_again: Annotated[
        bool,
        typer.Option(
            "--fetch-again", help="Each start fetches the weights anew, as a machine does that has just come (S3, hub)."
        ),
    ] = False,
    max_concurrency: Annotated[int, typer.Option("--max-concurrency", min=1, help="Clients at once at most.")] = 32,
    rate: Annotated[
        float | None, typer.Option("--rate", help="Arrivals a second; none: 0.7 of the best throughput.")
    ] = None,
    latency: Annotated[
        float | None, typer.Option("--latency", help="Seconds in which 90 % of answers should be there.")
    ] = None,
    batch_limit: Annotated[int, typer.Option("--batch-limit", min=1, help="The largest batch that is tried.")] = 256,
    memory_limit: Annotated[
        float | None, typer.Option("--memory-limit", help="On a CPU: GiB beyond which a batch does not fit.")
    ] = None,
    api: Annotated[str, typer.Option("--api", help="How a URL is asked: native (/invocations) or openai.")] = "native",
    api_key: Annotated[
        str, typer.Option("--api-key", help="The server's key.", envvar="BERTH_API_KEY", show_envvar=True)
    ] = "",
    dtype: Annotated[str, typer.Option("--dtype", help="Over the folder's own: auto, fp32, fp16 or bf16.")] = "",
    quantize: Annotated[str, typer.Option("--quantize", help="Over the folder's own: none, int8, nf4, nf4-dq.")] = "",
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", help="Over the folder's own: requests answered together.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Measure a served model: latency, throughput, largest batch, memory beside the estimate."""
    from berth.runtime import needs_runtime
    from sizing.errors import UserError

    needs_runtime("berth verify")
    if api not in ("native", "openai"):
        raise UserError(f"--api is {api!r}; native or openai")
    for name, value in (("--rate", rate), ("--latency", latency), ("--memory-limit", memory_limit)):
        if value is not None and not value > 0:
            raise UserError(f"{name} is {value:g}; it must be above 0")
    from berth.show.progress import progress
    from model_runtime.errors import in_one_line
    from model_runtime.verify.measurement import check_place, write_measurement
    from model_runtime.verify.plan import Plan
    from model_runtime.verify.run import verify as measure

    overrides = {"dtype": dtype, "quantize": quantize, "batch_size": batch_size, "max_output_tokens": None}
    found = _stack(target, url, sandbox)
    if found is not None:
        input_tokens = input_tokens or found.input_tokens
        output_tokens = output_tokens or max(1, found.output_tokens)
        latency = latency or found.latency_s
        target = found.stack.address
    plan = Plan(
        target=target.rstrip("/") if "://" in target else target,
        workload=workload,
        input_tokens=input_tokens or 64,
        output_tokens=output_tokens or 32,
        requests=requests,
        runs=runs,
        max_concurrency=max_concurrency,
        rate=rate,
        latency_s=latency,
        starts=starts,
        fetch_again=fetch_again,
        batch_limit=batch_limit,
        memory_limit_bytes=None if memory_limit is None else int(memory_limit * 2**30),
        api="openai" if api == "openai" else "native",
        api_key=api_key,
        overrides={name: value for name, value in overrides.items() if value not in (None, "")},
        stack=None if found is None else found.stack,
        transport=None if found is None or not found.endpoint else _transport(found, max_concurrency),
    )
    with in_one_line():
        if report is not None:
            check_place(report)
        with progress() as told:
            document = measure(plan, told)
    if report is not None:
        write_measurement(document, report)
    if json_output:
        print_json(document)
    else:
        _show(document, report)


def _stack(target: str, url: str, sandbox: bool) -> Target | None:
    """The stack that is meant, and where it is reached; None where a folder or a URL is meant."""
    from sizing.errors import UserError

    if "://" in target or Path(target).exists():
        if url or sandbox:
            raise UserError(
                f"--url and --sandbox are for a stack; {target} is a {'URL' if '://' in target else 'folder'}"
            )
        return None
    from infra.stack_files import project_root, read_stack, stack_names

    root = project_root()
    if target not in stack_names(root):
        named = ", ".join(stack_names(root))
        raise UserError(f"{target} is no folder here, no URL and no stack of this project ({named})")
    if url and "://" not in url:
        raise UserError(f"--url is {url!r}; give it whole, as http://127.0.0.1:8080")
    from berth.stack_target import find_target

    if url and not sandbox:
        return find_target(read_stack(target, root), None, None, sandbox=False, url=url)
    from infra.cloud import cloud_for
    from infra.lifecycle.engine import engine_for

    engine = engine_for(root, sandbox)
    file = read_stack(target, engine.project)
    return find_target(file, engine, cloud_for(file.region, sandbox), sandbox=sandbox, url=url)


def _transport(found: Target, connections: int) -> Any:
    from model_runtime.verify.sagemaker import EndpointTransport, runtime_client

    room = max(connections, 256)
    return EndpointTransport(runtime_client(found.stack.region, room, 300.0), found.endpoint, room)


def _show(document: dict[str, Any], report: Path | None) -> None:
    out = console()
    start, stack = document["start_up"], document["stack"]
    if stack:
        out.print(
            f"\nStack {stack['name']}: {stack['model']} in {stack['dtype']} at {stack['address']}", soft_wrap=True
        )
    if start:
        _show_start(out, start)
    out.print("\nThroughput and latency (closed loop; median of the runs, ± half their spread)")
    names = ("clients", "tokens/s", "±", "requests/s", "p50 s", "p90 s", "p99 s", "first token p50 s", "failed")
    drawn = table(*names, right=names)
    for step in document["sweep"]:
        rate = step["output_tokens_per_s"]
        drawn.add_row(
            str(step["concurrency"]),
            f"{rate['median']:.4g}",
            f"{rate['relative'] / 2:.0%}",
            f"{step['requests_per_s']['median']:.3g}",
            *(_seconds(step[f"latency_s_{p}"]) for p in ("p50", "p90", "p99")),
            _seconds(step["first_token_s_p50"]),
            str(step["failed"]),
        )
    out.print(drawn)
    arrivals = document["open_loop"]
    if arrivals["latency_s"]:
        latency = arrivals["latency_s"]
        out.print(
            f"\nPoisson arrivals, {arrivals['rate_per_s']:.3g} a second: p50 {latency['p50']:.3g} s, "
            f"p90 {latency['p90']:.3g} s, p99 {latency['p99']:.3g} s, from when each was due"
        )
    _show_memory(out, document)
    if document["verdicts"]:
        out.print("\nSo")
        for line in document["verdicts"]:
            out.print(f"  {line}")
    if report is not None:
        out.print(f"\nThe measurement is in {report}", soft_wrap=True)


def _show_start(out: Console, start: dict[str, Any]) -> None:
    from model_runtime.progress import size
    from model_runtime.verify.start import PARTS

    whole, times = start["total_s"], len(start["starts"])
    apart = f" (median of {times}: {whole['min']:.2f} to {whole['max']:.2f} s)" if times > 1 else ""
    out.print(f"\nStart-up: {whole['median']:.2f} s to the first token of a batch of 1{apart}")
    parts = [f"{p.removesuffix('_s').replace('_', ' ')} {start[p]:.2f} s" for p in PARTS if start[p]]
    out.print(f"  {', '.join(parts)}")
    fetched = start["downloaded_bytes"]
    out.print(
        f"  {size(fetched)} were fetched"
        if fetched
        else "  The weights were on this machine: read from its disk, nothing fetched"
    )


def _show_memory(out: Console, document: dict[str, Any]) -> None:
    largest, memory = document["largest_batch"], document["memory"]
    if largest:
        out.print(
            f"\nLargest batch ({largest['input_tokens']} tokens in, {largest['output_tokens']} out): "
            f"{largest['batch']}; {largest['why']}"
        )
    if not memory:
        return
    out.print(f"\nMemory at batch {memory['batch']} ({memory['metric']})")
    drawn = table(
        "term", "measured MiB", "estimated MiB", "difference", right=("measured MiB", "estimated MiB", "difference")
    )
    for term in memory["terms"]:
        estimated = term["estimated_bytes"]
        drawn.add_row(
            term["name"],
            _mib(term["measured_bytes"]),
            "–" if estimated is None else _mib(estimated),
            "–" if term["difference"] is None else f"{term['difference']:+.1%}",
        )
    out.print(drawn)
    _show_host(out, memory["host"])


def _show_host(out: Console, host: dict[str, Any]) -> None:
    measured = _mib(host["measured_load_peak_bytes"])
    out.print(f"\nHost memory at the peak of loading: {measured} MiB measured, beyond the imports")
    # The estimate is of a whole machine: what is not weights was there before the measured process loaded anything.
    for term in host.get("estimated_terms", ()):
        beside = "" if term["name"].startswith("weights") else ", not in what was measured"
        out.print(f"  {term['name']}: {_mib(term['bytes'])} MiB estimated{beside}")


def _mib(size: float) -> str:
    return f"{size / 2**20:,.2f}"


def _seconds(value: dict[str, Any] | None) -> str:
    return "–" if value is None else f"{value['median']:.3g}"
