"""What a stack's machines run, from the stack's recorded settings: the folder for a service, the one for training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from infra import metrics
from infra.recommend import unrecorded, workload_of
from infra.settings import EndpointSettings, InferenceSettings, MachineSettings, ServiceSettings
from infra.stack_files import StackFile
from model_runtime.errors import ModelError
from model_runtime.handler.bundle import Bundle, write_archive, write_bundle
from model_runtime.handler.settings import MAX_BATCH_SIZE, ServingSettings
from model_runtime.precision import DTYPES, QUANTIZATIONS, canonical
from sizing.choosing.fit import Memories
from sizing.errors import UserError
from sizing.hardware.load import Hardware, load_hardware
from sizing.hardware.types import InstanceType
from sizing.models.facts import ModelFacts
from sizing.models.resolve import resolve_model

HOST_MODEL = "/opt/berth/model"
"""Where a host's container finds the weights."""
HOST_JOURNAL = "/opt/berth/feedback"
"""Where a host's container keeps the feedback that is not yet shipped."""
ENDPOINT_MODEL = "/opt/ml/additional-model-data-sources/weights"
"""Where SageMaker puts the channel `weights`."""


@dataclass(frozen=True, slots=True)
class StackBundle:
    """The bundle of a stack. `kind`: serving or training; `notes` are for the person who asked for it."""

    kind: str
    bundle: Bundle
    notes: tuple[str, ...] = ()


def write_stack_bundle(
    file: StackFile,
    target: Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    archive: bool = True,
    hardware: Hardware | None = None,
    find_model: Callable[[str], ModelFacts] = resolve_model,
) -> StackBundle:
    """Write the bundle of a stack into the folder `target`, and `TARGET.tar.gz` beside it with `archive`.

    `overrides` go over what a service's stack says, by the names of `ServingSettings`. Raises `UserError` for a stack
    without machines, for one whose choices are not recorded, and for what the handler cannot serve.
    """
    settings = machine_settings(file)
    missing = [key for key in unrecorded(settings) if key != "expires_at"]
    if missing:
        raise UserError(
            f"stack {file.name}: not yet recorded: {', '.join(missing)}; `berth settings {file.name} --record` does"
        )
    hardware = hardware or load_hardware()
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    if isinstance(settings, ServiceSettings):
        try:
            chosen, notes = serving_settings(settings, hardware, find_model, given)
            journal = HOST_JOURNAL if isinstance(settings, InferenceSettings) and settings.feedback else ""
            made = write_bundle(target, chosen, feedback_journal=journal, archive=archive)
            return StackBundle("serving", made, notes)
        except ModelError as error:
            raise UserError(f"stack {file.name}: {error}") from error
    if given:
        raise UserError(f"stack {file.name} trains: its run is set in its stack file, not by options of a service")
    from infra.plan import ACCOUNT  # noqa: PLC0415 (imports Pulumi, which takes a second)
    from infra.resolve import resolve  # noqa: PLC0415
    from infra.training_job import write_bundle as write_training  # noqa: PLC0415

    context = resolve(file.name, file.region, settings, ACCOUNT, hardware, find_model, strict=False)
    trained = write_training(file, context, target)
    return StackBundle("training", replace(trained, archive=write_archive(target)) if archive else trained)


def machine_settings(file: StackFile) -> MachineSettings:
    """The settings of a stack with machines. Raises `UserError` for one without."""
    if not isinstance(file.settings, MachineSettings):
        raise UserError(f"stack {file.name} has the role {file.settings.role}: it runs no model and has no bundle")
    return file.settings


def serving_settings(
    settings: ServiceSettings,
    hardware: Hardware,
    find_model: Callable[[str], ModelFacts],
    overrides: Mapping[str, Any],
) -> tuple[ServingSettings, tuple[str, ...]]:
    """`serving.properties` for a service: its number format, batch and lengths, over as many GPUs as a copy needs."""
    model, instance = find_model(settings.model), hardware.instance(settings.instance_type)
    name = canonical(settings.dtype)
    if name not in (*DTYPES, *QUANTIZATIONS):
        raise UserError(
            f"the stack's dtype is {settings.dtype}, which Berth's handler does not load; "
            f"it loads {', '.join((*DTYPES, *QUANTIZATIONS))}"
        )
    if settings.batch > MAX_BATCH_SIZE:
        raise UserError(f"the stack's batch is {settings.batch}; the engine answers {MAX_BATCH_SIZE} together at most")
    gpus, notes = gpus_for(settings, model, instance)
    chosen = ServingSettings(
        model=ENDPOINT_MODEL if isinstance(settings, EndpointSettings) else HOST_MODEL,
        model_name=model.name.rsplit("/", 1)[-1],
        dtype="auto" if name in QUANTIZATIONS else name,
        quantize=name if name in QUANTIZATIONS else "",
        tensor_parallel_degree=gpus,
        batch_size=settings.batch,
        max_input_tokens=settings.input_tokens,
        max_output_tokens=max(1, settings.output_tokens),
        metrics_namespace=metrics.NAMESPACE,
        # Of an endpoint SageMaker itself captures the share.
        request_log_percent=settings.capture_percent if isinstance(settings, InferenceSettings) else 0,
    )
    return replace(chosen, **overrides), notes


def gpus_for(settings: ServiceSettings, model: ModelFacts, instance: InstanceType) -> tuple[int, tuple[str, ...]]:
    """Over how many of the machine's GPUs one copy of the model is laid: the fewest on which it fits.

    The estimate is that of `berth memory`. Where it fits on none, all are taken, with a note: the machine was chosen
    by a person then, and is the better judge.
    """
    gpu = instance.gpu
    if gpu is None or instance.gpus <= 1:
        return 1, ()
    memories = Memories(model, workload_of(settings), settings.loading, "transformers")
    dtype = canonical(settings.dtype)
    for count in (n for n in range(1, instance.gpus + 1) if instance.gpus % n == 0):
        if not memories.can_split(count):
            continue
        if memories.estimate(dtype, count, settings.batch).device.total_bytes <= gpu.memory_bytes:
            if count == instance.gpus:
                return count, ()
            return count, (
                f"{model.name} fits on {count} of the {instance.gpus} GPUs of {instance.name}; it uses no more",
            )
    return instance.gpus, (
        f"by its estimate {model.name} in {settings.dtype} at batch {settings.batch} does not fit "
        f"on the {instance.gpus} {gpu.name} of {instance.name}; all of them are used",
    )
