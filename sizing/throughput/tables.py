"""The measured and published constants of the roofline: `engines.csv`, `gpu_fp32.csv`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

from sizing.errors import UserError, unknown
from sizing.tables import REINSTALL, Row, read_rows
from sizing.throughput.ranges import Pace

FOLDER = Path(__file__).parent
COLUMNS: dict[str, tuple[str, ...]] = {
    "engines.csv": ("engine", "constant", "fast", "likely", "slow", "unit", "how", "source", "as_of"),
    "gpu_fp32.csv": ("gpu_name", "fp32_tflops", "source", "as_of"),
}
"""The columns of each file that speeds are computed from."""


@dataclass(frozen=True, slots=True)
class Engine:
    """How an engine uses a GPU, at one pace. Each constant with its source stands in `engines.csv`."""

    name: str
    bandwidth_efficiency: float
    """Share of the published memory bandwidth that decoding reaches."""
    packed_efficiency: float
    """The same where weights of 8 bits or fewer are unpacked on the way (GPTQ, AWQ, LLM.int8, NF4, FP8)."""
    mfu_16bit: float
    """Share of the published dense 16-bit throughput that large matrix products reach."""
    mfu_fp32: float
    layer_seconds: float
    """Time the host needs to launch one decoder layer's kernels, whatever the batch; 0 with CUDA graphs."""
    hop_layer_seconds: float
    """More of it a layer when `device_map` spreads layers over several GPUs."""
    int8_linear_seconds: float
    """More of it for each LLM.int8 matrix product."""
    nf4_linear_seconds: float
    kv_passes: float
    """How often the KV cache crosses the memory bus in one step (an eager cache is concatenated: read and written)."""
    overlap: float
    """1: arithmetic hides behind the reading of weights; 0: it adds to it."""
    allreduce_seconds_nvlink: float
    allreduce_seconds_pcie: float
    continuous: bool
    """Requests join and leave a running batch (vLLM); else a request waits for the batch under way."""
    tensor_parallel: bool
    """Splits every matrix over the GPUs; else whole layers lie on each GPU and one works at a time."""


@cache
def _rows(name: str, key: str) -> dict[str, list[Row]]:
    """The rows of a file by the column `key`. Raises `UserError` for a damaged file."""
    rows: dict[str, list[Row]] = {}
    for row in read_rows(FOLDER / name, COLUMNS[name]):
        rows.setdefault(row.text(key), []).append(row)
    return rows


def engine_names() -> tuple[str, ...]:
    """The engines with constants, in the file's order."""
    return tuple(_rows("engines.csv", "engine"))


@cache
def engine(name: str, pace: Pace = "likely") -> Engine:
    """The constants of the engine `name` at `pace`. Raises `UserError` for an unknown one."""
    rows = _rows("engines.csv", "engine")
    if name not in rows:
        raise unknown("engine", name, rows)
    found = {row.text("constant"): row.given(pace) for row in rows[name]}
    wanted = {f.name for f in fields(Engine)} - {"name"}
    if wanted != set(found):
        wrong = ", ".join(sorted(wanted ^ set(found)))
        raise UserError(f"{FOLDER / 'engines.csv'}: {name} has {wrong} too many or too few{REINSTALL}")
    flags = {"continuous", "tensor_parallel"}
    return Engine(name=name, **{k: bool(v) if k in flags else v for k, v in found.items()})  # type: ignore[arg-type]


@cache
def fp32_tflops(gpu_name: str) -> float | None:
    """Published fp32 TFLOPS of a GPU without its tensor cores; None where the table has none."""
    rows = _rows("gpu_fp32.csv", "gpu_name").get(gpu_name)
    return rows[0].positive("fp32_tflops") if rows else None
