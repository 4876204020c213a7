"""The plan's files as `berth size --for training` wrote them, and what a run may change in them: how a batch is cut."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from model_runtime.errors import ModelError
from model_runtime.training.settings import FinetuneSettings
from sizing.training_plan.configuration import ACCELERATE, ARGUMENTS, DEEPSPEED, PLAN


@dataclass(frozen=True, slots=True)
class RunPlan:
    """How the work is spread. `global_batch` = `micro_batch` × `accumulation` × `processes`, whatever is changed.

    `arguments` are keyword arguments of `TrainingArguments`, `deepspeed` DeepSpeed's configuration (None: not used),
    `adapter` those of `LoraConfig`, `quantization` those of `BitsAndBytesConfig`. `processes` are of all `nodes`.
    """

    micro_batch: int
    accumulation: int
    processes: int
    nodes: int
    arguments: dict[str, Any]
    deepspeed: dict[str, Any] | None
    details: dict[str, Any]

    @property
    def global_batch(self) -> int:
        return self.micro_batch * self.accumulation * self.processes

    @property
    def zero_stage(self) -> int:
        return int(self.deepspeed["zero_optimization"]["stage"]) if self.deepspeed else 0

    def cut(self, micro_batch: int, processes: int | None = None) -> RunPlan:
        """The same global batch in other pieces. Raises `ModelError` where they do not make it up exactly."""
        world = processes or self.processes
        if micro_batch < 1 or self.global_batch % (micro_batch * world):
            raise ModelError(
                f"a global batch of {self.global_batch} cannot be cut into micro-batches of {micro_batch} on {world} "
                "processes; take a number of processes that divides it"
            )
        return replace(
            self, micro_batch=micro_batch, accumulation=self.global_batch // (micro_batch * world), processes=world
        )

    def halved(self) -> RunPlan | None:
        """Half the micro-batch, twice the accumulation; None where the micro-batch is 1 already. An odd one goes to the
        largest smaller one that keeps the global batch."""
        each = self.micro_batch * self.accumulation
        smaller = [n for n in range(1, self.micro_batch // 2 + 1) if each % n == 0]
        return self.cut(max(smaller)) if smaller else None

    def deepspeed_config(self) -> dict[str, Any] | None:
        """DeepSpeed's configuration with this cut; as the plan wrote it where nothing was changed."""
        if self.deepspeed is None:
            return None
        found = copy.deepcopy(self.deepspeed)
        found["train_batch_size"] = self.global_batch
        found["train_micro_batch_size_per_gpu"] = self.micro_batch
        found["gradient_accumulation_steps"] = self.accumulation
        return found


def name_of(settings: FinetuneSettings, plan: RunPlan) -> str:
    """What the base model is called; on a machine its folder has a name that says nothing."""
    return settings.model_name or str(plan.details.get("model") or settings.model)


def plan_of(settings: FinetuneSettings) -> RunPlan:
    """The plan in the settings' folder, or a plain one of the settings themselves. Raises `ModelError`."""
    if not settings.plan:
        return RunPlan(
            settings.micro_batch_size, settings.gradient_accumulation_steps, settings.processes, 1, {}, None, {}
        )
    folder = Path(settings.plan)
    missing = [name for name in (ACCELERATE, ARGUMENTS, PLAN) if not (folder / name).is_file()]
    if missing:
        raise ModelError(
            f"{folder} lacks {', '.join(missing)}; give the folder that berth size MODEL --for training wrote"
        )
    accelerate, arguments, details = _yaml(folder / ACCELERATE), _json(folder / ARGUMENTS), _json(folder / PLAN)
    uses = accelerate.get("distributed_type") == "DEEPSPEED"
    deepspeed = _json(folder / DEEPSPEED) if uses else None
    try:
        made = RunPlan(
            micro_batch=int(arguments["per_device_train_batch_size"]),
            accumulation=int(arguments["gradient_accumulation_steps"]),
            processes=int(accelerate["num_processes"]),
            nodes=int(accelerate["num_machines"]),
            arguments=arguments,
            deepspeed=deepspeed,
            details=details,
        )
        agree = deepspeed is None or (
            deepspeed["train_micro_batch_size_per_gpu"] == made.micro_batch
            and deepspeed["gradient_accumulation_steps"] == made.accumulation
            and deepspeed["train_batch_size"] == made.global_batch
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder} is no plan of this Berth ({type(error).__name__}: {error}); plan again") from error
    if not agree:
        raise ModelError(f"{folder}: {DEEPSPEED} and {ARGUMENTS} cut the batch differently; plan again")
    return made


def planned_settings(settings: FinetuneSettings, plan: RunPlan) -> tuple[FinetuneSettings, tuple[str, ...]]:
    """Settings with what the plan decides, and a line for each that the plan changed."""
    details, arguments = plan.details, plan.arguments
    if not details:
        return settings, ()
    wanted: dict[str, Any] = {
        "method": details.get("method"),
        "precision": {"pure-bf16": "bf16"}.get(str(details.get("precision")), details.get("precision")),
        "epochs": arguments.get("num_train_epochs"),
        "max_grad_norm": arguments.get("max_grad_norm"),
        "gradient_checkpointing": arguments.get("gradient_checkpointing"),
        "instance_type": (details.get("machine") or {}).get("instance_type"),
        "max_input_tokens": settings.max_input_tokens or details.get("max_input_tokens"),
        "max_target_tokens": settings.max_target_tokens or details.get("max_output_tokens"),
    }
    if adapter := details.get("adapter"):
        wanted |= {
            "lora_rank": adapter["r"],
            "lora_alpha": adapter["lora_alpha"],
            "lora_dropout": adapter["lora_dropout"],
            "lora_targets": tuple(adapter["target_modules"]),
        }
    if details.get("method") == "prompt":
        raise ModelError("the plan is for prompt tuning, which this Berth only sizes; plan full, lora or qlora")
    changed = {name: value for name, value in wanted.items() if value is not None and value != getattr(settings, name)}
    said = tuple(f"the plan sets {name} to {value}" for name, value in changed.items())
    try:
        return replace(settings, **changed), said
    except (ModelError, TypeError) as error:
        raise ModelError(f"{settings.plan}/{PLAN}: {error}") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds no JSON object")
    return found


def _yaml(path: Path) -> dict[str, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        found = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except (OSError, YAMLError) as error:
        raise ModelError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds no mapping")
    return found
