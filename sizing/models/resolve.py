"""From what a person types to `ModelFacts`: a catalogue name."""

from __future__ import annotations

from sizing.models.catalogue import load_catalogue
from sizing.models.facts import ModelFacts


def resolve_model(text: str) -> ModelFacts:
    """The model called `text` in the catalogue. Raises `UserError` with the nearest names for an unknown one."""
    return load_catalogue().named(text)
