"""`berth metrics`: how a stack does, what its requests cost, and whether another machine would do better."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from berth.options import StackArgument
from berth.output import JsonOption, console, print_json, table

if TYPE_CHECKING:
    from infra.operations.advice import Advice
    from infra.operations.observed import Observed
    from infra.operations.reached import Reached

app = typer.Typer(add_completion=False, rich_markup_mode=None)
UNKNOWN = "unknown"


@app.command(
    epilog="Reads CloudWatch; nothing is changed. What it has no data of is unknown. Costs are at the bill's rates, "
    "without traffic and logs; docs/operations.md says how each number comes about."
)
def metrics(
    stack: StackArgument,
    since: Annotated[
        str,
        typer.Option("--since", metavar="TIME", help="From when on: 90m, 1h, 7d, a day, or a moment with its zone."),
    ] = "1h",
    sandbox: Annotated[bool, typer.Option("--sandbox", help="Ask the local AWS of `berth sandbox`.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Show requests, latency, errors, GPU use and cost per 1,000 requests reached; suggest another machine."""
    from datetime import UTC, datetime

    from infra.bill.bill import bill_of
    from infra.operations.advice import advise
    from infra.operations.clients import clients_for
    from infra.operations.machines import find
    from infra.operations.observed import observe
    from infra.operations.reached import reached
    from infra.operations.since import parse_since
    from infra.plan import plan_stack
    from infra.settings import AUTO, ServiceSettings
    from infra.stack_files import project_root, read_stack
    from sizing.errors import UserError
    from sizing.hardware.load import load_hardware
    from sizing.models.resolve import resolve_model

    file = read_stack(stack)
    settings = file.settings
    if not isinstance(settings, ServiceSettings):
        raise UserError(f"stack {stack} serves nobody (role {settings.role}); metrics are those of a serving stack")
    if settings.instance_type == AUTO:
        raise UserError(f"stack {stack} has no machine recorded; `berth settings {stack} --record` writes it down")
    now = datetime.now(UTC).replace(microsecond=0)
    start = parse_since(since, now)
    client = clients_for(file.region, sandbox)
    machines = find(client, file)
    seen = observe(client, file, machines, start, now)
    hardware = load_hardware()
    bill = bill_of(plan_stack(stack, project_root(), hardware=hardware), hardware=hardware)
    cost = reached(bill, settings, seen)
    advice = advise(settings, file.region, resolve_model(settings.model), hardware, seen)
    instance = hardware.instance(settings.instance_type)
    document = {
        "format": "berth-metrics/1",
        "stack": stack,
        "role": settings.role,
        "model": settings.model,
        "dtype": settings.dtype,
        "region": file.region,
        "since": start.isoformat(),
        "until": now.isoformat(),
        "machines": {
            "instance_type": settings.instance_type,
            "planned": settings.replicas,
            "instances": list(machines.instances),
            "endpoint": machines.endpoint or None,
        },
        "observed": seen.to_json(),
        "gpu_memory_bytes_there": None if instance.gpu is None else instance.gpu.memory_bytes * instance.gpus,
        "limits": {"input_tokens": settings.input_tokens, "output_tokens": settings.output_tokens},
        "latency_wish_s": settings.latency_ms / 1000.0 or None,
        "planned_requests_per_day": settings.requests_per_day or None,
        "cost": cost.to_json(),
        "advice": advice.to_json(),
        "notes": list(seen.notes),
    }
    if json_output:
        print_json(document)
    else:
        _show(document, seen, cost, advice)


def _seconds(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value * 1000:,.0f} ms" if value < 1 else f"{value:,.2f} s"


def _number(value: float | None, unit: str = "") -> str:
    return UNKNOWN if value is None else f"{value:,.0f}{unit}"


def _show(document: dict[str, Any], seen: Observed, cost: Reached, advice: Advice) -> None:
    out = console()
    machines = document["machines"]
    out.print(
        f"{document['stack']}: {machines['planned']} × {machines['instance_type']} in {document['region']}, "
        f"{seen.start:%Y-%m-%d %H:%M} to {seen.end:%Y-%m-%d %H:%M} UTC\n"
    )
    drawn = table("What", "Seen", "Planned", wrap=("Seen", "Planned"))
    wished = document["latency_wish_s"]
    daily = document["planned_requests_per_day"]
    drawn.add_row("requests", _requests(seen), f"{daily:,} a day" if daily else "")
    drawn.add_row("busiest hour", _peak(seen, advice), "")
    drawn.add_row("latency, half of all within", _seconds(seen.latency.p50), "")
    drawn.add_row("latency, 19 of 20 within", _seconds(seen.latency.p95), f"{wished:g} s" if wished else "")
    drawn.add_row("waiting before that, 19 of 20", _seconds(seen.queue.p95), "")
    drawn.add_row("first token, 19 of 20", _seconds(seen.first_token.p95), "")
    if seen.balancer_latency.p95 is not None:
        drawn.add_row("at the load balancer, 19 of 20", _seconds(seen.balancer_latency.p95), "")
    drawn.add_row("errors", _errors(seen), "")
    tokens, limits = seen.tokens_per_request, document["limits"]
    drawn.add_row(
        "tokens a request, in and out",
        UNKNOWN if tokens is None else f"{tokens[0]:,.0f} and {tokens[1]:,.0f}",
        f"at most {limits['input_tokens']:,} and {limits['output_tokens']:,}",
    )
    drawn.add_row("answered together", UNKNOWN if seen.batch is None else f"{seen.batch:.1f}", "")
    drawn.add_row("GPU use", _gpu(seen), "")
    drawn.add_row("GPU memory, most", _memory(document, seen), "")
    drawn.add_row("hours of machines", UNKNOWN if seen.host_hours is None else f"{seen.host_hours:,.1f}", "")
    drawn.add_row(
        "cost of 1,000 requests",
        UNKNOWN if cost.per_1000 is None else f"${cost.per_1000:,.4f} (${cost.spent:,.2f} in all)",
        "" if cost.planned_per_1000 is None else f"${cost.planned_per_1000:,.4f}",
    )
    out.print(drawn)
    if cost.why:
        spent = "" if cost.spent is None else f"; spent: ${cost.spent:,.2f}"
        out.print(f"Cost of 1,000 requests: {cost.why}{spent}")
    for line in cost.unpriced:
        out.print(f"Unpriced, not counted: {line}", soft_wrap=True)
    for note in seen.notes:
        out.print(note[0].upper() + note[1:])
    out.print("")
    _show_advice(out, document, advice)


def _show_advice(out: Any, document: dict[str, Any], advice: Advice) -> None:
    now = "" if advice.now_usd_per_month is None else f"; what stands: ${advice.now_usd_per_month:,.2f}"
    taken = f"{advice.hosts} × {advice.instance_type}"
    if advice.usd_per_month is not None:
        taken += f", ${advice.usd_per_month:,.2f} a month{now}"
    head = {
        "keep": "Keep what stands",
        "cheaper": f"Cheaper: {taken}",
        "larger": f"Too small. Take {taken}",
        "unknown": "No suggestion",
    }[advice.kind]
    out.print(f"{head}: {'; '.join(advice.reasons)}." if advice.kind in ("keep", "unknown") else head)
    if advice.kind in ("cheaper", "larger"):
        for reason in advice.reasons:
            out.print(f"  {reason}")
        out.print(f"\nNext\n  {size_command(document, advice)}", soft_wrap=True)


def size_command(document: dict[str, Any], advice: Advice) -> str:
    """The command that sizes for the work that was seen."""
    load = advice.workload
    if load is None:
        return "berth size"
    words = [
        f"berth size {document['model']} --dtype {document['dtype']}",
        f"--region {document['region']}", f"--input-tokens {load.input_tokens}",
        f"--output-tokens {load.output_tokens}", f"--requests-per-day {load.requests_per_day:.0f}",
        f"--peak-factor {load.peak_factor:.3g}",
    ]  # fmt: skip
    if load.latency_s:
        words.append(f"--latency {load.latency_s:g}")
    if load.hours_per_day != 24:
        words.append(f"--hours-per-day {load.hours_per_day:g}")
    return " ".join(words)


def _requests(seen: Observed) -> str:
    if seen.requests is None or seen.rate is None:
        return UNKNOWN
    return f"{seen.requests:,.0f}, {seen.rate:.3g} a second"


def _peak(seen: Observed, advice: Advice) -> str:
    if seen.busiest_hour is None:
        return UNKNOWN
    able = "" if advice.capacity_per_s is None else f"; estimated to carry {advice.capacity_per_s * 3600:,.0f} an hour"
    return f"{seen.busiest_hour:,.0f}{able}"


def _errors(seen: Observed) -> str:
    if seen.errors is None:
        return UNKNOWN
    share = f" ({seen.errors / seen.requests:.2%})" if seen.requests else ""
    return f"{seen.errors:,.0f}{share}, of them the server's: {_number(seen.server_errors)}"


def _gpu(seen: Observed) -> str:
    if seen.gpu_percent is None:
        return UNKNOWN
    most = "" if seen.gpu_percent_most is None else f", at most {seen.gpu_percent_most:.0f} %"
    return f"{seen.gpu_percent:.0f} % on average{most}"


def _memory(document: dict[str, Any], seen: Observed) -> str:
    from sizing.units import gib

    there = document["gpu_memory_bytes_there"]
    if seen.gpu_memory_bytes is not None:
        return gib(int(seen.gpu_memory_bytes)) + (f" of {gib(there)}" if there else "")
    return UNKNOWN if seen.gpu_memory_percent is None else f"{seen.gpu_memory_percent:.0f} %"
