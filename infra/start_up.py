"""How long a start may take until something is wrong."""

from __future__ import annotations

from sizing.hardware.types import InstanceType
from sizing.models.facts import ModelFacts
from sizing.start_up import start_up

LEAST_S = 600


def start_up_seconds(model: ModelFacts, instance: InstanceType) -> int:
    """Half as long again as when all is slow, at least 10 minutes."""
    return max(LEAST_S, int(start_up(model, instance).total.high * 1.5))
