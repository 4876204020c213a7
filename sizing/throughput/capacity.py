"""What load one host carries within a latency, and how many hosts a load needs.

A batch of `b` equal requests takes `T(b)`: the prefill of all of them and the decoding steps that they share. A host
that is never idle answers `b / T(b)` requests a second; it is planned to be busy `MAX_UTILIZATION` of its busiest hour.

How long a request waits depends on how the engine batches.

- Static batches (transformers): requests that find the host busy wait for the batch under way and are then served
  together. Requests arrive at random (Poisson) at `r` a second; with `x = r · T` the host is busy a share
  `x / (x + e^−x)` of the time: after a batch it starts the next at once unless nobody came, which has the chance
  `e^−x`, and then idles `1 / r` (bulk service; Bailey 1954, J. Royal Statistical Society B 16). Who finds it busy waits
  between nothing and `T(b)`, evenly, so a latency `L` between `T(b)` and `2 T(b)` is missed by
  `busy × (2 − L / T(b))` of all.
- Continuous batches (vLLM): a request joins the running batch at the next step and shares the host with `b − 1` others;
  its latency is `T(b)` (Little's law).

Either way a batch must rarely be too small for those who come while one is served: `x` is kept where more than `b` of
them have a chance of at most `OVERFLOW` (Poisson), or they would wait for a second batch.

The latency holds when at least `WITHIN` of the requests of the busiest hour are answered within it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

from sizing.throughput.device import Device
from sizing.throughput.ranges import Pace
from sizing.throughput.roofline import Asked, speed_at
from sizing.throughput.tables import engine
from sizing.throughput.work import Work

MAX_UTILIZATION = 0.8
"""A planning margin for the peak hour: queues grow without bound as it nears 1 (Kleinrock, Queueing Systems, 1975)."""
WITHIN = 0.9
"""The share of requests that a latency is promised to in the busiest hour; in the other hours it is more."""
OVERFLOW = 0.05
"""The largest chance that more requests come in the time of a batch than the next batch takes."""
BATCHES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Batch sizes that are tried when a load must be carried; 256 is vLLM's own default limit (`max_num_seqs`)."""


@dataclass(frozen=True, slots=True)
class Load:
    """Requests as they arrive. `peak_factor`: how much busier the busiest hour is than the mean of the hours served."""

    requests_per_day: float
    hours_per_day: float = 24.0
    peak_factor: float = 3.0
    latency_s: float | None = None

    @property
    def mean_per_s(self) -> float:
        """Requests a second, over the hours of the day in which they come."""
        return self.requests_per_day / (self.hours_per_day * 3600.0)

    @property
    def peak_per_s(self) -> float:
        return self.mean_per_s * self.peak_factor

    @property
    def requests_per_month(self) -> float:
        return self.requests_per_day * 365.0 / 12.0


@dataclass(frozen=True, slots=True)
class Capacity:
    """What one copy of the model carries: the batch it serves at and the requests a second that it is planned for."""

    batch: int
    requests_per_s: float
    latency_s: float
    """Seconds in a batch of this size, waiting apart."""
    latency_alone_s: float
    """Seconds for a single request on an idle host: no machine of this type answers sooner."""

    @property
    def holds(self) -> bool:
        """Whether any load at all is carried within the latency."""
        return self.requests_per_s > 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            "batch": self.batch,
            "requests_per_s": round(self.requests_per_s, 4),
            "latency_s": round(self.latency_s, 3),
            "latency_alone_s": round(self.latency_alone_s, 3),
        }


def capacity_for(
    work: Work, asked: Asked, device: Device, max_batch: int, latency_s: float | None, pace: Pace = "likely"
) -> Capacity:
    """The batch of at most `max_batch` at which one copy answers the most requests a second within `latency_s`."""
    rates = _rates(work, asked, device, max_batch, latency_s, pace)
    alone = rates[0][1]
    batch, seconds, rate = max(rates, key=lambda r: (r[2], -r[0]))
    return Capacity(batch, rate, seconds, alone)


def batch_needed(
    work: Work,
    asked: Asked,
    device: Device,
    most: Capacity,
    latency_s: float | None,
    requests_per_s: float,
    pace: Pace = "likely",
) -> int:
    """The smallest batch, up to that of `most`, at which one copy keeps up with `requests_per_s` within `latency_s`."""
    for batch, _, rate in _rates(work, asked, device, most.batch, latency_s, pace):
        if rate >= requests_per_s * (1 - 1e-9):
            return batch
    return most.batch


def _rates(
    work: Work, asked: Asked, device: Device, max_batch: int, latency_s: float | None, pace: Pace
) -> list[tuple[int, float, float]]:
    """(batch, seconds, requests a second) of the listed batches up to `max_batch`."""
    continuous = engine(asked.engine, pace).continuous
    found = []
    for batch in BATCHES:
        if batch > max_batch:
            break
        seconds = speed_at(work, asked, device, batch, pace).total
        found.append((batch, seconds, _rate(batch, seconds, latency_s, continuous)))
        if latency_s is not None and seconds > latency_s:
            break
    return found


def hosts_needed(load: Load, requests_per_s: float) -> int:
    """Hosts for the peak of `load` when each carries `requests_per_s`; at least one, always on in its hours.

    Raises `ValueError` when a host carries nothing.
    """
    if requests_per_s <= 0.0:
        raise ValueError("a host that answers nothing within the latency cannot be multiplied")
    return max(1, math.ceil(load.peak_per_s / requests_per_s - 1e-9))


def _rate(batch: int, seconds: float, latency_s: float | None, continuous: bool) -> float:
    """Requests a second that one copy may be given at this batch, so that the latency holds for `WITHIN` of them."""
    most = MAX_UTILIZATION * batch / seconds
    if latency_s is None:
        return most
    if seconds > latency_s:
        return 0.0
    most = min(most, _arrivals_that_fit(batch) / seconds)
    missed_when_busy = 2.0 - latency_s / seconds
    if continuous or missed_when_busy <= 1.0 - WITHIN:
        return most
    return min(most, _arrivals_when_busy((1.0 - WITHIN) / missed_when_busy) / seconds)


@cache
def _arrivals_that_fit(batch: int) -> float:
    """The largest mean of a Poisson count that exceeds `batch` with a chance of at most `OVERFLOW`, by bisection."""
    low, high = 0.0, float(batch) + 1.0
    for _ in range(40):
        mean = (low + high) / 2
        term = total = math.exp(-mean)
        for count in range(1, batch + 1):
            term *= mean / count
            total += term
        if 1.0 - total <= OVERFLOW:
            low = mean
        else:
            high = mean
    return low


def _arrivals_when_busy(share: float) -> float:
    """Requests per batch time at which a host is busy `share` of the time: `x / (x + e^−x) = share`, by bisection."""
    low, high = 0.0, 64.0
    for _ in range(60):
        middle = (low + high) / 2
        if middle / (middle + math.exp(-middle)) <= share:
            low = middle
        else:
            high = middle
    return low
