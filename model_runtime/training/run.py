"""One process of a run: data, model, Trainer; from the newest whole checkpoint to the artifact."""

from __future__ import annotations

import math
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import EarlyStoppingCallback, PrinterCallback, TrainingArguments, set_seed
from transformers.utils import logging as transformers_logging

from model_runtime.artifacts import Uploader
from model_runtime.data.dataset import DataSet, read_dataset
from model_runtime.data.split import FILE as SPLIT
from model_runtime.errors import ModelError
from model_runtime.generate import is_out_of_memory
from model_runtime.load import fetch
from model_runtime.progress import Lines
from model_runtime.training import checkpoints
from model_runtime.training.features import Collator, Encoder, Feature, length_of, pack
from model_runtime.training.finish import write_artifact
from model_runtime.training.flops import batch_flops, peak_flops
from model_runtime.training.measure import measure
from model_runtime.training.metrics import Log, Meter, cloudwatch
from model_runtime.training.models import Prepared, architecture_for, precision_of, prepare, tokenizer_of
from model_runtime.training.order import EpochOrder
from model_runtime.training.outcome import Outcome, write_outcome
from model_runtime.training.place import Place
from model_runtime.training.plan import RunPlan
from model_runtime.training.reshard import Written
from model_runtime.training.resume import Finder, Resume, node_uri
from model_runtime.training.settings import FinetuneSettings
from model_runtime.training.trainer import Checkpoints, Epochs, FineTuner, Reporter, Resumed, memory_bytes

STOP_FILE = "stop-requested"
_UPLOAD_LIMIT_S = 3600.0
PREFLIGHT_STEPS = 2
"""The first step makes the optimizer's states, the second has them beside gradients and activations."""


def work(settings: FinetuneSettings, plan: RunPlan, *, preflight: bool) -> Outcome:
    """Do the run, or its first two steps with the longest batch. Memory that runs out is an outcome, not an error."""
    place = Place.here()
    output = Path(settings.output)
    output.mkdir(parents=True, exist_ok=True)
    say = _speaker(place)
    try:
        one = _Run(settings, plan, place, output, say)
        outcome = one.preflight() if preflight else one.train()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        _lift_cap()
        outcome = Outcome("out-of-memory", " ".join(str(error).split())[:200] or type(error).__name__)
        write_outcome(output, outcome)
    if place.local_rank == 0:
        write_outcome(output, outcome)
    return outcome


def _speaker(place: Place) -> Callable[[str], None]:
    def say(line: str) -> None:
        if place.rank == 0:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()

    return say


class _Run:
    def __init__(
        self, settings: FinetuneSettings, plan: RunPlan, place: Place, output: Path, say: Callable[[str], None]
    ) -> None:
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        self.settings, self.plan, self.place, self.output, self.say = settings, plan, place, output, say
        check_tensorboard(settings)
        if plan.processes != place.world:
            raise ModelError(f"the plan is for {plan.processes} processes, {place.world} were started")
        self.root = output / checkpoints.FOLDER
        self.folder = fetch(settings.model, Lines(say)).folder
        self.data = self._data()
        self.labels = sorted({e.target for part in self.data.parts.values() for e in part})
        if self.data.form != "classification":
            self.labels = []
        _, self.architecture = architecture_for(self.folder, self.data.form)

    def _data(self) -> DataSet:
        s = self.settings
        split = self.output / SPLIT
        if self.place.local_rank and not split.is_file():
            _wait_for(split)
        data = read_dataset(
            s.data, validation=s.validation, test=s.test, form=s.form, names=s.columns, split_file=split, seed=s.seed,
            validation_share=s.validation_share, test_share=s.test_share,
        )  # fmt: skip
        if data.errors:
            self.say(f"{data.errors:,} rows cannot be used and are left out; berth data check says which")
        return data

    def _prepare(self, arguments: dict[str, Any]) -> tuple[Prepared, TrainingArguments]:
        """The Trainer's arguments first: with ZeRO-3 they decide how the weights are loaded."""
        if "deepspeed" in arguments and not torch.cuda.is_available():
            _meet_without_gpu()
            arguments["accelerator_config"] = {"use_configured_state": True}
        training = TrainingArguments(**arguments)
        if training.world_size != self.place.world:
            raise ModelError(
                f"{self.place.world} processes were started, the Trainer sees {training.world_size}: each would train "
                "by itself"
            )
        set_seed(self.settings.seed)
        prepared = prepare(
            self.folder, self.data.form, self.labels, self.settings, self.plan, local_rank=self.place.local_rank
        )
        return prepared, training

    def _cap_memory(self, prepared: Prepared) -> None:
        cap = self.settings.memory_cap_bytes
        if not cap:
            return
        if prepared.device.kind == "cuda":
            total = torch.cuda.get_device_properties(self.place.local_rank).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, cap / total), self.place.local_rank)
            return
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        used = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData:")) * 1024
        resource.setrlimit(resource.RLIMIT_DATA, (used + cap, resource.RLIM_INFINITY))

    def _encoder(self, prepared: Prepared) -> Encoder:
        return Encoder(
            prepared.tokenizer,
            prepared.architecture,
            prepared.max_input,
            prepared.max_target,
            self.settings.prompt,
            {label: i for i, label in enumerate(self.labels)} or None,
        )

    def _features(self, encoder: Encoder, part: str) -> list[Feature]:
        encoded = encoder.encode(self.data.parts[part])
        if encoded.cut:
            self.say(f"{part}: {encoded.cut:,} of {len(self.data.parts[part]):,} examples are cut at the window")
        if encoded.dropped:
            self.say(f"{part}: {encoded.dropped:,} examples are left out: nothing of their answer fits the window")
        features = encoded.features
        if self.settings.packing and part == "train":
            if self.architecture != "decoder-only":
                raise ModelError("packing is for decoder-only models")
            whole = len(features)
            features = pack(features, encoder.max_input)
            self.say(f"{whole:,} examples are packed into {len(features):,} rows of up to {encoder.max_input:,} tokens")
        return features

    # What the Trainer is told.
    def _arguments(self, max_steps: int, steps_an_epoch: int, *, validates: bool) -> dict[str, Any]:
        s, plan = self.settings, self.plan
        cpu = s.device == "cpu" or not torch.cuda.is_available()
        wide = self.place.world > 1
        every = max(1, round(max_steps / s.evaluations) if s.evaluations else steps_an_epoch)
        found: dict[str, Any] = {
            "learning_rate": s.rate,
            "lr_scheduler_type": "constant_with_warmup" if s.schedule == "constant" else s.schedule,
            "warmup_steps": math.ceil(s.warmup_share * max_steps),
            "weight_decay": s.weight_decay,
            "max_grad_norm": s.max_grad_norm,
            "optim": "adamw_torch_fused",
            "ddp_find_unused_parameters": False,  # every weight has its part in the loss; looking costs each step
            **{k: v for k, v in plan.arguments.items() if not k.startswith("gradient_checkpointing")},
            "output_dir": str(self.root),
            "per_device_train_batch_size": plan.micro_batch,
            "per_device_eval_batch_size": plan.micro_batch,
            "gradient_accumulation_steps": plan.accumulation,
            "num_train_epochs": s.epochs,
            "max_steps": max_steps,
            "activation_checkpointing": s.gradient_checkpointing,
            "bf16": False,
            "fp16": False,
            "seed": s.seed,
            "data_seed": s.seed,
            "logging_steps": s.logging_steps,
            "logging_first_step": True,
            "logging_nan_inf_filter": False,
            "eval_strategy": "steps" if validates else "no",
            "save_strategy": "best" if validates else "no",
            "load_best_model_at_end": validates,
            "metric_for_best_model": "eval_loss" if validates else None,
            "greater_is_better": False if validates else None,
            "restore_callback_states_from_checkpoint": True,
            "report_to": ["tensorboard"] if s.tensorboard else [],
            "disable_tqdm": True,
            "remove_unused_columns": False,
            "label_names": ["labels"],
            "dataloader_pin_memory": not cpu,
            "save_on_each_node": plan.nodes > 1,
            "log_level": "error",
        }
        if validates:
            found["eval_steps"] = every
        if s.gradient_checkpointing:
            found["activation_checkpointing_kwargs"] = {"use_reentrant": False}
        precision = precision_of(s, _device(s))
        if precision != "fp32":
            found[precision] = True
        if s.tensorboard:
            os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(self.output / "tensorboard"))
        if plan.deepspeed is not None:
            found["deepspeed"] = plan.deepspeed_config()
            if plan.nodes > 1:
                # Each machine keeps its own shards, and the weights beside them, on its own disk.
                found["deepspeed"].setdefault("checkpoint", {})["use_node_local_storage"] = True
        elif cpu:
            found["use_cpu"] = True
        if cpu and wide:
            found["ddp_backend"] = "gloo"
        return found

    def preflight(self) -> Outcome:
        """Two steps with the longest examples: what they take is what the run takes at most."""
        plan = self.plan.cut(self.plan.micro_batch)
        pieces = min(plan.accumulation, 2)
        rows = plan.micro_batch * plan.processes * pieces
        tokenizer = tokenizer_of(self.folder)
        arguments = self._arguments(PREFLIGHT_STEPS, 1, validates=False)
        arguments |= {"gradient_accumulation_steps": pieces, "report_to": [], "warmup_steps": 0}
        if plan.deepspeed is not None:
            arguments["deepspeed"] |= {"train_batch_size": rows, "gradient_accumulation_steps": pieces}
        prepared, training = self._prepare(arguments)
        features = sorted(self._features(self._encoder(prepared), "train"), key=length_of, reverse=True)
        longest = [features[i % len(features)] for i in range(rows)]
        order = EpochOrder(rows, rows, self.settings.seed)
        meter = Meter()
        trainer = FineTuner(
            order=order, meter=meter, flops=None, finder=None, model=prepared.model, args=training,
            train_dataset=longest, data_collator=Collator(tokenizer.pad_token_id), processing_class=prepared.tokenizer,
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        started = time.monotonic()
        self._cap_memory(prepared)
        trainer.train()
        seconds = time.monotonic() - started
        _lift_cap()
        peak = self._peak(training.device)
        if self.place.rank == 0:
            targets = [len(f["labels"]) for f in longest] if self.architecture == "encoder-decoder" else [0]
            path = measure(
                self.output, self.settings, self.plan, self.folder, prepared,
                input_tokens=max(len(f["input_ids"]) for f in longest), output_tokens=max(targets),
                peak=peak, step_s=seconds / PREFLIGHT_STEPS,
            )  # fmt: skip
            self.say(
                f"pre-flight: micro-batch {plan.micro_batch} of the longest examples fits; measured in {path.name}"
            )
        return Outcome("fits", "")

    def _peak(self, device: Any) -> dict[str, int]:
        """The largest of all processes."""
        own = {"resident_bytes": 0, "allocated_bytes": 0, "reserved_bytes": 0}
        if device.type == "cuda":
            own["allocated_bytes"] = int(torch.cuda.max_memory_allocated(device))
            own["reserved_bytes"] = int(torch.cuda.max_memory_reserved(device))
        own["resident_bytes"] = memory_bytes(torch.device("cpu"))
        if self.place.world == 1:
            return own
        import torch.distributed as dist

        every: list[Any] = [None] * self.place.world
        dist.all_gather_object(every, own)
        return {name: max(other[name] for other in every) for name in own}

    def train(self) -> Outcome:
        s, plan = self.settings, self.plan
        tokenizer = tokenizer_of(self.folder)
        count = len(self.data.parts["train"])
        validates = "validation" in self.data.parts
        # Packing and what does not fit are known only with the model's window, so the steps are counted after it.
        prepared, training = self._prepare(self._arguments(1, 1, validates=validates))
        encoder = self._encoder(prepared)
        features = self._features(encoder, "train")
        order = EpochOrder(
            len(features), plan.global_batch, s.seed, [length_of(f) for f in features] if s.length_bucketing else None
        )
        max_steps = max(1, math.ceil(s.epochs * order.batches))
        for name, value in self._arguments(max_steps, order.batches, validates=validates).items():
            if name in ("max_steps", "eval_steps", "warmup_steps"):
                setattr(training, name, value)
        validation = self._features(encoder, "validation") if validates else None
        for note in prepared.notes:
            self.say(f"note: {note}")
        trained = sum(p.numel() for p in prepared.model.parameters() if p.requires_grad)
        self.say(
            f"{s.method}, {prepared.precision}: {count:,} examples, {max_steps:,} steps of {plan.global_batch} "
            f"({plan.micro_batch} × {plan.accumulation} × {plan.processes})"
            + (f", ZeRO-{plan.zero_stage}" if plan.zero_stage else "")
            + (f", {trained:,} parameters trained" if trained and plan.zero_stage < 3 else "")
        )
        optim = str(training.optim.value)
        now = Written(plan.processes, plan.nodes, plan.zero_stage, optim)
        finder = Finder(self.root, s.upload, self.place, now, self.say)
        resume = self._going_on(finder, training)
        uploader = Uploader(say=self.say) if s.upload and self.place.local_rank == 0 else None
        saver = Checkpoints(
            self.root, minutes=s.checkpoint_minutes, keep=s.keep_checkpoints, leader=self.place.local_rank == 0,
            stop_file=self.output / STOP_FILE, uploader=uploader, uri=node_uri(s.upload, self.place.node),
            written=now, say=self.say,
        )  # fmt: skip
        meter = Meter()
        log = Log(
            self.output, plan.processes, s.usd_per_hour, peak_flops(s.instance_type, prepared.precision), self.say,
            cloudwatch(s.metrics, s.namespace, Path(s.model).name, os.environ.get("BERTH_STACK", "")),
        )  # fmt: skip
        callbacks: list[Any] = [Epochs(order), Reporter(log, meter), saver, Resumed(finder)]
        if s.patience and validates:
            callbacks.append(EarlyStoppingCallback(early_stopping_patience=s.patience))
        trainer = FineTuner(
            order=order, meter=meter, flops=batch_flops(self.folder, s.method), finder=finder, model=prepared.model,
            args=training, train_dataset=features, eval_dataset=validation,
            data_collator=Collator(tokenizer.pad_token_id), processing_class=prepared.tokenizer, callbacks=callbacks,
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        before = saver.listen()
        self._cap_memory(prepared)
        if resume is not None:
            _name_the_step(resume.folder)
        try:
            trainer.train(resume_from_checkpoint=None if resume is None else str(resume.folder))
        finally:
            signal.signal(signal.SIGTERM, before)
        if saver.interrupted:
            self._finish_uploads(uploader)
            return Outcome("interrupted", f"at step {trainer.state.global_step}, with a checkpoint")
        if s.patience and trainer.state.global_step < max_steps:
            self.say(
                f"stopped early at step {trainer.state.global_step}: {s.patience} evaluations without a lower loss"
            )
        _lift_cap()
        artifact = write_artifact(
            trainer, prepared, s, plan, self.data, self.folder, self.output, self.place.rank, self.say
        )
        if uploader is not None and self.place.rank == 0:
            uploader.put(artifact, f"{s.upload}/{artifact.name}")
        self._finish_uploads(uploader)
        return Outcome("done", str(artifact))

    def _going_on(self, finder: Finder, training: TrainingArguments) -> Resume | None:
        """The checkpoint that the Trainer reads, and DeepSpeed told how."""
        resume = finder.newest()
        if resume is None:
            return None
        finder.best(resume)
        self.say(f"going on from checkpoint-{resume.step}")
        if resume.universal:
            training.deepspeed_plugin.deepspeed_config.setdefault("checkpoint", {})["load_universal"] = True
        return resume

    def _finish_uploads(self, uploader: Uploader | None) -> None:
        if uploader is None:
            return
        if not uploader.close(_UPLOAD_LIMIT_S):
            self.say("uploads are not through after an hour; what is missing stays on this machine's disk")
        elif uploader.failures:
            names = ", ".join(folder.name for folder in uploader.failures)
            raise ModelError(f"not uploaded: {names}; they are under {self.output}")


def _meet_without_gpu() -> None:
    """DeepSpeed's processes over gloo: accelerate, left to itself, finds no backend on a CPU and makes every process
    rank 0 of 1."""
    from accelerate.state import AcceleratorState, PartialState

    AcceleratorState._reset_state(reset_partial_state=True)
    os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
    try:
        PartialState(cpu=False, backend="gloo")
    finally:
        del os.environ["ACCELERATE_USE_DEEPSPEED"]


def _lift_cap() -> None:
    """Of a CPU's memory; a GPU's is for training alone."""
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def check_tensorboard(settings: Any, find: Callable[[str], Any] = find_spec) -> None:
    """Raises `ModelError` where its files are wished and nothing can write them."""
    if settings.tensorboard and not find("tensorboard") and not find("tensorboardX"):
        raise ModelError(
            "tensorboard is wished and not installed: pip install tensorboard, or set tensorboard to false"
        )


def _device(settings: FinetuneSettings) -> Any:
    from model_runtime.precision import find_device

    return find_device(settings.device)


def _wait_for(path: Path, limit_s: float = 600.0) -> None:
    """Another process of this machine writes `path`."""
    until = time.monotonic() + limit_s
    while not path.is_file():
        if time.monotonic() > until:
            raise ModelError(f"{path} was not written within {limit_s:g} s by the first process of this machine")
        time.sleep(0.05)


def _name_the_step(checkpoint: Path) -> None:
    """DeepSpeed finds its shards by the file `latest`, which the first process alone writes: a machine that has fetched
    the shards of its own processes lacks it."""
    steps = sorted(checkpoint.glob("global_step*"))
    if len(steps) == 1 and not (checkpoint / "latest").exists():
        (checkpoint / "latest").write_text(steps[0].name, encoding="utf-8")
