"""Further published measurements, typed in from their pages after the estimate stood: held against it.

`data/held_out_points.csv` names for each the setup as its page states it. Two terms were set with some of these rows in
view: cuBLAS's workspace (0.03 GiB) and the fp32 logits that transformers 4.3x holds into the second token's pass.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from sizing.accuracy.inference import predicted
from sizing.accuracy.inference_cases import Case
from sizing.accuracy.points import Point, PointResult
from sizing.memory.inference import estimate_inference
from sizing.memory.setup import InferenceSetup
from sizing.models.catalogue import load_catalogue
from sizing.units import GIB

DATA = Path(__file__).parent / "data" / "held_out_points.csv"
_UNITS = {"GiB": float(GIB), "MB": 1e6}


def held_out_results() -> list[PointResult]:
    """A result for every row whose model the catalogue has."""
    catalogue = load_catalogue()
    results = []
    with DATA.open(newline="", encoding="utf-8") as file:
        for line, row in enumerate(csv.DictReader(file), start=2):
            model = catalogue.get(row["model"])
            if model is None:
                continue
            asked: dict[str, Any] = {n: int(row[n]) for n in ("batch", "input_tokens", "output_tokens")}
            setup = InferenceSetup(
                dtype=row["dtype"],
                engine=row["engine"],
                attention=row["attention"],  # type: ignore[arg-type]
                **asked,
            )
            unit = _UNITS[row["unit"]]
            case = Case(model, setup, row["metric"], unit)  # type: ignore[arg-type]
            estimate = estimate_inference(model, setup)
            lengths = f"{row['input_tokens']} + {row['output_tokens']}"
            point = Point(
                line, "inference", row["model"], str(model.params), row["dtype"], row["engine"], "1", "", row["batch"],
                lengths, "", row["measured"], row["unit"], row["source"],
            )  # fmt: skip
            results.append(
                PointResult(
                    point,
                    row["metric"],
                    float(row["measured"]) * unit,
                    predicted(estimate, case),
                    estimate.rule_of_thumb.total_bytes,
                    model.params * estimate.rule_of_thumb.bytes_per_param,
                    point.group,
                )
            )
    return results
