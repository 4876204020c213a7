"""The Measurement: one JSON file with what was seen, on which machine, with which settings. Its schema is published."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from model_runtime.errors import ModelError
from model_runtime.versions import versions_of
from model_runtime.writable import check_writable

FORMAT = "berth-measurement/1"
SECRET = ("--api-key",)
HIDDEN = "***"
_PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "bitsandbytes", "accelerate", "starlette", "uvicorn")


def machine() -> dict[str, Any]:
    """This machine: processor, cores, memory, GPUs, EC2 instance type where it is one, software versions."""
    import psutil
    import torch

    gpus = []
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            p = torch.cuda.get_device_properties(i)
            gpus.append(
                {"name": p.name, "memory_bytes": p.total_memory, "compute_capability": float(f"{p.major}.{p.minor}")}
            )
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": gpus,
        "instance_type": instance_type(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": versions_of(_PACKAGES),
    }


def instance_type(firmware: Path = Path("/sys/devices/virtual/dmi/id")) -> str | None:
    """The EC2 instance type, None elsewhere: on Nitro systems the firmware's vendor is Amazon EC2 and its product name
    the type (Amazon EC2 user guide, "Identify EC2 instances")."""
    try:
        vendor = (firmware / "sys_vendor").read_text(encoding="utf-8").strip()
        product = (firmware / "product_name").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return product or None if vendor == "Amazon EC2" else None


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def check_place(path: Path) -> None:
    """Raise `ModelError` where a file could not be written at `path`; nothing is made."""
    if path.is_dir():
        raise ModelError(f"{path} cannot be written there: name a file in a folder of yours")
    check_writable(path.absolute().parent)


def write_measurement(document: dict[str, Any], path: Path) -> None:
    """Write the file whole, or not at all; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.tmp")
    draft.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    draft.replace(path)


def read_measurement(path: Path) -> dict[str, Any]:
    """A measurement from a file. Raises `ModelError` for what is none, or of a format of another day."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ModelError(f"{path} is no JSON: {error}; give a file that berth verify --report wrote") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ModelError(f"{path} is no measurement of the format {FORMAT}; measure again with berth verify")
    return document


def command_line(given: Sequence[str] | None = None) -> str:
    """How Berth was called (`given`: the arguments; by default this process's), without the key that a server wants."""
    words = list(sys.argv[1:] if given is None else given)
    for at, word in enumerate(words):
        name, has_value, _ = word.partition("=")
        if name in SECRET and has_value:
            words[at] = f"{name}={HIDDEN}"
        elif name in SECRET and at + 1 < len(words):
            words[at + 1] = HIDDEN
    return shlex.join(["berth", *words]).replace(shlex.quote(HIDDEN), HIDDEN)
