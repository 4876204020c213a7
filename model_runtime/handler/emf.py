"""CloudWatch's embedded metric format: a batch's figures as one JSON line of a log, which CloudWatch makes metrics of.

Format: "Specification: Embedded metric format", Amazon CloudWatch user guide (at most 100 values of a metric a line).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

Write = Callable[[str], None]
MAX_VALUES = 100
UNITS = {
    "Latency": "Milliseconds",
    "QueueTime": "Milliseconds",
    "TimeToFirstToken": "Milliseconds",
    "InputTokens": "Count",
    "OutputTokens": "Count",
    "BatchSize": "Count",
    "Truncations": "Count",
    "Errors": "Count",
    "MemorySplits": "Count",
    "GpuMemory": "Bytes",
}


def emf_line(
    values: Mapping[str, float | Sequence[float]], *, namespace: str, model: str, now: float | None = None
) -> str:
    """One line. Keys of `values` are those of `UNITS`; a sequence holds one value for each request of the batch."""
    shown = {
        name: value if isinstance(value, (int, float)) else list(value)[:MAX_VALUES]
        for name, value in values.items()
        if isinstance(value, (int, float)) or len(value)
    }
    document = {
        "_aws": {
            "Timestamp": int((time.time() if now is None else now) * 1000),
            "CloudWatchMetrics": [
                {
                    "Namespace": namespace,
                    "Dimensions": [["Model"]],
                    "Metrics": [{"Name": name, "Unit": UNITS[name]} for name in shown],
                }
            ],
        },
        "Model": model,
        **shown,
    }
    return json.dumps(document, separators=(",", ":"))


def writer(target: str) -> Write:
    """Where lines go: `stdout`, `off`, or a file, opened anew for each line so that a log rotation is followed."""
    if target == "off":
        return lambda _: None
    if target == "stdout":
        return _to_stdout
    path = Path(target)

    def append(line: str) -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    return append


def _to_stdout(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
