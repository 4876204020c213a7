"""Memory at inference, per device: weights, KV cache, activations, logits, runtime."""

from __future__ import annotations

from sizing.memory.setup import InferenceSetup
from sizing.memory.terms import MemoryEstimate
from sizing.models.facts import ModelFacts


def estimate_inference(model: ModelFacts, setup: InferenceSetup) -> MemoryEstimate:
    """Device terms for each of `setup.tensor_parallel` devices, host terms for the whole machine."""
    raise NotImplementedError


def largest_batch(model: ModelFacts, setup: InferenceSetup, capacity_bytes: int) -> int:
    """The largest batch whose likely driver-level total fits `capacity_bytes`; 0 when not even one sequence does."""
    raise NotImplementedError
