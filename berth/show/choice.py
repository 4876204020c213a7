"""A choice for a person to read: the machine, its memory, its costs, and why the others were not taken."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from berth.output import folded, table
from berth.show.memory import between, term_rows
from sizing.cost import Costs, hours_in_words
from sizing.memory.loading import usable_ram_bytes
from sizing.throughput.ranges import Range
from sizing.units import GIB, count, gib, whole

if TYPE_CHECKING:
    from rich.console import Console

    from sizing.choose import Choice, Chosen
    from sizing.choosing.refusal import Refusal
    from sizing.measured.outcome import Outcome

_FIRST_OF_GROUP = 3


def show_choice(out: Console, choice: Choice, chosen: Chosen, costs: Costs, outcome: Outcome | None = None) -> None:
    """Print the choice as a whole; `chosen` and `costs` are those of `choice`, `outcome` what measuring changed."""
    _show_machine(out, choice, chosen)
    if outcome is not None:
        out.print()
        show_measured(out, outcome)
    _show_memory(out, choice, chosen)
    _show_costs(out, costs)
    _show_rare_use(out, costs)
    _show_refused(out, choice.refused)


def show_measured(out: Console, outcome: Outcome) -> None:
    """What was measured, what follows from it, and which of the figures below were measured."""
    files = ", ".join(f"{m.path} ({m.device}, {m.measured_at[:10]})" for m in outcome.calibration.measured)
    folded(out, f"Measured: {files}", "")
    for line in outcome.lines():
        folded(out, line)
    kinds: dict[str, list[str]] = {}
    for name, origin in outcome.origins():
        kinds.setdefault(origin, []).append(name)
    for origin in ("measured", "carried over", "estimated"):
        if origin in kinds:
            folded(out, f"{origin}: {', '.join(kinds[origin])}")


def usd(amount: float) -> str:
    """`$548.96`; more digits for what costs less than a dollar."""
    return f"${amount:,.2f}" if amount >= 1 else f"${amount:,.4g}"


def seconds(figure: Range) -> str:
    """`4.2 s (3.2 to 6.5)`."""
    return f"{figure.likely:,.3g} s ({figure.low:,.3g} to {figure.high:,.3g})"


def _minutes(figure: Range) -> str:
    return f"{figure.likely / 60:.1f} min ({figure.low / 60:.1f} to {figure.high / 60:.1f})"


def _show_machine(out: Console, choice: Choice, chosen: Chosen) -> None:
    from rich.text import Text

    model, serving, gpu = choice.model, chosen.serving, chosen.instance.gpu
    out.print(f"{model.name}: {count(model.params)} parameters, {model.architecture}, {model.licence}")
    hosts = f"{serving.hosts:,} × " if serving.hosts > 1 else ""
    price = f"{usd(chosen.usd_per_hour)} an hour{' each' if serving.hosts > 1 else ''}"
    headline = (
        Text(f"{hosts}{chosen.instance.name}", style="bold")
        + Text(f" in {chosen.region}, {chosen.pay}: {price}, ")
        + Text(f"{usd(chosen.usd_per_month)} a month", style="bold")
        + Text(f", {usd(chosen.usd_per_year)} a year")
    )
    out.print()
    if len(headline) <= out.width:
        out.print(headline)
    else:
        folded(out, headline.plain, "")
    if choice.leaner is not None:
        folded(out, choice.leaner.line)
    gpus = f"{chosen.instance.gpu_count:g} × {gpu.name if gpu else 'no GPU'}"
    copies = f", {serving.copies} copies of the model" if serving.copies > 1 else ""
    folded(
        out,
        f"{gpus}, {chosen.instance.memory_bytes / GIB:g} GiB of RAM{copies}; {serving.dtype}, "
        f"batch {serving.batch}, {chosen.max_batch:,} at most",
    )
    if chosen.speed is not None:
        what = "one request" if serving.batch == 1 else f"a batch of {serving.batch} requests"
        work = choice.workload
        tokens = f"{work.input_tokens:,} tokens in" + (f", {work.output_tokens:,} out" if work.output_tokens else "")
        out_rate = f", {chosen.speed.output_tokens_per_s.likely:,.0f} tokens/s" if work.output_tokens else ""
        first = f", first token after {chosen.speed.first_token.likely:.2g} s" if work.output_tokens else ""
        folded(out, f"{what} ({tokens}) takes {seconds(chosen.speed.total)}{first}{out_rate}")
    if choice.workload.requests_per_day is not None and serving.requests_per_s_per_host is not None:
        mean = choice.workload.requests_per_day / choice.workload.hours_per_day
        peak = mean * choice.workload.peak_factor
        folded(
            out,
            f"{whole(choice.workload.requests_per_day)} requests a day over {choice.workload.hours_per_day:g} hours, "
            f"{peak:,.0f} in the busiest hour ({choice.workload.peak_factor:g} × the mean); with larger batches a host "
            f"carries up to {serving.requests_per_s_per_host * 3600:,.0f} an hour",
        )
    for note in choice.notes:
        folded(out, note)


def _show_memory(out: Console, choice: Choice, chosen: Chosen) -> None:
    gpu, serving, rule = chosen.instance.gpu, chosen.serving, choice.memory.rule_of_thumb
    if gpu is None:
        return
    each = f"each of {serving.gpus_per_copy} {gpu.name}" if serving.gpus_per_copy > 1 else f"the {gpu.name}"
    drawn = table("GPU memory", "GiB", "how", right=("GiB",), wrap=("how",))
    for row in term_rows(choice.memory.device):
        drawn.add_row(*row)
    drawn.add_section()
    drawn.add_row(
        "in all",
        f"{choice.memory.device.total_bytes / GIB:,.2f}",
        f"of {gib(gpu.memory_bytes)} that the driver leaves ({between(choice.memory.device)})",
    )
    drawn.add_row(
        "rule of thumb",
        f"{rule.total_bytes / GIB:,.2f}",
        f"{count(rule.params)} × {rule.bytes_per_param:g} × {rule.overhead:g}",
    )
    out.print()
    out.print(drawn)
    usable = usable_ram_bytes(chosen.instance.memory_bytes)
    out.print()
    folded(
        out,
        f"Memory on {each} at batch {serving.batch} in {serving.dtype}. System RAM while loading "
        f"({choice.wishes.loading}): {gib(choice.memory.host.total_bytes)} of {gib(usable)} usable.",
        "",
    )


def _show_costs(out: Console, costs: Costs) -> None:
    hosts = f"{costs.hosts:,} hosts" if costs.hosts > 1 else "1 host"
    money = ("an hour", "a month", "a year", "1,000 requests", "M tokens")
    drawn = table("costs", *money, right=money)

    def rate(value: float | None) -> str:
        return "unknown" if value is None else usd(value)

    for line in costs.lines:
        drawn.add_row(
            line.pay,
            usd(line.usd_per_hour),
            usd(line.usd_per_month),
            usd(line.usd_per_year),
            rate(line.usd_per_1000_requests),
            rate(line.usd_per_million_tokens),
        )
    endpoint = costs.sagemaker
    if endpoint.usd_per_hour is not None and endpoint.usd_per_month is not None and endpoint.usd_per_year is not None:
        drawn.add_section()
        drawn.add_row(
            "SageMaker",
            usd(endpoint.usd_per_hour),
            usd(endpoint.usd_per_month),
            usd(endpoint.usd_per_year),
            rate(endpoint.usd_per_1000_requests),
            rate(endpoint.usd_per_million_tokens),
        )
    out.print()
    out.print(drawn)
    out.print()
    folded(out, f"{hosts}, {hours_in_words(costs.hours_per_day)}; reserved and savings plans are paid for all 730.", "")
    dates: dict[str, list[str]] = {}
    for line in costs.lines:
        dates.setdefault(line.as_of, []).append(line.pay)
    if endpoint.as_of:
        dates.setdefault(endpoint.as_of, []).append("SageMaker")
    days = (f"{day} ({', '.join(what)})" for day, what in dates.items())
    folded(out, f"Prices of {', '.join(days)}.", "")
    if costs.basis:
        folded(out, f"Per request: {costs.basis}.", "")
    if endpoint.usd_per_hour is None:
        folded(out, f"SageMaker endpoint {endpoint.instance_type}: {endpoint.note}.", "")
    elif endpoint.difference_percent is not None:
        more = "dearer" if endpoint.difference_percent >= 0 else "cheaper"
        percent = f"{abs(endpoint.difference_percent):.0f} % {more} than on demand"
        folded(out, f"SageMaker endpoint {endpoint.instance_type}: {percent}.", "")
    if costs.upfront:
        folded(out, "Other terms, an hour: " + ", ".join(f"{n} {usd(r)}" for n, r in costs.upfront) + ".", "")
    for line in costs.lines:
        if line.note:
            folded(out, f"{line.pay}: {line.note}.", "")
    if costs.unpriced:
        folded(out, f"Unpriced: {', '.join(costs.unpriced)} (`berth catalog refresh` looks them up).", "")


def _show_rare_use(out: Console, costs: Costs) -> None:
    rare = costs.rare_use
    if rare is None:
        return
    steps = rare.start_up
    out.print()
    folded(
        out,
        f"Used rarely? A fresh machine answers after {_minutes(steps.total)}: boot {steps.boot.likely:.0f} s, "
        f"container image {steps.image.likely:.0f} s, model download {steps.download.likely:.0f} s, "
        f"loading {steps.load.likely:.0f} s.",
        "",
    )
    if costs.reserved_pays_above_hours is not None:
        folded(
            out, f"reserved-1y costs less than on demand above {costs.reserved_pays_above_hours:.1f} hours a day.", ""
        )
    if rare.busy_hours_per_day is None and costs.hours_per_day >= 24.0:
        return
    drawn = table("way", "a month", "wait", "note", right=("a month",), wrap=("note", "way"))
    for way in rare.ways:
        wait = "none" if way.delay_s.high == 0 else f"{way.delay_s.likely / 60:.0f} min"
        if "once a day" in way.name:
            wait = "up to a day"
        drawn.add_row(way.name, "unpriced" if way.usd_per_month is None else usd(way.usd_per_month), wait, way.note)
    out.print()
    out.print(drawn)


def _show_refused(out: Console, refused: tuple[Refusal, ...]) -> None:
    out.print()
    out.print("Why not the others (--json has every reason)")
    for kind, members in groupby(refused, key=lambda r: r.kind):
        group = list(members)
        types: dict[str, list[str]] = {}
        for refusal in group:
            types.setdefault(refusal.reason.removeprefix(f"{kind}: "), []).append(refusal.instance_type)
        said = [f"{_some(names)}: {reason}" for reason, names in types.items()][:_FIRST_OF_GROUP]
        rest = len(group) - sum(len(names) for names in list(types.values())[:_FIRST_OF_GROUP])
        more = f"; and {rest} more" if rest else ""
        folded(out, f"{kind} ({len(group)}): {'; '.join(said)}{more}")


def _some(names: list[str]) -> str:
    first = ", ".join(names[:_FIRST_OF_GROUP])
    return first if len(names) <= _FIRST_OF_GROUP else f"{first} and {len(names) - _FIRST_OF_GROUP} more"
