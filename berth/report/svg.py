"""The charts of the report as inline SVG, drawn here: no script, no library, readable at any width.

Shapes are placed in per cent of the picture's width, so that text keeps its size on a phone; words and numbers that
matter stand in HTML beside the picture as well.
"""

from __future__ import annotations

import math

from markupsafe import Markup

from berth.report.blocks import Bars, Curves, StackedBar
from sizing.units import GIB, gib

SERIES = 10
"""Colours of series in the style sheet: classes c0 … c9."""


def _svg(title: str, height: int, body: Markup, kind: str) -> Markup:
    return Markup('<svg class="{}" role="img" aria-label="{}" width="100%" height="{}">{}</svg>').format(
        kind, title, height, body
    )


def stacked_bar(bar: StackedBar) -> Markup:
    """Parts side by side, the range of their sum as a whisker, the capacity as the width of the frame."""
    total = sum(size for _, size in bar.parts)
    widest = max(total, bar.high, bar.capacity or 0, 1)
    shapes, at = [], 0.0
    for index, (name, size) in enumerate(bar.parts):
        width = 100 * size / widest
        shapes.append(
            Markup(
                '<rect class="c{}" x="{:.3f}%" y="6" width="{:.3f}%" height="30"><title>{}: {}</title></rect>'
            ).format(index % SERIES, at, width, name, gib(size))
        )
        at += width
    low, high = 100 * bar.low / widest, 100 * bar.high / widest
    shapes.append(
        Markup('<line class="whisker" x1="{:.3f}%" x2="{:.3f}%" y1="44" y2="44"><title>{} to {}</title></line>').format(
            low, high, gib(bar.low), gib(bar.high)
        )
    )
    for edge in (low, high):
        shapes.append(Markup('<line class="whisker" x1="{0:.3f}%" x2="{0:.3f}%" y1="40" y2="48"/>').format(edge))
    if bar.capacity is not None:
        shapes.append(
            Markup('<rect class="frame" x="0" y="6" width="{:.3f}%" height="30"/>').format(100 * bar.capacity / widest)
        )
    there = f" of {bar.capacity_label}" if bar.capacity is not None else ""
    title = f"{bar.title}: {gib(total)}{there}, range {gib(bar.low)} to {gib(bar.high)}"
    return _svg(title, 52, Markup("").join(shapes), "stack")


def bar(value: float, widest: float, label: str, index: int) -> Markup:
    """One horizontal bar, as long as `value` is of `widest`."""
    width = 100 * value / widest if widest > 0 else 0
    shape = Markup('<rect class="c{}" x="0" y="2" width="{:.3f}%" height="14" rx="2"/>').format(index, max(width, 0.3))
    return _svg(label, 18, shape, "bar")


def widest(bars: Bars) -> float:
    return max((value for _, value, _ in bars.bars if value is not None), default=0.0)


def ticks(highest: float, most: int = 5) -> list[float]:
    """Round numbers from 0 to at least `highest`: steps of 1, 2 or 5 times a power of ten."""
    if highest <= 0 or not math.isfinite(highest):
        return [0.0, 1.0]
    rough = highest / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * (1 - 1e-9))
    return [step * i for i in range(math.ceil(highest / step - 1e-9) + 1)]


def curves(chart: Curves) -> Markup:
    """Lines with points over one x axis; both axes start at 0."""
    points = [p for curve in chart.curves for p in curve.points]
    ys, xs = ticks(max((y for _, y in points), default=1)), ticks(max((x for x, _ in points), default=1))
    left, width, top, height = 11.0, 87.0, 12, 180
    parts = []
    for y in ys:
        place = top + height * (1 - y / ys[-1])
        parts.append(
            Markup(
                '<line class="grid" x1="{}%" x2="{}%" y1="{:.1f}" y2="{:.1f}"/>'
                '<text class="tick" x="{}%" y="{:.1f}" text-anchor="end">{:g}</text>'
            ).format(left, left + width, place, place, left - 1, place + 4, y)
        )
    for x in xs:
        parts.append(
            Markup('<text class="tick" x="{:.2f}%" y="{}" text-anchor="{}">{:g}</text>').format(
                left + width * x / xs[-1], top + height + 18, "end" if x == xs[-1] else "middle", x
            )
        )
    inner = []
    for index, curve in enumerate(chart.curves):
        places = [(1000 * x / xs[-1], 1000 * (1 - y / ys[-1])) for x, y in curve.points]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        inner.append(Markup('<polyline class="line s{}" points="{}"/>').format(index, line))
        for (px, py), (x, y) in zip(places, curve.points, strict=True):
            inner.append(
                Markup('<path class="dot s{}" d="M{:.1f} {:.1f}h0.01"><title>{}: {:g} at {:g}</title></path>').format(
                    index, px, py, curve.label, y, x
                )
            )
    parts.append(
        Markup(
            '<svg x="{}%" y="{}" width="{}%" height="{}" viewBox="0 0 1000 1000" preserveAspectRatio="none" '
            'overflow="visible">{}</svg>'
        ).format(left, top, width, height, Markup("").join(inner))
    )
    parts.append(
        Markup('<text class="tick" x="{}%" y="{}" text-anchor="middle">{}</text>').format(
            left + width / 2, top + height + 36, chart.x
        )
    )
    return _svg(f"{chart.title} ({chart.y}) by {chart.x}", top + height + 42, Markup("").join(parts), "curves")


def in_gib(size: int) -> str:
    """For the template: a size without its unit."""
    return f"{size / GIB:,.2f}"
