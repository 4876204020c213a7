"""Whether the runtime extra (torch, transformers, the server) is installed, told in one line where it is not."""

from __future__ import annotations

from importlib.util import find_spec

from sizing.errors import UserError

NEEDED = ("torch", "transformers", "safetensors", "starlette", "uvicorn", "prometheus_client")


def needs_runtime(command: str) -> None:
    """Raise `UserError` when something is missing that `command` needs to run a model. Imports none of it."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise UserError(
            f"{command} runs a model and needs {', '.join(missing)}, which the base install leaves out; "
            'install them with: pip install "berth[runtime]"'
        )
