"""The configuration that Pulumi's engine gives a program or a policy pack, as Berth's settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from infra.settings import Settings, read_settings
from infra.stack_files import REGION_KEY, split_config


def config_of_engine(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The engine's configuration, whose keys are those of the stack file; its lists come as JSON."""
    known = {key: value for key, value in raw.items() if key.startswith("berth:") or key == REGION_KEY}
    return {
        key: json.loads(value) if isinstance(value, str) and value.startswith("[") and value.endswith("]") else value
        for key, value in known.items()
    }


def settings_of_engine(raw: Mapping[str, Any], stack: str) -> tuple[str, Settings]:
    """Region and settings of `stack`. Raises `UserError` for every wrong key by name."""
    region, given = split_config(config_of_engine(raw), stack)
    return region, read_settings(given, stack)
