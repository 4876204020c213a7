"""Writes docs/training-time.md: published training times beside the estimate, split by split, and the constants.

A test fails when the page and the estimates disagree.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from berth.report.files import write_text
from sizing.training_plan.measured import Measurement, measurements, median_error
from sizing.training_plan.tables import constant_rows, mfu_rows

PAGE = Path(__file__).resolve().parent.parent / "docs" / "training-time.md"
AWS = ("A100", "A10G", "V100", "L40S", "H100")
HEAD = """\
# Training time: estimated and measured

How long a fine-tune takes is estimated step by step (`sizing/training_plan/speed.py`): operations (6 a parameter and
token, 8 with recomputation, 4 and 6 where weights are frozen, and attention's) over the GPU's published throughput
times the share of it that is reached (MFU); no less than the host needs to launch the kernels; what GPUs send each
other under ZeRO; what offloading moves to the host; the optimizer's update. The constants stand in
`sizing/training_plan/mfu.csv` and `constants.csv` with their sources, the published times below in `measured.csv`.
This page is written by `scripts/training_time_accuracy.py`.

Lines marked *calibrate* gave likely constants. Lines marked *check* come from other sources or other machines and set
no likely constant; some fast and slow ends were widened in their light, so *within* is no test of its own there. The
time compared is that of one optimizer step; an error above zero means that the estimate is too slow. *Within* counts
the measurements between the estimate's fast and slow end.
"""
LEFT_OUT = """\
## What is left out

- torchtune on an A6000 (2,579 and 4,699 tokens/s): more than the whole of one board's published throughput.
- torchtune's compiled runs: Berth's fine-tuner does not compile.
- Llama-2-70B by FSDP on 16 A100 (13.5 h): with evaluations and checkpoints of unknown length.
- Llama-3-70B by FSDP on 4 A10G (45 h), Llama-3.1-8B on L4, DeepSpeed-Chat's runs: their token counts are not published.
- Megatron-LM's rows are shares of the peak, not times; they stand among the sources of the A100's line.

No time measured on T4, L4, H200 or later GPUs has a published token count: their lines of `mfu.csv` are assumptions,
and say so; a plan that rests on one says so too.
"""


def render() -> str:
    """The page as text."""
    found = measurements()
    return "\n".join([HEAD, _summary(found), _lines(found), LEFT_OUT, _tables()])


def _row(name: str, group: list[Measurement]) -> str:
    errors = sorted(abs(m.error) for m in group)
    nine = errors[min(len(errors) - 1, int(0.9 * len(errors)))]
    within = f"{sum(m.within for m in group)} of {len(group)}"
    return f"| {name} | {len(group)} | {median_error(group):.0%} | {nine:.0%} | {errors[-1]:.0%} | {within} |"


def _summary(found: tuple[Measurement, ...]) -> str:
    rows = [
        "| lines | number | median error | 9 of 10 within | largest | within the range |",
        "|---|---|---|---|---|---|",
    ]
    for split in ("calibrate", "check"):
        group = [m for m in found if m.split == split]
        rows.append(_row(split, group))
        if split == "check":
            rows.append(_row("check, GPUs that AWS rents", [m for m in group if m.gpu in AWS]))
            rows.append(_row("check, other boards", [m for m in group if m.gpu not in AWS]))
    for method in ("full", "lora", "qlora"):
        group = [m for m in found if m.method.split(" ")[0] == method and m.gpu in AWS]
        rows.append(_row(f"{method}, GPUs that AWS rents, both splits", group))
    return (
        "## In short\n\n"
        + "\n".join(rows)
        + "\n\nBoards that AWS does not rent (RTX 3090 and 4090, A5000, A6000 Ada) have no line of their own in the "
        "table; they\nshow how far a GPU without one may be off: usually faster than said.\n"
    )


def _lines(found: tuple[Measurement, ...]) -> str:
    parts = ["## Line by line\n"]
    ordered = sorted(found, key=lambda m: (m.split, m.source))
    for (split, source), members in groupby(ordered, key=lambda m: (m.split, m.source)):
        group = list(members)
        parts.append(f"### {source}\n\n{split}\n")
        parts.append(
            "| model | method | GPUs | how | micro-batch | tokens | published | step, s | estimated, s "
            "| error |\n"
            "|---|---|---|---|---|---|---|---|---|---|"
        )
        parts.extend(
            f"| {m.model} | {m.method} | {m.gpus} × {m.gpu} | {m.strategy} | {m.micro_batch} | {m.tokens} | "
            f"{m.published} | {m.measured_s:.3g} | {m.likely_s:.3g} ({m.fast_s:.3g} to {m.slow_s:.3g}) "
            f"| {m.error:+.0%} |"
            for m in group
        )
        notes = list(dict.fromkeys(m.note for m in group if m.note))
        parts.append("")
        if notes:
            parts.append("\n".join(f"- {note}" for note in notes) + "\n")
    return "\n".join(parts)


def _tables() -> str:
    shares = [
        "| GPU | architecture | method | width | low | likely | high | how | source | as of |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    shares += [
        f"| {r['gpu']} | {r['architecture']} | {r['method']} | {r['precision']} | {r['low']} | {r['likely']} "
        f"| {r['high']} | {r['how']} | {r['source']} | {r['as_of']} |"
        for r in mfu_rows()
    ]
    rest = ["| constant | fast | likely | slow | how | source | as of |", "|---|---|---|---|---|---|---|"]
    rest += [
        f"| {r['constant']} ({r['unit']}) | {r['fast']} | {r['likely']} | {r['slow']} | {r['how']} | {r['source']} "
        f"| {r['as_of']} |"
        for r in constant_rows()
    ]
    return "## MFU\n\n" + "\n".join(shares) + "\n\n## Everything else\n\n" + "\n".join(rest) + "\n"


def main() -> None:
    write_text(PAGE, render())


if __name__ == "__main__":
    main()
