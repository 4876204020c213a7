"""Predictions for the tests of the review page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HOSTILE = '</script><script>window.hacked=1</script><img src=x onerror="window.hacked=1">&lt;{{7*7}}'


def rows(count: int = 12) -> list[dict[str, Any]]:
    """Rows of which the fourth is hostile, the sixth empty, the eighth repeats itself."""
    made = []
    for i in range(count):
        text = f"Ticket {i}: the router in room {i} lost its connection and the agent sent a technician on Tuesday."
        made.append(
            {
                "id": f"t{i}",
                "input": text,
                "reference": f"Router in room {i} lost its connection.",
                "base": f"The agent sent a technician to room {i}.",
                "tuned": f"Router in room {i} lost its connection on Tuesday.",
                "metrics": {"tuned": {"rougeL": i / 100}},
            }
        )
    for i, tuned in ((3, HOSTILE), (5, ""), (7, "the router the router " * 10)):
        if i < count:
            made[i]["tuned"] = tuned
    return made


def write(path: Path, given: list[dict[str, Any]] | None = None) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in given or rows()), encoding="utf-8")
    return path
