"""The picture of docs/architecture.md: rooms as lanes, what flows from one to the next. Light and dark."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

WIDTH, LANE, TOP, LEFT, BOX_W, BOX_H = 1096, 118, 14, 142, 142, 54
STEP = 156

LANES: tuple[tuple[str, str], ...] = (
    ("sizing", "pure, no network"),
    ("infra", "stacks, AWS"),
    ("model_runtime", "on the machines"),
    ("berth", "what people meet"),
)
BOXES: dict[str, tuple[str, int, int, str]] = {
    # name: (label, lane, column, where)
    "facts": ("facts of models", 0, 0, "sizing/models"),
    "memory": ("memory", 0, 1, "sizing/memory"),
    "speed": ("speed", 0, 2, "sizing/throughput"),
    "offers": ("offers, prices", 0, 3, "sizing/hardware"),
    "choice": ("choice, cost", 0, 4, "sizing/choose.py"),
    "settings": ("settings", 1, 0, "stacks/, infra/settings.py"),
    "resources": ("resources", 1, 1, "infra/programs"),
    "plan": ("plan, bill, policy", 1, 2, "infra/bill, infra/policy"),
    "up": ("up, train, down", 1, 3, "infra/lifecycle"),
    "aws": ("AWS or sandbox", 1, 4, "boto3, Pulumi, moto"),
    "read": ("metrics, feedback", 1, 5, "infra/operations"),
    "bundle": ("bundle", 2, 2, "model_runtime/handler"),
    "host": ("serving", 2, 3, "handler, generate.py"),
    "train": ("fine-tuning", 2, 4, "model_runtime/training"),
    "watch": ("watchdog", 2, 5, "model_runtime/watch"),
    "verify": ("verify, evaluate", 2, 1, "model_runtime/verify"),
    "commands": ("commands", 3, 0, "berth/commands"),
    "report": ("report", 3, 1, "berth/report"),
    "review": ("review", 3, 2, "berth/review"),
}
CALLS: tuple[tuple[str, str], ...] = (
    ("facts", "memory"), ("memory", "speed"), ("speed", "offers"), ("offers", "choice"), ("choice", "settings"),
    ("settings", "resources"), ("resources", "plan"), ("plan", "up"), ("up", "aws"), ("bundle", "host"),
)  # fmt: skip
"""What is handed on by import and call: never against this direction."""
FILES: tuple[tuple[str, str], ...] = (
    ("verify", "speed"), ("verify", "report"), ("review", "report"), ("aws", "host"), ("aws", "watch"),
    ("train", "aws"), ("aws", "read"), ("read", "review"),
)  # fmt: skip
"""What comes by a file or a bucket."""


@dataclass(frozen=True, slots=True)
class Place:
    x: float
    y: float

    @property
    def middle(self) -> tuple[float, float]:
        return self.x + BOX_W / 2, self.y + BOX_H / 2


def place(name: str) -> Place:
    _, lane, column, _ = BOXES[name]
    return Place(LEFT + column * STEP, TOP + lane * LANE + 32)


STYLE = """
text { font-family: system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; font-size: 13px; fill: #1b1f24; }
.lane { fill: #f4f6f8; } .room { font-weight: 700; } .small { font-size: 10.5px; fill: #58616c; }
.box { fill: #fff; stroke: #7b8794; } .b0 { stroke: #1f6f43; } .b1 { stroke: #0a58b0; } .b2 { stroke: #8a4a00; }
.b3 { stroke: #6b3fa0; } .box { stroke-width: 1.6; } path { fill: none; stroke: #58616c; stroke-width: 1.4; }
.data { stroke-dasharray: 5 4; } .head { fill: #58616c; stroke: none; }
@media (prefers-color-scheme: dark) {
  text { fill: #e7ebf0; } .lane { fill: #1d232a; } .small { fill: #a3adb8; } .box { fill: #14181d; }
  .b0 { stroke: #6fd3a0; } .b1 { stroke: #83bdf7; } .b2 { stroke: #f0b070; } .b3 { stroke: #c5a5f0; }
  path { stroke: #a3adb8; } .head { fill: #a3adb8; }
}
"""


def render() -> str:
    """The picture as SVG text."""
    height = TOP + len(LANES) * LANE + 46
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="Berth: rooms and the way of data">',
        f"<style>{STYLE}</style>",
        '<defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto-start-reverse"><path class="head" d="M0 0L8 4L0 8z"/></marker></defs>',
    ]
    for number, (room, about) in enumerate(LANES):
        y = TOP + number * LANE
        parts.append(f'<rect class="lane" x="6" y="{y}" width="{WIDTH - 12}" height="{LANE - 10}" rx="8"/>')
        parts.append(f'<text class="room" x="18" y="{y + 48}">{room}</text>')
        parts.append(f'<text class="small" x="18" y="{y + 64}">{escape(about)}</text>')
    parts += [_arrow(*pair) for pair in CALLS]
    parts += [_arrow(*pair, data=True) for pair in FILES]
    for name, (label, lane, _, where) in BOXES.items():
        at = place(name)
        parts.append(f'<rect class="box b{lane}" x="{at.x}" y="{at.y}" width="{BOX_W}" height="{BOX_H}" rx="6"/>')
        x, y = at.middle
        parts.append(f'<text x="{x}" y="{y - 4}" text-anchor="middle">{escape(label)}</text>')
        parts.append(f'<text class="small" x="{x}" y="{y + 13}" text-anchor="middle">{escape(where)}</text>')
    foot = TOP + len(LANES) * LANE + 18
    for x, kind, said in (
        (18, "", "a value, handed on by import and call"),
        (300, "data", "a file or a bucket: nothing flows back by import"),
    ):
        parts.append(f'<path class="{kind}" marker-end="url(#a)" d="M{x} {foot - 4}h40"/>')
        parts.append(f'<text class="small" x="{x + 48}" y="{foot}">{said}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _arrow(start: str, end: str, *, data: bool = False) -> str:
    """Between neighbours of a lane straight, else from the middle of one to the middle of the other."""
    a, b = place(start), place(end)
    kind = ' class="data"' if data else ""
    if BOXES[start][1] == BOXES[end][1]:
        x1, x2 = (a.x + BOX_W, b.x) if a.x < b.x else (a.x, b.x + BOX_W)
        y = a.y + BOX_H / 2
        return f'<path{kind} marker-end="url(#a)" d="M{x1} {y}L{x2} {y}"/>'
    y1, y2 = (a.y + BOX_H, b.y) if a.y < b.y else (a.y, b.y + BOX_H)
    aside = 18 if data else 0
    x1, x2 = a.middle[0] + aside, b.middle[0] + aside
    half = (y1 + y2) / 2
    return f'<path{kind} marker-end="url(#a)" d="M{x1} {y1}C{x1} {half} {x2} {half} {x2} {y2}"/>'
