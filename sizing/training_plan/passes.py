"""What a sequence makes a GPU compute in training: operations of one forward pass, and how often it is run.

A matrix product is 2 operations an element and token; forward and backward pass of a trained weight are 6 (Kaplan et
al. 2020, arXiv:2001.08361), of a frozen one 4 (no gradient of the weight), recomputing the forward pass adds 2.
Attention is `4 · tokens · context · heads · head_dim` forward and three times that with its backward pass, the
`12 · L · h · s` a token of Korthikanti et al. (arXiv:2205.05198).
"""

from __future__ import annotations

from dataclasses import dataclass

from sizing.models.facts import ModelFacts
from sizing.throughput.work import work_of


@dataclass(frozen=True, slots=True)
class Passes:
    """Forward operations of a model. Tokens are those of one sequence; `layers` of all stacks.

    `quantizable`: elements of the layers' matrices that a quantizer turns."""

    input_flops: float
    """A token of the input (of the one sequence of a decoder-only model), matrix products alone."""
    output_flops: float
    """A token of an encoder-decoder's target."""
    attention: float
    """A pair of input tokens."""
    decoder_attention: float
    """A pair of a target token and what it attends to."""
    layers: int
    quantizable: float
    params: float

    def forward(self, input_tokens: float, output_tokens: float) -> float:
        """Operations of one forward pass over one sequence."""
        total = input_tokens * (self.input_flops + self.attention * input_tokens)
        if output_tokens:
            total += output_tokens * (self.output_flops + self.decoder_attention * (output_tokens + input_tokens))
        return total


def passes_of(model: ModelFacts) -> Passes:
    """The `Passes` of `model`. Weights' dtype does not change the number of operations."""
    work = work_of(model, "bf16")
    both = model.encoder is not None and model.decoder is not None
    per_input = work.prefill.flops
    if model.generates and not both:
        per_input += work.head_flops
    return Passes(
        input_flops=per_input,
        output_flops=work.step.flops if both and work.step is not None else 0.0,
        attention=work.attention_flops,
        decoder_attention=work.step_attention_flops if both else 0.0,
        layers=sum(s.layers for s in model.stacks),
        quantizable=float(
            model.numel(lambda t: t.kind == "linear" and t.part != "head" and t.layered and not t.keep_fp32)
        ),
        params=float(model.params),
    )


def forward_passes(method: str, checkpointing: bool) -> float:
    """Forward passes that forward and backward pass of a step are worth: 3 where weights are trained, 2 where they are
    frozen (adapters and prompts are small beside them), one more with recomputation."""
    return (3.0 if method == "full" else 2.0) + (1.0 if checkpointing else 0.0)
