"""CloudWatch's embedded metric format: a batch's figures as one JSON line of a log, which CloudWatch makes metrics of.

Format: "Specification: Embedded metric format", Amazon CloudWatch user guide (at most 100 values of a metric a line).
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

log = logging.getLogger(__name__)
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
    "ServerErrors": "Count",
    "MemorySplits": "Count",
    "GpuMemory": "Bytes",
}


def emf_line(
    values: Mapping[str, float | Sequence[float]],
    *,
    namespace: str,
    model: str,
    stack: str = "",
    now: float | None = None,
) -> str:
    """One line. Keys of `values` are those of `UNITS`; a sequence holds one value for each request of the batch.

    The metrics stand under the model, and under the `stack` where one is named: the alarms read that.
    """
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
                    "Dimensions": [["Stack"], ["Stack", "Model"]] if stack else [["Model"]],
                    "Metrics": [{"Name": name, "Unit": UNITS[name]} for name in shown],
                }
            ],
        },
        **({"Stack": stack} if stack else {}),
        "Model": model,
        **shown,
    }
    return json.dumps(document, separators=(",", ":"))


HOST_FILE = Path("/var/log/berth/metrics.log")
"""Where the host's CloudWatch agent looks; the host's folder is mounted into the container."""


def writer(target: str) -> Write:
    """Where lines go: `stdout`, `off`, a file, or `auto` (`HOST_FILE` where its folder is, else stdout).

    A file is opened anew for each line, so that a log rotation is followed. Lines that a full disk refuses are lost,
    with a warning: metrics never fail a request.
    """
    if target == "auto":
        target = str(HOST_FILE) if os.access(HOST_FILE.parent, os.W_OK) else "stdout"
    if target == "off":
        return lambda _: None
    if target == "stdout":
        return _to_stdout
    path = Path(target)

    def append(line: str) -> None:
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            log.warning("a line of metrics is lost: %s", error)

    return append


def _to_stdout(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
