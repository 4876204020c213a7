"""How long the examples are: what memory must hold (the longest) and what time is spent on (the average, padded)."""

from __future__ import annotations

from dataclasses import dataclass, field

from sizing.errors import UserError
from sizing.models.facts import ModelFacts
from sizing.workload import default_tokens

SAMPLE = 2000
"""Examples of a file whose lengths are read; they are spread over the whole file."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of an example. `input_tokens`, `output_tokens`: of the longest, as cut; 0 output for a decoder-only model,
    whose prompt and answer are one sequence. `inputs`, `outputs`: a sorted sample of each, empty where every example
    counts as the longest."""

    input_tokens: int
    output_tokens: int = 0
    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def padded(self, micro_batch: int) -> tuple[float, float]:
        """Expected length of the longest of `micro_batch` examples drawn at random, to which the others are padded."""
        return (
            _expected_longest(self.inputs, micro_batch) or float(self.input_tokens),
            _expected_longest(self.outputs, micro_batch) or float(self.output_tokens),
        )


def _expected_longest(values: tuple[int, ...], draws: int) -> float:
    """E[max] of `draws` from a sorted sample with replacement: Σ x_i · ((i/n)^draws − ((i−1)/n)^draws)."""
    n = len(values)
    total, before = 0.0, 0.0
    for i, value in enumerate(values, start=1):
        reached = (i / n) ** draws
        total += value * (reached - before)
        before = reached
    return total


def lengths_of(
    model: ModelFacts,
    sample: tuple[tuple[int, int], ...],
    input_tokens: int | None,
    output_tokens: int | None,
    context_window: int | None,
    task: str = "",
) -> Lengths:
    """The `Lengths` for `model`: of a sample of (input, output) tokens, or of the counts given, else those usual for
    `task` (`sizing.workload.TASK_TOKENS`).

    Without `context_window` a sample is cut at the model's own; a longer one is kept and said aloud. Raises `UserError`
    for counts that no model has, and beyond learned positions, which end with the window.
    """
    for name, value, least in (
        ("input-tokens", input_tokens, 1),
        ("output-tokens", output_tokens, 0),
        ("context-window", context_window, 1),
    ):
        if value is not None and not least <= value <= 10_000_000:
            raise UserError(f"{name} is {value}; it must be a whole number from {least} to 10,000,000")
    notes: list[str] = []
    both = model.encoder is not None and model.decoder is not None
    window = context_window or model.context_window
    if context_window is not None:
        notes.append(_longer(model, context_window))
    if sample and input_tokens is None and output_tokens is None:
        found = _of_sample(sample, both, window, notes)
    else:
        found = _of_counts(model, input_tokens, output_tokens, context_window, both, notes, task)
    longest = max(found.input_tokens, found.output_tokens)
    own = model.context_window
    if own is not None and longest > own:
        if model.main.position in ("learned", "sinusoidal"):
            raise UserError(
                f"{model.name} has positions for {own:,} tokens and cannot be trained on {longest:,}; shorten the "
                "examples or pick a model with a longer context (`berth models --min-context`)"
            )
        if context_window is None:
            notes.append(_longer(model, longest))
    return Lengths(
        found.input_tokens,
        found.output_tokens,
        found.inputs,
        found.outputs,
        tuple(n for n in (*notes, *found.notes) if n),
    )


def _longer(model: ModelFacts, tokens: int) -> str:
    own = model.context_window
    if own is None or tokens <= own:
        return ""
    how = {
        "rotary": "its rotary positions need scaling (rope_scaling)",
        "relative": "its relative positions reach that far",
        "alibi": "its ALiBi positions reach that far",
    }.get(model.main.position, "its positions must reach that far")
    return f"{tokens:,} tokens are more than the {own:,} of pretraining: {how}, and quality must be tested"


def _of_counts(
    model: ModelFacts,
    input_tokens: int | None,
    output_tokens: int | None,
    context_window: int | None,
    both: bool,
    notes: list[str],
    task: str,
) -> Lengths:
    given_in, given_out = default_tokens(model, task, input_tokens, output_tokens)
    if not model.generates:
        given_out = 0
    if context_window is not None and input_tokens is None:
        # A window asked for by itself is one that the examples fill.
        given_in = context_window if both or not model.generates else max(1, context_window - given_out)
    first, second = (given_in, given_out) if both else (given_in + given_out, 0)
    if context_window is not None and max(first, second) > context_window:
        notes.append(f"examples are cut at {context_window:,} tokens (--context-window)")
        first, second = min(first, context_window), min(second, context_window)
    assumed = "" if input_tokens is not None or context_window is not None else " (an assumption: --input-tokens)"
    said = f"{first:,} and {second:,}" if both else f"{first:,}"
    notes.append(f"every example is taken as {said} tokens long{assumed}")
    return Lengths(first, max(1, second) if both else 0)


def _of_sample(sample: tuple[tuple[int, int], ...], both: bool, window: int | None, notes: list[str]) -> Lengths:
    pairs = sample if both else tuple((a + b, 0) for a, b in sample)
    limit = window or max(max(a, b) for a, b in pairs)
    cut = sum(max(a, b) > limit for a, b in pairs)
    if cut:
        notes.append(
            f"{cut / len(pairs):.1%} of the examples exceed {limit:,} tokens and are cut there (--context-window)"
        )
    inputs = tuple(sorted(max(1, min(a, limit)) for a, _ in pairs))
    outputs = tuple(sorted(max(1, min(b, limit)) for _, b in pairs)) if both else ()
    mean = sum(inputs) / len(inputs)
    said = f"{mean:,.0f} tokens long on average, {inputs[-1]:,} at most"
    if outputs:
        said += f"; answers {sum(outputs) / len(outputs):,.0f}, {outputs[-1]:,} at most"
    notes.append(f"examples are {said}")
    return Lengths(inputs[-1], outputs[-1] if outputs else 0, inputs, outputs)
