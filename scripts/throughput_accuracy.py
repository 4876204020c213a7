"""Writes docs/throughput.md: published speeds beside the estimate, split by split, and the constants behind it.

A test fails when the page and the estimates disagree.
"""

from __future__ import annotations

import csv
from itertools import groupby
from pathlib import Path

from berth.report.files import write_text
from sizing.throughput.measured import Measurement, measurements, median_error
from sizing.throughput.tables import FOLDER, engine_names

PAGE = Path(__file__).resolve().parent.parent / "docs" / "throughput.md"
_HEAD = """\
# Speed: estimated and measured

How fast a model answers is estimated by a roofline (`sizing/throughput/roofline.py`): a pass takes as long as reading
its bytes or computing its operations, and an eager engine cannot launch kernels faster than its host lets it. The
constants stand in `sizing/throughput/engines.csv` with their sources; the published speeds below in
`sizing/throughput/measured.csv` with theirs. This page is written by `scripts/throughput_accuracy.py`.

Lines marked *calibrate* gave the likely constants. Lines marked *check* come from other sources or, where an engine has
only one source, other models, and set no likely constant; some slow and fast ends were widened in their light, so
*within* is no test of its own there. Times are milliseconds for one output token of the whole batch; an error
above zero means that the estimate is too slow. *Within* counts the measurements that lie between the estimate's fast
and slow end.

What to expect: a third of the likely figure either way, more where the host is much slower or the software much older
than those measured. LLM.int8 on a T4 was measured at half the likely speed; a single figure is no promise, so measure
the choice before it is announced.
"""


def render() -> str:
    """The page as text."""
    found = measurements()
    parts = [_HEAD, _summary(found), _lines(found), _constants()]
    return "\n".join(parts)


def _summary(found: tuple[Measurement, ...]) -> str:
    rows = ["| engine | lines | median error | largest | within |", "|---|---|---|---|---|"]
    for name in engine_names():
        for split in ("calibrate", "check"):
            group = [m for m in found if m.engine == name and m.split == split]
            if group:
                largest = max(abs(m.error) for m in group)
                rows.append(
                    f"| {name} | {len(group)} {split} | {median_error(group):.0%} | {largest:.0%} | "
                    f"{sum(m.within for m in group)} of {len(group)} |"
                )
    return "## In short\n\n" + "\n".join(rows) + "\n"


def _lines(found: tuple[Measurement, ...]) -> str:
    parts = ["## Line by line\n"]
    for source, members in groupby(sorted(found, key=lambda m: (m.split, m.engine, m.source)), key=lambda m: m.source):
        group = list(members)
        parts.append(f"### {source}\n\n{group[0].engine}, {group[0].split}\n")
        parts.append(
            "| model | dtype | GPUs | batch | measured ms | estimated ms | error |\n|---|---|---|---|---|---|---|"
        )
        parts.extend(
            f"| {m.model} | {m.dtype} | {m.gpus} × {m.gpu} | {m.batch} | {m.measured_ms:.4g} | "
            f"{m.likely_ms:.4g} ({m.fast_ms:.4g} to {m.slow_ms:.4g}) | {m.error:+.0%} |"
            for m in group
        )
        parts.append("")
    return "\n".join(parts)


def _constants() -> str:
    rows = ["| engine | constant | fast | likely | slow | how | source | as of |", "|---|---|---|---|---|---|---|---|"]
    with (FOLDER / "engines.csv").open(encoding="utf-8", newline="") as file:
        rows.extend(
            f"| {r['engine']} | {r['constant']} ({r['unit']}) | {r['fast']} | {r['likely']} | {r['slow']} | "
            f"{r['how']} | {r['source']} | {r['as_of']} |"
            for r in csv.DictReader(file)
        )
    return "## The constants\n\n" + "\n".join(rows) + "\n"


def main() -> None:
    write_text(PAGE, render())


if __name__ == "__main__":
    main()
