"""Which components a role is made of: one program a role, and `declare`, which runs the stack's own."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from infra.context import Context


def declare(context: Context) -> dict[str, Any]:
    """Declare the resources of a stack by its role; returns its outputs by name."""
    program = import_module(f"infra.programs.{context.settings.role}")
    return program.declare(context)
