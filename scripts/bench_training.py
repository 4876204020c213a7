"""Step time of a fine-tuning run beside a bare `transformers.Trainer` of the same setting, in one process, by turns.

Both train the same tiny model on the same rows with the same `TrainingArguments`; what differs is what Berth adds: the
fixed order, counting tokens and operations, the log, looking for a notice to end. Times are processor time of the whole
process, so that other work on the machine counts little: medians over blocks of steps that hold one line of the log
each. A run's first steps, which warm up, are left out. The bare Trainer beside itself says how far to trust the ratio.
With `--check` it ends with exit code 1 when the bound is missed.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

BOUND = 1.03
"""Berth's step time ÷ the bare Trainer's, at most."""
ROWS, TOKENS, BATCH = 512, 96, 4
LOGGED = 5
"""Steps of a block: the log has a line for as many, more often than a run's own (10)."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help=f"end with exit code 1 where the ratio is above {BOUND}")
    parser.add_argument("--rounds", type=int, default=6, help="runs of each, by turns")
    parser.add_argument("--steps", type=int, default=16, help="steps of a run")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of torch, transformers and accelerate about each other
        ours, bare, again = compare(Path(place), given.rounds, given.steps)
    ratio = ours / bare
    print(f"bare transformers.Trainer  {1000 * bare:8.2f} ms a step")
    print(f"berth finetune             {1000 * ours:8.2f} ms a step")
    print(
        f"ratio                      {ratio:8.3f}    (bound {BOUND}; CPU time, medians over {given.rounds} runs each)"
    )
    print(f"bare beside itself         {again / bare:8.3f}")
    return int(given.check and ratio > BOUND)


def compare(place: Path, rounds: int, steps: int) -> tuple[float, float, float]:
    """Median seconds a step: Berth's, the bare Trainer's, the bare Trainer's once more."""
    from transformers.utils import logging

    from model_runtime.tiny import build

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    folder = build("llama", place / "model", hidden_size=192, layers=4, context_window=TOKENS)
    features = [{"input_ids": ids, "labels": ids} for ids in _rows()]
    makers: list[Callable[..., Any]] = [_berths, _bare, _bare]
    times: list[list[float]] = [[], [], []]
    for turn in range(rounds + 1):
        for place_in_turn in range(3):
            which = (turn + place_in_turn) % 3  # none always finds the machine as the same other left it
            found = _timed(makers[which], folder, features, place / f"{turn}-{which}", steps)
            if turn:  # the first runs bring everything into memory
                times[which].extend(found)
    ours, bare, again = (median(one) for one in times)
    return ours, bare, again


def _rows() -> list[list[int]]:
    import random

    draw = random.Random(0)  # noqa: S311 (no secret)
    return [[draw.randrange(4, 300) for _ in range(TOKENS)] for _ in range(ROWS)]


def _timed(make: Callable[..., Any], folder: Path, features: list[Any], output: Path, steps: int) -> list[float]:
    """Seconds a step, of each block of a run but the first."""
    from transformers import AutoModelForCausalLM, PrinterCallback, TrainerCallback, TrainingArguments, set_seed

    class Clock(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.at: list[float] = []

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.at.append(time.process_time())

    output.mkdir()
    set_seed(0)
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.config.use_cache = False
    arguments = TrainingArguments(
        output_dir=str(output), use_cpu=True, max_steps=steps, per_device_train_batch_size=BATCH, logging_steps=LOGGED,
        logging_first_step=True, logging_nan_inf_filter=False, save_strategy="no", report_to=[], disable_tqdm=True,
        remove_unused_columns=False, label_names=["labels"], dataloader_pin_memory=False, optim="adamw_torch_fused",
        seed=0, log_level="error",
    )  # fmt: skip
    clock = Clock()
    trainer = make(folder, model, arguments, features, output)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(clock)
    trainer.train()
    marks = clock.at[LOGGED::LOGGED]
    return [(end - begin) / LOGGED for begin, end in pairwise(marks)]


def _berths(folder: Path, model: Any, arguments: Any, features: list[Any], output: Path) -> Any:
    """As `model_runtime.training.run` makes it, a price and a peak included, so that all of a line is computed."""
    from model_runtime.training.features import Collator
    from model_runtime.training.flops import batch_flops
    from model_runtime.training.metrics import Log, Meter
    from model_runtime.training.order import EpochOrder
    from model_runtime.training.place import Place
    from model_runtime.training.reshard import Written
    from model_runtime.training.resume import Finder
    from model_runtime.training.trainer import Checkpoints, Epochs, FineTuner, Reporter, Resumed

    order = EpochOrder(len(features), BATCH, 0, [TOKENS] * len(features))
    meter = Meter()
    log = Log(output, 1, 1.0, 1e12, lambda _: None, lambda _: None)
    written = Written(1, 1, 0, "adamw_torch_fused")
    finder = Finder(output / "checkpoints", "", Place(0, 0, 1, 0), written, lambda _: None)
    saver = Checkpoints(
        output / "checkpoints", minutes=60.0, keep=1, leader=True, stop_file=output / "stop-requested", uploader=None,
        uri="", written=written, say=lambda _: None,
    )  # fmt: skip
    return FineTuner(
        order=order, meter=meter, flops=batch_flops(folder, "full"), finder=finder, model=model, args=arguments,
        train_dataset=features, data_collator=Collator(0),
        callbacks=[Epochs(order), Reporter(log, meter), saver, Resumed(finder)],
    )  # fmt: skip


def _bare(_folder: Path, model: Any, arguments: Any, features: list[Any], _output: Path) -> Any:
    from transformers import Trainer

    from model_runtime.training.features import Collator

    return Trainer(model=model, args=arguments, train_dataset=features, data_collator=Collator(0))


if __name__ == "__main__":
    raise SystemExit(main())
