"""Real fine-tuning steps under DeepSpeed ZeRO, two processes on this machine's CPU, and the memory they really take.

    python scripts/zero_on_cpu.py [--stages 1 2 3] [--json]

Two models are trained for a few steps at each stage, and the anonymous memory that is resident at the end is compared:
its growth from the smaller model to the larger, divided by the parameters between them, is what a parameter costs a
process. Berth's figure for it stands beside. Every process checks that it is one of two and that DeepSpeed runs the
stage it was asked for.

The C library is told to give large blocks back (`MALLOC_MMAP_THRESHOLD_`). Left to itself it keeps what ZeRO-3's
gathers have freed, 5 to 6 bytes a parameter; ZeRO-3 is reported and nothing is fitted to it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SIZES = (512, 1024)
"""Hidden sizes of the two models, of 58 and 167 million parameters."""
STEPS = 3
TOKENS = 32
WORLD = 2
TIMEOUT_SECONDS = 600


def config_of(hidden: int) -> dict[str, Any]:
    """A small LLaMA of `hidden` width."""
    return {
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": hidden * 43 // 16,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "vocab_size": 32_000,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
    }


@dataclass(frozen=True, slots=True)
class Measured:
    """Bytes per parameter and process at a ZeRO stage: what a run takes and what the estimate says."""

    stage: int
    measured: float
    estimated: float

    @property
    def error(self) -> float:
        return self.estimated / self.measured - 1


def measure(stage: int) -> Measured:
    """Trains both models at `stage` and compares. Raises `RuntimeError` when a run fails."""
    from sizing.models.read import facts_from_config

    small, large = (_train(stage, hidden) for hidden in SIZES)
    facts = [facts_from_config(config_of(hidden), name=f"llama-{hidden}") for hidden in SIZES]
    params = facts[1].params - facts[0].params
    estimates = [_estimated(model, stage) for model in facts]
    return Measured(stage, (large - small) / params, (estimates[1] - estimates[0]) / params)


def _estimated(model: Any, stage: int) -> float:
    """What stays with a process: weights, master weights, states, and gradients until they are dropped."""
    from sizing.memory.training.setup import TrainingSetup
    from sizing.memory.training.states import states_of

    setup = TrainingSetup(
        precision="bf16",
        micro_batch=1,
        input_tokens=TOKENS,
        gpus=WORLD,
        zero_stage=stage,
        attention="eager",
        backend="cpu",
    )
    states = states_of(model, setup)
    return float(sum(t.bytes for t in states.terms if t.name != "reduce buckets") + states.gradients)


def _train(stage: int, hidden: int) -> float:
    """Mean resident anonymous bytes of the two processes after the last backward pass, in a run of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            f"--nproc_per_node={WORLD}",
            "--standalone",
            __file__,
            "--worker",
            folder,
            "--stages",
            str(stage),
            "--hidden",
            str(hidden),
        ]
        beside = str(Path(sys.executable).parent)
        environment = {
            **os.environ,
            "DS_ACCELERATOR": "cpu",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            # ninja builds DeepSpeed's shared-memory collectives and is found on PATH.
            "PATH": f"{beside}{os.pathsep}{os.environ.get('PATH', '')}",
            # Large blocks go back to the system when they are freed.
            "MALLOC_MMAP_THRESHOLD_": "65536",
            "MALLOC_TRIM_THRESHOLD_": "65536",
        }
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
        )
        found = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("rank*.json"))]
        if done.returncode or len(found) != WORLD:
            raise RuntimeError(
                f"ZeRO-{stage}, hidden size {hidden}: {len(found)} of {WORLD} ranks\n{done.stderr[-2000:]}"
            )
        return sum(f["anonymous_bytes"] for f in found) / WORLD


def _work(folder: Path, stage: int, hidden: int) -> None:
    """One rank: trains and writes what it holds."""
    import deepspeed
    import torch
    import torch.distributed as dist
    import transformers

    torch.manual_seed(0)
    config = config_of(hidden)
    kind = config.pop("model_type")
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(kind, **config), attn_implementation="eager", dtype=torch.bfloat16
    )
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=torch.optim.AdamW(model.parameters(), lr=1e-4, foreach=False),
        dist_init_required=True,
        config={
            "train_micro_batch_size_per_gpu": 1,
            "bf16": {"enabled": True},
            "zero_optimization": {
                "stage": stage,
                "overlap_comm": False,
                "reduce_bucket_size": hidden * hidden,
                "stage3_prefetch_bucket_size": int(0.9 * hidden * hidden),
                "stage3_param_persistence_threshold": 10 * hidden,
            },
        },
    )
    if dist.get_world_size() != WORLD or dist.get_backend() != "gloo":
        raise RuntimeError(f"world size {dist.get_world_size()} over {dist.get_backend()}, not {WORLD} over gloo")
    if engine.zero_optimization_stage() != stage or engine.dp_world_size != WORLD:
        raise RuntimeError(f"DeepSpeed runs stage {engine.zero_optimization_stage()} over {engine.dp_world_size} ranks")
    ids = torch.randint(0, 32_000, (1, TOKENS))
    for step in range(STEPS):
        loss = engine(input_ids=ids, labels=ids, use_cache=False).loss
        engine.backward(loss)
        del loss
        if step < STEPS - 1:
            engine.step()
    result = {"rank": dist.get_rank(), "world_size": dist.get_world_size(), "anonymous_bytes": _anonymous_bytes()}
    (folder / f"rank{dist.get_rank()}.json").write_text(json.dumps(result))
    dist.barrier()
    dist.destroy_process_group()


def _anonymous_bytes() -> int:
    """Resident memory of this process that is no file's (Linux, /proc)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no RssAnon: this needs Linux 4.5 or later")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--stages", type=int, nargs="+", default=[1, 2, 3], help="ZeRO stages to run")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--hidden", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker is not None:
        _work(given.worker, given.stages[0], given.hidden)
        return 0
    results = [measure(stage) for stage in given.stages]
    if given.json:
        print(json.dumps([{"stage": r.stage, "measured": r.measured, "estimated": r.estimated} for r in results]))
    else:
        for r in results:
            figures = f"{r.measured:5.2f} bytes a parameter and process, estimated {r.estimated:5.2f}"
            print(f"ZeRO-{r.stage}: {figures} ({r.error:+.1%})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
