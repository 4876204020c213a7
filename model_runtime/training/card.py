"""The model card: what a person must know before they use the model, from what the run recorded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sizing.units import things

_TEMPLATE = """\
---
base_model: {base}
license: {licence}
tags: [berth, fine-tuned]
---

# {title}

Fine-tuned from `{base}` with Berth on {date}.

| | |
|---|---|
| Architecture | {architecture} |
| Method | {method}, {precision} |
| Licence of the base model | {licence} ({licence_note}) |
| Data | {form}: {parts} |
| Steps | {steps:,} ({epochs}) of {global_batch} examples |
| Learning rate | {rate:g}, {schedule} |
| Longest input, target | {input_tokens:,}, {target_tokens:,} tokens |
| Last training loss | {last_loss} |
| Lowest validation loss | {best} |

{given}

`model/` holds the whole model (safetensors and tokenizer){adapter}. `training.json` has every setting, the versions of
the software and the SHA-256 of the data; `metrics.jsonl` the curve; `manifest.json` the SHA-256 of every file:
`python -m model_runtime.artifacts verify FOLDER` compares them.

What the model answers was not judged by a person when this was written. `berth evaluate` holds it against its base on
the test set; read its answers there before anyone relies on them.
"""


def model_card(record: Mapping[str, Any]) -> str:
    """Markdown with the metadata block that model hubs read. `record` is `training.json`'s content."""
    settings, result, data = record["settings"], record["result"], record["data"]
    base = str(record["base"]["model"])
    name = base.rstrip("/").rsplit("/", 1)[-1]
    return _TEMPLATE.format(
        base=base,
        licence=record["base"]["licence"],
        licence_note=record["base"]["licence_note"],
        title=f"{name}, fine-tuned",
        date=str(record["finished_at"])[:10],
        architecture=record["architecture"],
        method=record["method"],
        precision=record["precision"],
        form=data["form"],
        parts=", ".join(f"{count:,} {part}" for part, count in data["parts"].items()),
        steps=result["steps"],
        epochs=things(float(result["epochs"]), "epoch"),
        global_batch=record["plan"]["global_batch"],
        rate=settings["learning_rate"] or record["rate"],
        schedule=settings["schedule"],
        input_tokens=record["tokens"]["input"],
        target_tokens=record["tokens"]["target"],
        last_loss=_loss(result["last_loss"]),
        best=_loss(result["best_validation_loss"]),
        given=_given(str(record["prompt"])),
        adapter=", `adapter/` the trained adapter alone" if record["method"] != "full" else "",
    )


def _given(prompt: str) -> str:
    if prompt == "{input}":
        return "The model is given the input as it is."
    return (
        f"The model was given `{prompt}`, with the input in the place of `{{input}}`; give it the same when it serves."
    )


def _loss(value: float | None) -> str:
    return "not known" if value is None else f"{value:.4f}"
