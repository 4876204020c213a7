"""GPUs by the names of the catalogue, told apart by memory where one name has several."""

from __future__ import annotations

SAME_MEMORY = 0.15
"""A driver reports a little less than the catalogue; the next size of a name is twice as large."""


def short_gpu(name: str, memory_bytes: int | None = None) -> str:
    """The catalogue's name of a GPU as its driver calls it; empty for one that the catalogue does not know.

    `NVIDIA A10G` -> `A10G`, `NVIDIA A100-SXM4-80GB` -> `A100 80 GB`.

    Of a name with several sizes the memory tells which; without it the driver's own `40GB` does, else the name stands
    alone.
    """
    from sizing.hardware.load import load_hardware
    from sizing.measured.read import short_gpu as catalogue_name

    hardware = load_hardware()
    short = catalogue_name(name, hardware)
    sizes = sorted({gpu.memory_bytes for gpu in hardware.accelerators if gpu.name == short})
    if len(sizes) < 2:
        return short
    if memory_bytes is not None:
        nearest = min(sizes, key=lambda size: abs(size - memory_bytes))
        return f"{short} {_gb(nearest)} GB" if abs(nearest - memory_bytes) <= SAME_MEMORY * nearest else short
    plain = f" {name.replace('-', ' ')} "
    told = [size for size in sizes if f" {_gb(size)}GB " in plain or f" {_gb(size)} GB " in plain]
    return f"{short} {_gb(told[0])} GB" if told else short


def gpu_of(instance_type: str) -> str:
    """The GPU of an instance type; empty where it has none or is not known."""
    from sizing.hardware.load import load_hardware

    machine = load_hardware().instances.get(instance_type.removeprefix("ml."))
    return "" if machine is None or machine.gpu is None else short_gpu(machine.gpu.name, machine.gpu.memory_bytes)


def same_gpu(first: str, second: str) -> bool:
    """Whether two names of `short_gpu` can be one GPU: one without its memory says nothing against either size."""
    return first == second or f"{first} ".startswith(f"{second} ") or f"{second} ".startswith(f"{first} ")


def _gb(memory_bytes: int) -> int:
    """The size as it is sold: 40 for 40,960 MiB."""
    return round(memory_bytes / 2**30 / 8) * 8
