"""Times what has a bound, in one run, beside what `accelerate estimate-memory` does for the same model.

`accelerate estimate-memory` builds the model's class on the meta device and adds up its sizes; here from the config
that Berth ships, since the hub is not asked. Ratios compare on the same machine in the same minute; medians of several
runs.
Run by `make bench`; with `--check` it ends with exit code 1 when a bound is missed.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from statistics import median

MODEL = "google/flan-t5-xl"
META_COUNT = f"""
import json, sys
from accelerate import init_empty_weights
from accelerate.utils import calculate_maximum_sizes
from transformers import AutoConfig, AutoModelForSeq2SeqLM
from sizing.models.catalogue import load_catalogue
config = dict(load_catalogue().configs[{MODEL!r}])
with init_empty_weights():
    model = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(**config))
total, largest = calculate_maximum_sizes(model)
"""


@dataclass(frozen=True)
class Timing:
    """A measured median in seconds, its bound, and the time that it is compared with.

    `cpu`: median processor time of a process; where it is well below `seconds`, the machine was busy with other work.
    """

    name: str
    seconds: float
    bound: float | None = None
    against: float | None = None
    cpu: float | None = None

    @property
    def missed(self) -> bool:
        return self.bound is not None and self.seconds > self.bound


def process(*command: str, runs: int) -> tuple[float, float]:
    """Median wall and processor time of a process that starts, does its work and ends."""
    walls, processors = [], []
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "BERTH_CACHE_DIR": cache, "HF_HUB_OFFLINE": "1"}
        # The first run writes bytecode and brings files into the page cache; it does not count.
        for _ in range(runs + 1):
            used, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
            walls.append(time.perf_counter() - start)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            processors.append(after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime)
    return median(walls[1:]), median(processors[1:])


def timed(work: Callable[[], object], runs: int) -> float:
    """Median wall time of a call. What torch and transformers left in this process is frozen: the garbage collector
    would go through it again and again, which no process of berth's own has to do."""
    gc.collect()
    gc.freeze()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    gc.unfreeze()
    return median(times)


def measure(runs: int) -> list[Timing]:
    """Every figure. The processes come first, so that nothing of this one is warm for them."""
    counting, processor = process(sys.executable, "-c", META_COUNT, runs=max(1, runs // 3))
    timings = [Timing("meta-device counting, cold process (as accelerate estimate-memory)", counting, cpu=processor)]
    for arguments, bound in (
        (("--help",), 0.25),
        (("size", MODEL, "--dtype", "fp32"), 0.6),
        (("memory", MODEL, "--dtype", "fp32"), None),
    ):
        wall, processor = process(sys.executable, "-m", "berth", *arguments, runs=runs)
        timings.append(Timing(f"berth {' '.join(arguments)}, cold process", wall, bound, counting, processor))
    return timings + measure_warm(runs * 3)


def measure_warm(runs: int) -> list[Timing]:
    """What is done within a process once the data are read, and the reading itself, against counting warm."""
    from accelerate import init_empty_weights
    from accelerate.utils import calculate_maximum_sizes
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    from sizing.choose import choose
    from sizing.choosing.wishes import ANY_REGION, Wishes
    from sizing.hardware.load import build_hardware
    from sizing.hardware.types import PAYS
    from sizing.models.catalogue import DATA, load_catalogue, read_catalogue
    from sizing.workload import Workload

    plans = training_plans()
    catalogue = load_catalogue()
    config = AutoConfig.for_model(**catalogue.configs[MODEL])

    def count_sizes() -> object:
        with init_empty_weights():
            return calculate_maximum_sizes(AutoModelForSeq2SeqLM.from_config(config))

    counting = timed(count_sizes, max(1, runs // 9))
    hardware = build_hardware()
    everywhere = Wishes(dtype="fp32", region=ANY_REGION, pay="best", max_gpus=8)
    offers = f"{len(hardware.instances)} types × {len(hardware.priced_regions)} regions × {len(PAYS)} ways of paying"
    return [
        Timing("meta-device counting, warm", counting),
        Timing(
            f"choosing over {offers}, warm",
            timed(lambda: choose(catalogue[MODEL], Workload(), hardware, everywhere), runs),
            0.020,
            counting,
        ),
        Timing(
            f"training plan for {MODEL}: methods × strategies × batches × machines",
            timed(lambda: next(plans), runs),
            0.300,
            counting,
        ),
        Timing("hardware catalogue load", timed(build_hardware, runs), 0.030, counting),
        Timing("model catalogue load", timed(lambda: read_catalogue(DATA), runs), None, counting),
    ]


def training_plans() -> Iterator[object]:
    """Searches for a fine-tuning plan, each for other lengths, so that none finds the last one's estimates."""
    from sizing.hardware.load import load_hardware
    from sizing.models.catalogue import load_catalogue
    from sizing.training_plan.lengths import lengths_of
    from sizing.training_plan.search import search
    from sizing.training_plan.task import TrainingTask, TrainingWishes

    model, hardware = load_catalogue()[MODEL], load_hardware()
    for tokens in count(400):
        task = TrainingTask(15_000, lengths_of(model, (), tokens, 128, None), 3.0)
        yield search(model, task, hardware, TrainingWishes())


def show(timings: list[Timing]) -> None:
    print(f"{'':72} {'median':>9} {'processor':>9} {'bound':>7} {'counting ÷ this':>16}")
    for t in timings:
        processor = f"{t.cpu * 1e3:,.0f} ms" if t.cpu else ""
        bound = f"{t.bound * 1e3:,.0f} ms" if t.bound else ""
        ratio = f"{t.against / t.seconds:,.1f}×" if t.against else ""
        missed = "  MISSED" if t.missed else ""
        print(f"{t.name:72} {t.seconds * 1e3:6,.1f} ms {processor:>9} {bound:>7} {ratio:>16}{missed}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9, help="runs of which the median is taken")
    parser.add_argument("--check", action="store_true", help="exit code 1 when a bound is missed")
    arguments = parser.parse_args()
    timings = measure(arguments.runs)
    show(timings)
    return int(arguments.check and any(t.missed for t in timings))


if __name__ == "__main__":
    sys.exit(main())
