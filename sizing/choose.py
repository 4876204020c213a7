"""Offers -> the choice, with a reason for every other instance type.

A machine is refused for the first of these that applies: it has no CUDA GPU; more GPUs than wished; a dtype that its
GPU cannot run; GPU memory (the likely total as the driver sees it, against what the driver leaves); system RAM while
the model loads; offered or priced nowhere wished; a latency not held; a budget passed. Of the machines left the one
with the lowest cost a month serves, all its hosts together, under the way of paying asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sizing.choosing.fit import LEAN_LOADING
from sizing.choosing.leaner import LEAN_HOLDS, LEAST_SAVING_USD, Leaner, could_open
from sizing.choosing.precision import explain_auto
from sizing.choosing.refusal import Refusal
from sizing.choosing.serving import Planner, Serving, waits
from sizing.choosing.wishes import Wishes, check_engine
from sizing.hardware.load import Hardware
from sizing.hardware.types import InstanceType, Pay, Price
from sizing.memory.loading import usable_ram_bytes
from sizing.memory.terms import MemoryEstimate
from sizing.models.facts import ModelFacts
from sizing.money import month_cost, year_cost
from sizing.throughput.capacity import BATCHES
from sizing.throughput.roofline import RequestSpeed, request_speed
from sizing.units import gib
from sizing.workload import Workload, check_context

if TYPE_CHECKING:
    from sizing.measured.calibration import Calibration


@dataclass(frozen=True, slots=True)
class Chosen:
    """The offer taken and how it serves. Costs are in US dollars, all hosts together."""

    instance: InstanceType
    price: Price
    pay: Pay
    serving: Serving
    max_batch: int
    """The largest batch whose likely total fits the GPU (each of them)."""
    usd_per_hour: float
    """Of one host."""
    usd_per_month: float
    usd_per_year: float
    speed: RequestSpeed | None
    """At the batch it serves."""
    bulk: RequestSpeed | None
    """At the largest listed batch that fits: what a batch job reaches."""

    @property
    def region(self) -> str:
        return self.price.region

    def to_json(self) -> dict[str, Any]:
        return {
            "instance_type": self.instance.name,
            "region": self.region,
            "pay": self.pay,
            "dtype": self.serving.dtype,
            "max_batch": self.max_batch,
            "usd_per_hour": self.usd_per_hour,
            "usd_per_month": round(self.usd_per_month, 2),
            "usd_per_year": round(self.usd_per_year, 2),
            "hosts": self.serving.hosts,
            "batch": self.serving.batch,
            "gpu": self.instance.gpu.name if self.instance.gpu else None,
            "gpus": self.instance.gpus,
            "gpus_per_copy": self.serving.gpus_per_copy,
            "copies": self.serving.copies,
            "memory_gib": self.instance.memory_bytes / 2**30,
            "price_as_of": price_date(self.price, self.pay),
            "price_terms": self.price.terms.get(self.pay) or None,
        }


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen (None: nothing fits), and every other type with its reason, the nearest first."""

    model: ModelFacts
    workload: Workload
    wishes: Wishes
    chosen: Chosen | None
    refused: tuple[Refusal, ...]
    memory: MemoryEstimate
    """Of the choice at the batch it serves; of the nearest machine where nothing was chosen."""
    notes: tuple[str, ...] = field(default=())
    calibration: Calibration | None = None
    """What was measured and has taken the place of estimates."""
    leaner: Leaner | None = None
    """The cheaper machine that memory-mapped loading would open; None where there is none, or it is asked for."""

    def nearest_miss(self) -> Refusal | None:
        """The refused type that came nearest to serving; None where the catalogue holds no types."""
        return self.refused[0] if self.refused else None


_NEARNESS = {
    kind: i
    for i, kind in enumerate(
        (
            "costs more", "over budget", "latency", "speed unknown", "unpriced", "not offered", "system RAM",
            "GPU memory", "dtype", "too many GPUs", "architecture", "AWS Neuron", "no GPU",
        )
    )
}  # fmt: skip
_GROUP_OF_PAY = {
    "on-demand": "on_demand",
    "reserved-1y": "reserved",
    "reserved-3y": "reserved",
    "savings-1y": "savings_plan",
    "savings-3y": "savings_plan",
    "spot": "spot",
}


def price_date(price: Price, pay: Pay) -> str:
    """The day that a rate was read, or 'undated'."""
    return price.as_of.get(_GROUP_OF_PAY[pay], "") or "undated"


@dataclass(frozen=True, slots=True)
class _Candidate:
    instance: InstanceType
    serving: Serving
    price: Price
    pay: Pay
    rate: float
    month: float


def choose(
    model: ModelFacts,
    workload: Workload,
    hardware: Hardware,
    wishes: Wishes | None = None,
    calibration: Calibration | None = None,
) -> Choice:
    """The cheapest machine that serves `workload`, and why each other type was not taken.

    With a `calibration` (`sizing.measured`) what was measured takes the place of what is estimated.

    Raises `UserError` for a region that is unknown or unpriced, a model that is closed or that the engine does not
    serve, and a request longer than a model with learned positions can read.
    """
    wishes = wishes or Wishes()
    check_engine(model, wishes.engine)
    warning = check_context(model, workload)
    regions = wishes.regions(hardware)
    pays = wishes.pays(workload.latency_s is not None)
    planner = Planner(model, workload, wishes, calibration)
    refused: list[Refusal] = []
    candidates: list[_Candidate] = []
    for instance in hardware.instances.values():
        serving = planner.serve(instance)
        if isinstance(serving, Refusal):
            refused.append(serving)
            continue
        offer = _cheapest(instance, serving, hardware, regions, pays, workload)
        if isinstance(offer, Refusal):
            refused.append(offer)
        elif wishes.max_monthly_usd is not None and offer.month > wishes.max_monthly_usd:
            refused.append(_over_budget(offer, wishes.max_monthly_usd))
        else:
            candidates.append(offer)
    candidates.sort(key=_rank)
    best = candidates[0] if candidates else None
    refused.extend(_dearer(c, best) for c in candidates if best is not None and c is not best)
    refused.sort(key=lambda r: (_NEARNESS[r.kind], r.distance))
    if best is None:
        memory = _memory_of_nearest(planner, hardware)
        return Choice(model, workload, wishes, None, tuple(refused), memory, _said(warning), calibration)
    choice = _chosen(planner, best, tuple(refused), warning, pays)
    opened = could_open(hardware, wishes, refused)
    if opened is None:
        return choice
    again = choose(model, workload, opened, replace(wishes, loading=LEAN_LOADING), calibration)
    return replace(choice, leaner=_leaner(again, best.month))


def _leaner(again: Choice, month: float) -> Leaner | None:
    """What was chosen for leaner loading, where it costs less than the choice's `month` in US dollars."""
    lean = again.chosen
    if lean is None or lean.instance.gpu is None or lean.usd_per_month > month - LEAST_SAVING_USD:
        return None
    return Leaner(
        loading=again.wishes.loading,
        instance_type=lean.instance.name,
        region=lean.region,
        pay=lean.pay,
        gpu=lean.instance.gpu.name,
        dtype=lean.serving.dtype,
        hosts=lean.serving.hosts,
        usd_per_month=lean.usd_per_month,
        saves_usd_per_month=month - lean.usd_per_month,
        host_bytes=again.memory.host.total_bytes,
        usable_bytes=usable_ram_bytes(lean.instance.memory_bytes),
        holds_where=LEAN_HOLDS[again.wishes.engine],
    )


def _rank(candidate: _Candidate) -> tuple[float, int, float, str]:
    """Cheapest a month; then fewest hosts, shortest latency, name."""
    latency = candidate.serving.latency_s
    return candidate.month, candidate.serving.hosts, 1e9 if latency is None else latency, candidate.instance.name


def _cheapest(
    instance: InstanceType,
    serving: Serving,
    hardware: Hardware,
    regions: tuple[str, ...],
    pays: tuple[Pay, ...],
    workload: Workload,
) -> _Candidate | Refusal:
    best: _Candidate | None = None
    offered = False
    for region in regions:
        price = hardware.prices.get((instance.name, region))
        if hardware.offered(instance.name, region) is False:
            continue
        offered = True
        if price is None:
            continue
        for pay in pays:
            rate = price.usd_per_hour.get(pay)
            if rate is None:
                continue
            month = serving.hosts * month_cost(rate, pay, workload.hours_per_day)
            if best is None or month < best.month:
                best = _Candidate(instance, serving, price, pay, rate, month)
    if best is not None:
        return best
    where = regions[0] if len(regions) == 1 else "the regions with prices"
    if not offered:
        return Refusal(instance.name, "not offered", f"offered in no zone of {where}")
    rate_of = f"{pays[0]} rate" if len(pays) == 1 else "rate"
    return Refusal(instance.name, "unpriced", f"unpriced: no {rate_of} is known in {where}")


def _hosts(serving: Serving) -> str:
    return f" for {serving.hosts:,} hosts" if serving.hosts > 1 else ""


def _over_budget(offer: _Candidate, limit: float) -> Refusal:
    why = f"over --max-monthly: ${offer.month:,.2f} a month{_hosts(offer.serving)}, ${limit:,.2f} allowed"
    return Refusal(offer.instance.name, "over budget", why, distance=offer.month)


def _dearer(candidate: _Candidate, best: _Candidate) -> Refusal:
    more = candidate.month - best.month
    if more < 0.005:
        why = f"costs the same as {best.instance.name}, which is "
        why += "one of fewer hosts" if candidate.serving.hosts > best.serving.hosts else "no slower"
    else:
        why = (
            f"costs more: ${candidate.month:,.2f} a month{_hosts(candidate.serving)} ({candidate.pay}), "
            f"${more:,.2f} above {best.instance.name}"
        )
    return Refusal(candidate.instance.name, "costs more", why, distance=candidate.month)


def _memory_of_nearest(planner: Planner, hardware: Hardware) -> MemoryEstimate:
    """The estimate for the dtype of the largest GPU there is: what a reader who found nothing wants to see."""
    gpus = [i.gpu for i in hardware.instances.values() if i.gpu is not None and i.gpu.vendor == "nvidia"]
    dtype = planner.wishes.dtype
    if dtype == "auto":
        dtype = planner.dtype_on(max(gpus, key=lambda g: g.memory_bytes)) if gpus else "fp32"
    return planner.memories.estimate(dtype, 1, planner.workload.batch)


def _said(*notes: str) -> tuple[str, ...]:
    return tuple(n for n in notes if n)


def _chosen(
    planner: Planner, best: _Candidate, refused: tuple[Refusal, ...], warning: str, pays: tuple[Pay, ...]
) -> Choice:
    serving, gpu, instance = best.serving, best.instance.gpu, best.instance
    if gpu is None:
        raise ValueError(f"{instance.name} was chosen without a GPU")
    processes = planner.processes(serving.gpus_per_copy, serving.copies)
    memory = replace(
        planner.memories.estimate(serving.dtype, serving.gpus_per_copy, serving.batch, gpu),
        host=planner.memories.host(serving.dtype, processes),
    )
    device = planner.device(instance, serving.dtype, serving.gpus_per_copy)
    max_batch = planner.memories.largest_batch(serving.dtype, serving.gpus_per_copy, gpu)
    speed = bulk = None
    if not isinstance(device, str) and not serving.speed_gap:
        work, asked = planner.work(serving.dtype), planner.asked(serving.dtype, serving.gpus_per_copy)
        speed = request_speed(work, asked, device, serving.batch)
        bulk = request_speed(work, asked, device, max(b for b in BATCHES if b <= max(1, max_batch)))
    chosen = Chosen(
        instance=instance,
        price=best.price,
        pay=best.pay,
        serving=serving,
        max_batch=max_batch,
        usd_per_hour=best.rate,
        usd_per_month=best.month,
        usd_per_year=serving.hosts * year_cost(best.rate, best.pay, planner.workload.hours_per_day),
        speed=speed,
        bulk=bulk,
    )
    notes = _said(
        explain_auto(serving.dtype, planner.model, gpu) if planner.wishes.dtype == "auto" else "",
        warning,
        _tight_device(memory, gpu.memory_bytes),
        _tight_host(memory, instance),
        f"speed unknown: {serving.speed_gap}" if serving.speed_gap else "",
        ""
        if isinstance(device, str) or planner.holds_when_slow(serving, device)
        else "the latency holds as likely, not if everything turns out slow: measure it",
        f"under load {waits(planner.wishes.engine)}" if planner.load is not None else "",
        _layers_note(serving, planner),
        _spot_note(best, pays),
        _part_of_gpu_note(instance),
    )
    calibration = planner.calibration
    return Choice(planner.model, planner.workload, planner.wishes, chosen, refused, memory, notes, calibration)


def _tight_device(memory: MemoryEstimate, capacity: int) -> str:
    over = memory.device.total("driver", "high") - capacity
    return (
        f"GPU memory fits as likely; at the high end of the estimate {gib(over)} would be missing" if over > 0 else ""
    )


def _tight_host(memory: MemoryEstimate, instance: InstanceType) -> str:
    over = memory.host.total("driver", "high") - usable_ram_bytes(instance.memory_bytes)
    return (
        f"system RAM fits as likely; at the high end of the estimate {gib(over)} would be missing" if over > 0 else ""
    )


def _layers_note(serving: Serving, planner: Planner) -> str:
    if serving.gpus_per_copy == 1 or planner.wishes.engine != "transformers":
        return ""
    return f"transformers lays whole layers on each of {serving.gpus_per_copy} GPUs (device_map); one works at a time"


def _spot_note(best: _Candidate, pays: tuple[Pay, ...]) -> str:
    if best.pay != "spot":
        return ""
    band = best.price.spot_interruption
    often = f", {band} of them a month" if band else ""
    others = {p: r for p, r in best.price.usd_per_hour.items() if p != "spot" and p in pays}
    without = ""
    if others:
        pay, rate = min(others.items(), key=lambda item: item[1])
        without = f"; without spot: {pay} at ${rate:.4g} an hour"
    return f"spot machines can be taken away at two minutes' notice{often}{without}"


def _part_of_gpu_note(instance: InstanceType) -> str:
    if not 0 < instance.gpu_count < 1:
        return ""
    return f"{instance.name} has {instance.gpu_count:g} of a GPU (vGPU): see that the AMI's NVIDIA driver supports that"


def would_fit(choice: Choice, hardware: Hardware) -> str:
    """Where nothing was chosen: what to loosen so that something is, as options to type; empty where nothing helps."""
    wishes = choice.wishes
    loosened: list[tuple[str, Wishes]] = []
    if wishes.loading != "mmap":
        loosened.append(("--loading mmap", replace(wishes, loading="mmap")))
    if wishes.max_gpus < 8:
        loosened.extend((f"--max-gpus {n}", replace(wishes, max_gpus=n)) for n in (2, 4, 8) if n > wishes.max_gpus)
    loosened.extend(
        (f"--dtype {d}", replace(wishes, dtype=d)) for d in ("bf16", "fp16", "int8", "nf4-dq") if d != wishes.dtype
    )
    loosened.extend((f"--pay {pay}", replace(wishes, pay=pay)) for pay in ("on-demand", "best") if pay != wishes.pay)
    if wishes.region != "any":
        loosened.append(("--region any", replace(wishes, region="any")))
    for option, other in loosened:
        again = choose(choice.model, choice.workload, hardware, other, choice.calibration)
        if again.chosen is not None:
            cost = f"{again.chosen.instance.name}, ${again.chosen.usd_per_month:,.0f} a month {again.chosen.pay}"
            return f"{option} would do ({cost})"
    return ""


__all__ = ["Choice", "Chosen", "Refusal", "Wishes", "choose", "price_date", "would_fit"]
