"""Further published measurements, typed in from their pages after the estimate stood: held against it.

`data/held_out_points.csv` names for each the setup as its page states it. Two terms were set with some of these rows in
view (Qwen1.5's and Llama 2's): cuBLAS's workspace (0.03 GiB) and the fp32 logits that transformers 4.3x holds into the
second token's pass. No term was set with Qwen2.5's larger models or Qwen3 in view.

`allocated, decoding`: Qwen3's page does not publish the script that measured it. From one prompt to the next its
figures grow by the cache alone (Qwen3-8B: 147,456 bytes a token, to the MiB), which one pass over 30,720 tokens cannot
do: the outputs of an MLP's two matrices alone are 1.4 GiB. They are held against the moment of the last token;
`peak_of_one_pass` has the other reading.
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
from sizing.memory.terms import MemoryEstimate
from sizing.models.catalogue import load_catalogue
from sizing.units import GIB, MIB

DATA = Path(__file__).parent / "data" / "held_out_points.csv"
DECODING = "allocated, decoding"
_UNITS = {"GiB": float(GIB), "MiB": float(MIB), "MB": 1e6}


def held_out_results(*, peak_of_one_pass: bool = False) -> list[PointResult]:
    """A result for every row whose model the catalogue has.

    `peak_of_one_pass`: rows of `allocated, decoding` are held against the peak of the whole request.
    """
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
            decoding = row["metric"] == DECODING
            metric: Any = "allocated" if decoding else row["metric"]
            case = Case(model, setup, metric, unit, devices=int(row["gpus"]))
            estimate = estimate_inference(model, setup)
            likely = predicted(estimate, case)
            if decoding and not peak_of_one_pass:
                likely -= _above_the_last_token(estimate)
            lengths = f"{row['input_tokens']} + {row['output_tokens']}"
            point = Point(
                line, "inference", row["model"], str(model.params), row["dtype"], row["engine"], row["gpus"], "",
                row["batch"], lengths, "", row["measured"], row["unit"], row["source"],
            )  # fmt: skip
            results.append(
                PointResult(
                    point,
                    row["metric"],
                    float(row["measured"]) * unit,
                    likely,
                    estimate.rule_of_thumb.total_bytes,
                    model.params * estimate.rule_of_thumb.bytes_per_param,
                    point.group,
                )
            )
    return results


def _above_the_last_token(estimate: MemoryEstimate) -> float:
    """Bytes by which the peak of the request exceeds its last token's."""
    peaks = [phase["peak_beside_weights_bytes"] for phase in estimate.assumptions["phases"]]
    return float(max(peaks) - peaks[-1])
