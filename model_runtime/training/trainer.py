"""transformers' Trainer with an order of its own, a meter, and checkpoints by the clock and on notice."""

from __future__ import annotations

import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from model_runtime.artifacts import Uploader, delete_folder, to_keep
from model_runtime.errors import ModelError
from model_runtime.manifest import write_manifest
from model_runtime.training.checkpoints import FOLDER, all_checkpoints, step_of
from model_runtime.training.flops import Flops
from model_runtime.training.metrics import Log, Meter
from model_runtime.training.order import EpochOrder
from model_runtime.training.reshard import Written, mend_optimizer
from model_runtime.training.resume import Finder


class FineTuner(Trainer):  # type: ignore[misc]  # transformers is not typed
    """`order` replaces the Trainer's sampler: the Trainer's own depends on the number of processes and the micro-batch,
    so a run that goes on with another cut would see other examples."""

    def __init__(
        self, *, order: EpochOrder, meter: Meter, flops: Flops | None, finder: Finder | None, **arguments: Any
    ) -> None:
        super().__init__(**arguments)
        self.order, self.meter, self.flops, self.finder = order, meter, flops, finder
        self.weight_decays: list[float] = []
        self.meter.tokens = torch.zeros((), dtype=torch.long, device=self.args.device)

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochOrder:  # noqa: ARG002 (the base class's signature)
        return self.order

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
        rows, tokens = inputs["input_ids"].shape
        labels = inputs["labels"]
        target = labels.shape[1] if self.model.config.is_encoder_decoder else 0
        mask = inputs.get("attention_mask")
        self.meter.tokens += inputs["input_ids"].numel() if mask is None else mask.sum().to(self.args.device)
        if target:
            self.meter.tokens += (labels >= 0).sum().to(self.args.device)
        self.meter.padded_tokens += rows * (tokens + target)
        if self.flops is not None:
            self.meter.flops += self.flops(rows, tokens, target)
        return super().training_step(model, inputs, num_items_in_batch)

    def create_optimizer(self, model: Any = None) -> Any:
        made = super().create_optimizer(model)
        self.weight_decays = [float(group["weight_decay"]) for group in made.param_groups]
        return made

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint and self.is_deepspeed_enabled and self.model_wrapped.load_universal_checkpoint():
            mend_optimizer(self.optimizer, self.weight_decays)

    def _load_best_model(self) -> None:
        """The best checkpoint may have been written by another number of processes."""
        best = self.finder.bring(self.state.best_global_step) if self.finder else None
        if best is None:
            raise ModelError(
                f"checkpoint-{self.state.best_global_step}, the best, cannot be read any more; its loss was "
                f"{self.state.best_metric}. Set keep_checkpoints higher, or patience to 0, and start the run again"
            )
        self.state.best_model_checkpoint = str(best.folder)
        if self.is_deepspeed_enabled:
            self.model_wrapped._config.load_universal_checkpoint = best.universal
        super()._load_best_model()


class Resumed(TrainerCallback):  # type: ignore[misc]
    """When a checkpoint has been read: what was made only to read it goes, and the best so far stands where it is on
    this machine, which the state of another machine does not know."""

    def __init__(self, finder: Finder) -> None:
        self.finder, self.cleaned = finder, False

    def on_train_begin(
        self,
        _args: TrainingArguments,
        state: TrainerState,
        _control: TrainerControl,
        **_: Any,
    ) -> None:
        best = self.finder.root / f"checkpoint-{state.best_global_step}"
        if state.best_global_step and best.is_dir():
            state.best_model_checkpoint = str(best)

    def on_step_end(
        self,
        args: TrainingArguments,
        _state: TrainerState,
        _control: TrainerControl,
        **_: Any,
    ) -> None:
        if self.cleaned:
            return
        self.cleaned = True  # random states are read just before the first step
        _meet(args)
        self.finder.clean()


def _meet(args: TrainingArguments) -> None:
    """Wait for the other processes."""
    if args.world_size > 1:
        import torch.distributed as dist

        dist.barrier()


class Epochs(TrainerCallback):  # type: ignore[misc]
    """Tells the order which epoch it is; accelerate forwards that to samplers of its own kind only."""

    def __init__(self, order: EpochOrder) -> None:
        self.order = order

    def on_epoch_begin(
        self,
        _args: TrainingArguments,
        state: TrainerState,
        _control: TrainerControl,
        **_: Any,
    ) -> None:
        self.order.set_epoch(int(state.epoch or 0))


class Reporter(TrainerCallback):  # type: ignore[misc]
    """Hands what the Trainer logs to the `Log`, on the first process."""

    def __init__(self, log: Log, meter: Meter) -> None:
        self.log, self.meter = log, meter
        self.best: float | None = None

    def on_train_begin(
        self,
        _args: TrainingArguments,
        state: TrainerState,
        _control: TrainerControl,
        **_: Any,
    ) -> None:
        self.best = state.best_metric
        if state.is_world_process_zero:
            self.log.begin(state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        _control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if state.is_world_process_zero and logs and "loss" in logs:
            self.log.train(state.global_step, state.max_steps, logs, self.meter, memory_bytes(args.device))

    def on_evaluate(
        self,
        _args: TrainingArguments,
        state: TrainerState,
        _control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        loss = (metrics or {}).get("eval_loss")
        if loss is None:
            return
        if state.is_world_process_zero:
            self.log.evaluation(state.global_step, state.max_steps, float(loss), self.best)
        self.best = float(loss) if self.best is None else min(self.best, float(loss))


class Checkpoints(TrainerCallback):  # type: ignore[misc]
    """A checkpoint every `minutes` and when the machine is to end: sealed with its manifest, uploaded, thinned out.

    `stop_file` appears when the launcher was told to end; SIGTERM to this process counts as well. All processes decide
    alike. `leader`: this process seals what its machine wrote.
    """

    def __init__(
        self,
        root: Path,
        *,
        minutes: float,
        keep: int,
        leader: bool,
        stop_file: Path,
        uploader: Uploader | None,
        uri: str,
        written: Written,
        say: Callable[[str], None],
    ) -> None:
        self.written = written
        self.root, self.seconds, self.keep = root, minutes * 60, keep
        self.leader, self.stop_file = leader, stop_file
        self.uploader, self.uri, self.say = uploader, uri, say
        self.saved_at = time.monotonic()
        self.interrupted = False
        self._signalled = False

    def listen(self) -> Any:
        """Take SIGTERM as the wish to save and end; returns the handler before."""
        return signal.signal(signal.SIGTERM, lambda *_: setattr(self, "_signalled", True))

    def on_train_begin(
        self,
        _args: TrainingArguments,
        _state: TrainerState,
        _control: TrainerControl,
        **_: Any,
    ) -> None:
        self.saved_at = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        stop, due = self._agreed(args)
        if state.global_step >= state.max_steps:
            return control  # the end is here: the artifact is all that is still to be written
        if stop:
            self.interrupted = True
            control.should_training_stop = control.should_save = True
            control.should_evaluate = False  # an evaluation may take longer than the notice leaves
            args.load_best_model_at_end = False
        elif due and not control.should_evaluate:  # with save_strategy best the evaluation decides about saving
            control.should_save = True
        return control

    def _agreed(self, args: TrainingArguments) -> tuple[bool, bool]:
        stop = self._signalled or self.stop_file.exists()
        due = time.monotonic() - self.saved_at >= self.seconds
        if args.world_size == 1:
            return stop, due
        import torch.distributed as dist

        flags = torch.tensor([int(stop), int(due)], device=args.device)
        dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        any_stop, any_due = flags.tolist()
        return bool(any_stop), bool(any_due)

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        _control: TrainerControl,
        **_: Any,
    ) -> None:
        _meet(args)
        self.saved_at = time.monotonic()
        if not self.leader:
            return
        started = time.monotonic()
        folder = self.root / f"checkpoint-{state.global_step}"
        self.written.write(folder)
        entries = write_manifest(folder)
        size = sum(e.size_bytes for e in entries)
        self.say(f"{folder.name} is whole: {size:,} bytes, sealed in {time.monotonic() - started:.1f} s")
        if self.uploader is not None:
            self.uploader.put(folder, f"{self.uri}/{FOLDER}/{folder.name}")
        self._thin_out(state.best_global_step)

    def _thin_out(self, best: int | None) -> None:
        there = all_checkpoints(self.root)
        kept = to_keep([step_of(p) for p in there], self.keep, best if best else None)
        for folder in there:
            if step_of(folder) in kept:
                continue
            if self.uploader is None:
                delete_folder(folder)
            else:
                self.uploader.delete(folder, f"{self.uri}/{FOLDER}/{folder.name}")


def memory_bytes(device: Any) -> int:
    """Peak bytes of this process: what torch's allocator holds of the GPU, or resident memory on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)
