"""`docs/accuracy.md`: how right the estimates are, group by group, worst first."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sizing.accuracy.points import OutOfScope, PointResult
from sizing.units import GIB


@dataclass(frozen=True, slots=True)
class Summary:
    """Errors of one method over some points; shares are 0..1."""

    points: int
    median: float
    nine_in_ten: float
    within: float
    worst: float


def summary(errors: Iterable[float], bound: float) -> Summary | None:
    """Of absolute relative errors; `within` is the share that is at most `bound`. None without points."""
    ordered = sorted(abs(e) for e in errors)
    if not ordered:
        return None
    nine = ordered[min(len(ordered) - 1, -(-9 * len(ordered) // 10) - 1)]
    return Summary(
        len(ordered), statistics.median(ordered), nine, sum(e <= bound for e in ordered) / len(ordered), ordered[-1]
    )


@dataclass(frozen=True, slots=True)
class Section:
    """One purpose (inference, training) with its targets."""

    title: str
    results: Sequence[PointResult]
    outside: Sequence[OutOfScope]
    target: str
    bound: float

    @property
    def sized(self) -> list[PointResult]:
        return [r for r in self.results if r.fits is None]

    @property
    def fitting(self) -> list[PointResult]:
        return [r for r in self.results if r.fits is not None]

    def false_fits(self) -> list[PointResult]:
        """Points where the estimate says that it fits and the measurement that it did not."""
        return [r for r in self.fitting if r.estimated_fits and not r.fits]


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _row(name: str, s: Summary | None) -> str:
    if s is None:
        return f"| {name} | 0 | – | – | – | – |"
    figures = (s.median, s.nine_in_ten, s.within, s.worst)
    return f"| {name} | {s.points} | {' | '.join(_percent(f) for f in figures)} |"


def _methods(section: Section) -> list[str]:
    lines = [
        f"| method | points | median error | 9 of 10 within | share within {_percent(section.bound)} | worst |",
        "|---|---:|---:|---:|---:|---:|",
        _row("**Berth**", summary((r.error for r in section.sized), section.bound)),
    ]
    others: dict[str, Callable[[PointResult], float]] = {
        "rule of thumb": lambda r: r.rule_of_thumb,
        "weights only (what `accelerate estimate-memory` prints)": lambda r: r.weights_only,
    }
    for name, figure in others.items():
        errors = [figure(r) / r.measured - 1 for r in section.sized if figure(r) > 0]
        if errors:
            lines.append(_row(name, summary(errors, section.bound)))
    for name in dict.fromkeys(n for r in section.sized for n, _ in r.others):
        errors = [value / r.measured - 1 for r in section.sized for n, value in r.others if n == name]
        lines.append(_row(name, summary(errors, section.bound)))
    return lines


def _fits(section: Section) -> list[str]:
    right = sum(r.fits == r.estimated_fits for r in section.fitting)
    wrong = section.false_fits()
    lines = [
        f"Fitting: {right} of {len(section.fitting)} rows called right; "
        f"{len(wrong)} said to fit where it was measured not to."
    ]
    for r in section.fitting:
        if r.fits != r.estimated_fits:
            p = r.point
            lines.append(
                f"- line {p.line}: {p.model} {p.precision} {p.method}, batch {p.batch}, {p.seq_len}, {p.gpu_type}: "
                f"measured {'fits' if r.fits else 'out of memory'}, "
                f"estimated {r.estimated / GIB:.1f} of {r.measured / GIB:.1f} GiB"
            )
    return lines


def _groups(section: Section) -> list[str]:
    lines = []
    groups: dict[str, list[PointResult]] = {}
    for r in section.sized:
        groups.setdefault(r.group, []).append(r)

    def median(results: list[PointResult]) -> float:
        return statistics.median(abs(r.error) for r in results)

    for name, results in sorted(groups.items(), key=lambda item: -median(item[1])):
        lines += [
            "",
            f"### {name}",
            "",
            f"{len(results)} points, median error {_percent(median(results))}",
            "",
            "| line | model | precision | method | batch | tokens | metric | measured GiB | estimated GiB | error "
            "| rule of thumb |",
            "|---:|---|---|---|---:|---|---|---:|---:|---:|---:|",
        ]
        for r in sorted(results, key=lambda r: -abs(r.error)):
            p = r.point
            rule = f"{100 * (r.rule_of_thumb / r.measured - 1):+.0f} %" if r.rule_of_thumb else "–"
            lines.append(
                f"| {p.line} | {p.model} | {p.precision} | {p.method} | {p.batch} | {p.seq_len} | {r.metric} | "
                f"{r.measured / GIB:.2f} | {r.estimated / GIB:.2f} | {100 * r.error:+.1f} % | {rule} |"
            )
    return lines


def _outside(section: Section) -> list[str]:
    reasons = Counter(o.reason for o in section.outside)
    lines = [f"{len(section.outside)} rows have no estimate:", ""]
    lines += [f"- {n} × {reason}" for reason, n in reasons.most_common()]
    return lines


def report(sections: Sequence[Section], plot: str) -> str:
    """The whole page as Markdown; `plot` is the file name of the picture."""
    lines = [
        "# How right the memory estimates are",
        "",
        "Written by `make accuracy`: every row of `sizing/accuracy/data/measured_points.csv` (published measurements,",
        "each with its source) for which Berth makes an estimate, in the row's own metric and unit. What a source's",
        "script measured is read from its code (`sizing/accuracy/*_cases.py`); no constant is fitted to a single row.",
        "An error is estimate ÷ measurement − 1.",
        "",
        f"![estimated against measured]({plot})",
    ]
    for section in sections:
        lines += ["", f"## {section.title}", "", f"Target: {section.target}", "", *_methods(section)]
        if section.fitting:
            lines += ["", *_fits(section)]
        lines += _groups(section)
        if section.outside:
            lines += ["", "### Out of scope", "", *_outside(section)]
    return "\n".join(lines) + "\n"
