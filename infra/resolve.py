"""From a stack's settings to the context that its program takes: machine, model, expiry, what is unrecorded."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from infra.context import Context
from infra.durations import parse_duration
from infra.recommend import differs, to_record, unrecorded
from infra.settings import AUTO, MachineSettings, Settings
from sizing.errors import UserError
from sizing.hardware.load import Hardware
from sizing.models.facts import ModelFacts


def now() -> datetime:
    """The present moment in UTC, to the second."""
    return datetime.now(UTC).replace(microsecond=0)


def resolve(
    stack: str,
    region: str,
    settings: Settings,
    account: str,
    hardware: Hardware,
    find_model: Callable[[str], ModelFacts],
    *,
    strict: bool,
    clock: Callable[[], datetime] = now,
) -> Context:
    """The context of a stack.

    `strict` is for the engine: what is not recorded (`auto`, a time to live without its moment) raises `UserError`
    with the command that records it. Otherwise sizing's choice of today stands in, with a warning.
    """
    if not isinstance(settings, MachineSettings):
        return Context(stack, region, account, settings, hardware)
    warnings: list[str] = []
    missing = unrecorded(settings)
    if missing and strict:
        raise UserError(
            f"stack {stack}: not yet recorded: {', '.join(missing)}; "
            f"run `berth settings {stack} --record`, which writes sizing's choice into the stack file"
        )
    model = find_model(settings.model)
    if missing:
        try:
            found = to_record(settings, region, find_model, hardware, clock)
        except UserError as error:
            if settings.instance_type == AUTO or "micro_batch_size" not in missing:
                raise
            # The resources are the machine's, however the run uses it.
            warnings.append(f"how the run uses {settings.instance_type} cannot be planned: {error}")
            found = to_record(settings, region, find_model, hardware, clock, run=False)
        settings = settings.model_copy(update=found.values)
        said = ", ".join(f"{key} {value}" for key, value in found.values.items())
        if said:
            warnings.append(f"taken for this plan, not recorded: {said} (`berth settings {stack} --record` records it)")
    instance = hardware.instance(settings.instance_type)
    if change := differs(settings, region, model, hardware):
        warnings.append(change)
    if not settings.bundle_manifest_sha256:
        warnings.append("bundle_manifest_sha256 is empty: the host checks its files, but not who wrote the manifest")
    expires_at = settings.expiry
    lives = parse_duration(settings.time_to_live)
    if expires_at is None and lives is not None:
        expires_at = clock() + lives
    if expires_at is not None and expires_at <= clock():
        warnings.append(f"the stack expired at {expires_at.isoformat()}: remove expires_at and record it anew")
    return Context(stack, region, account, settings, hardware, instance, model, expires_at, warnings=tuple(warnings))
