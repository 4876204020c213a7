"""A ZeRO checkpoint for another number of processes, through DeepSpeed's universal format (arXiv:2406.18820).

Every process keeps its own part of optimizer and master weights, and DeepSpeed reads such parts by as many processes
as wrote them. Its converter `ds_to_universal` joins them by parameter; each process then takes its share of that.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from model_runtime.errors import ModelError
from model_runtime.manifest import NAME as MANIFEST

FOLDER = "resharded"
FILE = "processes.json"
"""In a checkpoint: how many processes wrote it, and how."""
_OPTIM = re.compile(r"zero_pp_rank_(\d+)_mp_rank_\d+_optim_states\.pt$")
_TIMES = 2
"""Disk that the conversion needs, as multiples of the shards: pieces by process, then the same joined by parameter."""
Say = Callable[[str], None]


class MissingShardsError(ModelError):
    """Some machine's part of a checkpoint is not to be had; an older one may be whole."""


@dataclass(frozen=True, slots=True)
class Written:
    """By whom a checkpoint was written. `zero_stage` 0: nothing is sharded."""

    processes: int
    nodes: int
    zero_stage: int
    optim: str

    def write(self, checkpoint: Path) -> None:
        (checkpoint / FILE).write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")


def written_by(checkpoint: Path) -> Written:
    """What the checkpoint says of itself. Raises `ModelError`."""
    try:
        return Written(**json.loads((checkpoint / FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{checkpoint / FILE} cannot be read ({error}); remove {checkpoint.name}") from error


def ranks_in(checkpoint: Path) -> set[int]:
    """The processes whose optimizer shards lie in the checkpoint."""
    found = (_OPTIM.search(path.name) for path in checkpoint.glob("global_step*/*_optim_states.pt"))
    return {int(match[1]) for match in found if match}


def check(written: Written, now: Written, name: str) -> None:
    """Raises `ModelError` where a run cut as `now` cannot go on with a checkpoint."""
    if written.zero_stage != now.zero_stage:
        before, after = (f"ZeRO-{w.zero_stage}" if w.zero_stage else "no sharding" for w in (written, now))
        raise ModelError(
            f"{name} was written with {before}, the plan has {after}: its optimizer cannot be read; plan the same, or "
            f"begin anew in another output folder with model set to {name}"
        )
    if now.zero_stage and written.processes != now.processes and "adamw_torch" not in written.optim:
        raise ModelError(
            f"{name} was written by {written.processes} processes with {written.optim}; DeepSpeed joins the shards of "
            f"AdamW alone. Go on with {written.processes} processes"
        )


def reshard(checkpoint: Path, parts: list[Path], root: Path, written: Written, say: Say, *, join: bool) -> Path:
    """A copy of `checkpoint` under `root` that this machine's processes can read; the checkpoint stays as it is.

    `parts`: the same checkpoint of other machines that wrote it, with the shards of their processes. `join`: their
    number is another, so the shards are joined by parameter. A copy that is there already is taken.
    Raises `MissingShardsError`, and `ModelError` where the disk is too small or DeepSpeed refuses.
    """
    target, draft = root / checkpoint.name, root / f".{checkpoint.name}"
    if target.is_dir():
        return target
    shutil.rmtree(draft, ignore_errors=True)
    step = _step_folder(checkpoint).name
    shards = _gather(checkpoint, parts, draft / step, written)
    for file in checkpoint.iterdir():
        if file.is_file() and file.name != MANIFEST:
            shutil.copyfile(file, draft / file.name)
    if join:
        _join(checkpoint.name, shards, draft / f"{step}_universal", written, say)
    draft.replace(target)
    return target


def _join(name: str, shards: Path, target: Path, written: Written, say: Say) -> None:
    size = sum(file.stat().st_size for file in shards.iterdir())
    free = shutil.disk_usage(shards).free
    if free < _TIMES * size:
        shutil.rmtree(shards.parent)
        raise ModelError(
            f"{name} is to be cut for another number of processes, which takes {_TIMES * size / 2**30:.1f} GiB of "
            f"disk; {free / 2**30:.1f} are free. Go on with {written.processes} processes or a larger disk"
        )
    say(f"{name} was written by {written.processes} processes: joining their shards ({size:,} bytes)")
    _convert(shards, target)
    shutil.rmtree(shards)
    (target.parent / "latest").unlink(missing_ok=True)


def mend_optimizer(optimizer: Any, weight_decays: list[float]) -> None:
    """Set right what DeepSpeed 0.19.8 reads wrongly from joined ZeRO-3 shards
    (`load_hp_checkpoint_state_from_checkpoint_dir_stage3`): all groups of weights get one tensor to count their steps
    in, which then runs ahead, and the weight decay of the first group.

    `weight_decays`: those that the groups were made with.
    """
    inner = optimizer
    while not hasattr(inner, "state") or not isinstance(inner.state, dict):
        inner = inner.optimizer
    for state in inner.state.values():
        if hasattr(state.get("step"), "clone"):
            state["step"] = state["step"].clone()
    if len(inner.param_groups) == len(weight_decays):
        for group, decay in zip(inner.param_groups, weight_decays, strict=True):
            group["weight_decay"] = decay


def _step_folder(checkpoint: Path) -> Path:
    found = sorted(checkpoint.glob("global_step*"))
    if len(found) != 1:
        raise ModelError(f"{checkpoint} holds {len(found)} folders of DeepSpeed; one was expected")
    return found[0]


def _gather(checkpoint: Path, parts: list[Path], target: Path, written: Written) -> Path:
    """The shards of all machines in one folder, by hard links where the disk allows it."""
    target.mkdir(parents=True)
    for part in [checkpoint, *parts]:
        for file in _step_folder(part).iterdir():
            if not (target / file.name).exists():
                _link(file, target / file.name)
    there = {int(match[1]) for match in (_OPTIM.search(file.name) for file in target.iterdir()) if match}
    if missing := sorted(set(range(written.processes)) - there):
        shutil.rmtree(target.parent)
        raise MissingShardsError(
            f"{checkpoint.name} lacks the shards of process {', '.join(map(str, missing))} of {written.processes}; "
            "they are on another machine. With upload set every machine finds them"
        )
    return target


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _convert(shards: Path, target: Path) -> None:
    """In a process of its own: DeepSpeed's converter forks, which a process with threads and a group must not."""
    workers = str(max(1, min(8, (os.cpu_count() or 1) // 2)))
    command = [
        sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--input_folder", str(shards),
        "--output_folder", str(target), "--num_extract_workers", workers, "--num_merge_workers", workers,
        "--inject_missing_state",
    ]  # fmt: skip
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=_alone())  # noqa: S603 (words of our own)
    if ran.returncode:
        last = [line for line in ran.stderr.splitlines() if line.strip()][-1:] or ["without a word"]
        raise ModelError(f"DeepSpeed's converter ended with code {ran.returncode}: {last[0][:300]}")


def _alone() -> dict[str, str]:
    """The environment without a place among torchrun's processes."""
    apart = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
    return {name: value for name, value in os.environ.items() if name not in apart}
