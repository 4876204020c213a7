"""Reading a Measurement file: the parts of it that a calibration needs, each checked.

The file is what `berth verify --report` writes (`"format": "berth-measurement/1"`, `berth schema verify`). It is read
as data: nothing of the package that wrote it is imported.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sizing.dtypes import DTYPES, dtype
from sizing.errors import UserError
from sizing.hardware.load import Hardware

FORMAT = "berth-measurement/1"
ENGINE = "transformers"
"""What `berth verify` measures: Berth's own handler, on transformers' `generate`."""


@dataclass(frozen=True, slots=True)
class Point:
    """A batch that was answered: seconds for all of it, and on a GPU the bytes of its peak by metric (else None)."""

    batch: int
    seconds: float
    allocated: int | None = None
    reserved: int | None = None
    driver: int | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """One file. `gpu` is the catalogue's name of the GPU, empty where a CPU was measured or the GPU is not known.

    `points` are in ascending order of batch. `failed_batch` is the smallest that ran out of the GPU's memory. Tokens
    are per sequence; sizes are bytes.
    """

    path: str
    measured_at: str
    model: str
    source: str
    dtype: str
    device: str
    gpu: str
    gpu_memory_bytes: int
    instance_type: str
    weights_bytes: int
    input_tokens: int
    output_tokens: int
    gpus_per_copy: int
    points: tuple[Point, ...]
    failed_batch: int | None
    transformers: str

    @property
    def on_gpu(self) -> bool:
        return bool(self.gpu_memory_bytes)

    @property
    def largest(self) -> Point | None:
        """The largest batch that was answered; None where not even one fitted."""
        return self.points[-1] if self.points else None


def read_measured(path: Path, hardware: Hardware) -> Measured:
    """The Measurement at `path`. Raises `UserError` in one line for what cannot be read or calibrates nothing."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"--measured {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"--measured {path} is no JSON ({error}); give what berth verify --report wrote") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(
            f"--measured {path} is no measurement of the format {FORMAT}; measure with berth verify --report"
        )
    if content.get("largest_batch") is None or content.get("start_up") is None:
        raise UserError(
            f"--measured {path} was taken from outside ({content.get('target')}), which shows neither memory nor the "
            "largest batch; run berth verify FOLDER --report on the machine itself"
        )
    return _Reader(str(path)).measured(content, hardware)


class _Reader:
    """Takes values out of the document by their place, so that a complaint names it."""

    def __init__(self, path: str) -> None:
        self.path = path

    def wrong(self, place: str, value: Any, allowed: str) -> UserError:
        return UserError(
            f"--measured {self.path}: {place} is {json.dumps(value)[:60]}; it must be {allowed}: measure again with "
            "berth verify"
        )

    def part(self, parent: Mapping[str, Any], name: str) -> dict[str, Any]:
        value = parent.get(name)
        if not isinstance(value, dict):
            raise self.wrong(name, value, "an object")
        return value

    def text(self, parent: Mapping[str, Any], place: str, *, needed: bool = True) -> str:
        value = parent.get(place.rsplit(".", 1)[-1])
        if value is None and not needed:
            return ""
        if not isinstance(value, str) or (needed and not value):
            raise self.wrong(place, value, "a text")
        return value

    def whole(self, parent: Mapping[str, Any], place: str, least: int = 0) -> int:
        value = parent.get(place.rsplit(".", 1)[-1])
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.wrong(place, value, f"a whole number of at least {least}")
        return value

    def measured(self, content: Mapping[str, Any], hardware: Hardware) -> Measured:
        model, settings = self.part(content, "model"), self.part(content, "settings")
        machine, largest = self.part(content, "machine"), self.part(content, "largest_batch")
        gpu, label, size = self._gpu(machine, hardware)
        points, failed = self._points(largest, on_gpu=bool(size))
        name = model.get("dtype")
        if not isinstance(name, str) or name not in DTYPES:
            raise self.wrong("model.dtype", name, f"one of {', '.join(DTYPES)}")
        versions = machine.get("versions")
        return Measured(
            path=self.path,
            measured_at=self.text(content, "measured_at"),
            model=self.text(model, "model.name"),
            source=self.text(model, "model.source", needed=False),
            dtype=dtype(name).name,
            device=label or self.text(machine, "machine.cpu"),
            gpu=gpu,
            gpu_memory_bytes=size,
            instance_type=self.text(machine, "machine.instance_type", needed=False),
            weights_bytes=self.whole(model, "model.weights_bytes", 1),
            input_tokens=self.whole(largest, "largest_batch.input_tokens", 1),
            output_tokens=self.whole(largest, "largest_batch.output_tokens"),
            gpus_per_copy=self.whole(settings, "settings.tensor_parallel_degree", 1),
            points=points,
            failed_batch=failed,
            transformers=str(versions.get("transformers") or "") if isinstance(versions, dict) else "",
        )

    def _gpu(self, machine: Mapping[str, Any], hardware: Hardware) -> tuple[str, str, int]:
        """The catalogue's name, the driver's and the memory of the GPU; empty and 0 where there is none."""
        gpus = machine.get("gpus")
        if not isinstance(gpus, list):
            raise self.wrong("machine.gpus", gpus, "a list")
        if not gpus:
            return "", "", 0
        first = gpus[0]
        if not isinstance(first, dict):
            raise self.wrong("machine.gpus[0]", first, "an object")
        label = self.text(first, "machine.gpus[0].name")
        return short_gpu(label, hardware), label, self.whole(first, "machine.gpus[0].memory_bytes", 1)

    def _points(self, largest: Mapping[str, Any], *, on_gpu: bool) -> tuple[tuple[Point, ...], int | None]:
        tried = largest.get("tried")
        if not isinstance(tried, list) or not tried:
            raise self.wrong("largest_batch.tried", tried, "a list of attempts")
        found: dict[int, Point] = {}
        failed: list[int] = []
        for number, attempt in enumerate(tried):
            place = f"largest_batch.tried[{number}]"
            if not isinstance(attempt, dict):
                raise self.wrong(place, attempt, "an object")
            batch = self.whole(attempt, f"{place}.batch", 1)
            if attempt.get("out_of_memory"):
                failed.append(batch)
                continue
            seconds = attempt.get("seconds")
            if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < 1e9:
                raise self.wrong(f"{place}.seconds", seconds, "a number of seconds above 0")
            found[batch] = Point(batch, float(seconds), *(self._sizes(attempt, place) if on_gpu else ()))
        # A limit that was set by hand is no property of the machine; only a GPU runs out by itself here.
        smallest = min(failed) if failed and on_gpu else None
        return _rising([found[b] for b in sorted(found)]), smallest

    def _sizes(self, attempt: Mapping[str, Any], place: str) -> tuple[int, int, int]:
        names = ("peak_bytes", "reserved_bytes", "driver_bytes")
        peak, reserved, driver = (self.whole(attempt, f"{place}.{name}", 1) for name in names)
        if not peak <= reserved <= driver:
            raise self.wrong(place, [peak, reserved, driver], "peak <= reserved <= driver bytes")
        return peak, reserved, driver


def _rising(points: list[Point]) -> tuple[Point, ...]:
    """Points of which none takes less memory than one of a smaller batch: a driver's figure wavers by some MiB, and a
    larger batch must not be planned for by the lower of two."""
    risen: list[Point] = []
    for point in points:
        if not risen or point.driver is None:
            risen.append(point)
            continue
        last = risen[-1]
        pairs = ((point.allocated, last.allocated), (point.reserved, last.reserved), (point.driver, last.driver))
        risen.append(Point(point.batch, point.seconds, *(max(a or 0, b or 0) for a, b in pairs)))
    return tuple(risen)


def short_gpu(label: str, hardware: Hardware) -> str:
    """The catalogue's name of a GPU as its driver calls it: `NVIDIA A10G` -> `A10G`; empty for one it does not have."""
    plain = f" {label.replace('-', ' ')} "
    names = sorted({gpu.name for gpu in hardware.accelerators}, key=lambda name: (-len(name), name))
    return next((name for name in names if f" {name} " in plain), "")
