"""The review page as one HTML file: style, script and data inline, nothing fetched from anywhere else."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

from markupsafe import Markup

from berth.report.html import asset, environment, hash_of
from berth.review import LABELS
from berth.review.judgements import Judgement
from berth.review.predictions import Prediction
from berth.review.suspicion import suspicions

CHUNK = 100
"""Rows of one inline block: a block is read when one of its rows is first shown."""
SNIPPET = 90
SEED = 20_230_401
"""Of the random order, so that all reviewers have the same one and may stop at the same place."""


def fingerprint(rows: Sequence[Prediction]) -> str:
    """Tells one predictions file from another, whatever its name."""
    return hashlib.sha256("".join(row.key for row in rows).encode()).hexdigest()[:16]


def render(
    rows: Sequence[Prediction],
    *,
    title: str,
    mode: Literal["file", "server"] = "file",
    reviewer: str = "",
    judgements: Sequence[Judgement] = (),
) -> str:
    """The page. In `server` mode it asks its own server for judgements and sends each; in `file` mode it keeps them in
    the browser and offers them as a download. Texts stand in it as JSON, and the script shows them as text only."""
    script, style = asset("berth.review", "review.js"), asset("berth.review", "review.css")
    found = suspicions(rows)
    shuffled = list(range(len(rows)))
    random.Random(SEED).shuffle(shuffled)  # noqa: S311 (a sample, no secret)
    config = {
        "mode": mode,
        "title": title,
        "reviewer": reviewer,
        "labels": LABELS,
        "chunk": CHUNK,
        "fingerprint": fingerprint(rows),
        "judgements": [asdict(judgement) for judgement in judgements],
        "orders": {
            "suspicious": sorted(range(len(rows)), key=lambda i: (-found[i].score, i)),
            "random": shuffled,
        },
    }
    index = [
        [row.key, row.id, s.score, list(s.reasons), " ".join(row.answer[: 2 * SNIPPET].split())[:SNIPPET]]
        for row, s in zip(rows, found, strict=True)
    ]
    chunks = [
        _data([[r.input, r.reference, r.base, r.tuned, r.metrics, r.feedback] for r in rows[start : start + CHUNK]])
        for start in range(0, len(rows), CHUNK)
    ]
    page: str = (
        environment("berth.review")
        .get_template("review.html.j2")
        .render(
            title=title,
            style=Markup(style),  # noqa: S704 (Berth's own file, not input)
            style_hash=hash_of(style),
            script=Markup(script),  # noqa: S704
            script_hash=hash_of(script),
            connect="'self'" if mode == "server" else "'none'",
            labels=LABELS,
            config=_data(config),
            index=_data(index),
            chunks=chunks,
        )
    )
    return page


def _data(value: Any) -> Markup:
    """JSON that cannot end the script element that it stands in: `<`, `>` and `&` are written as escapes, and so is all
    that is not ASCII."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))  # noqa: S704
