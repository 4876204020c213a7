"""The model and what its licence allows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from berth.report.blocks import Fact, Facts, Section
from berth.report.documents import Document
from sizing.units import count


def of(documents: Mapping[str, Document]) -> tuple[dict[str, Any], str] | None:
    """The model as a sizing described it, and the kind of document that did."""
    for kind in ("size", "training"):
        if kind in documents:
            model: dict[str, Any] = documents[kind].content["model"]
            return model, kind
    return None


def section(documents: Mapping[str, Document]) -> Section | None:
    found = of(documents)
    if found is None:
        return None
    model, kind = found
    context = model["context_window"]
    return Section(
        "model",
        "Model and licence",
        (
            Facts(
                (
                    Fact("Model", model["name"], kind),
                    Fact("Parameters", count(model["params"]), kind, f"{model['params']:,}"),
                    Fact("Architecture", model["architecture"], kind),
                    Fact("Context window", "not known" if context is None else f"{context:,} tokens", kind),
                    Fact("Licence", model["licence"] or "not known", kind, model["licence_verdict"] or "not known"),
                )
            ),
        ),
    )
