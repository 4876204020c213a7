"""A measurement and an evaluation as Berth's commands write them; the numbers are made up for these tests."""

from __future__ import annotations

from typing import Any

MODEL = "google/flan-t5-xl"


def spread(value: float) -> dict[str, Any]:
    return {
        "median": value,
        "min": value * 0.9,
        "max": value * 1.1,
        "relative": 0.2,
        "runs": [value * 0.9, value * 1.1],
    }


def measurement(**changes: Any) -> dict[str, Any]:
    """A Measurement on one L4, in the form that `berth verify` writes; the numbers are made up for these tests."""
    times = {"p50": 1.0, "p90": 1.2, "p99": 1.4, "min": 0.9, "max": 1.5, "mean": 1.05, "count": 8}
    phase = {
        "requests": 8, "failed": {}, "seconds": 4.0, "requests_per_s": 2.0, "output_tokens_per_s": 256.0,
        "latency_s": times, "first_token_s": times, "input_tokens": times, "output_tokens": times,
    }  # fmt: skip
    sweep = [
        {
            "concurrency": n, "output_tokens_per_s": spread(60.0 * n), "requests_per_s": spread(0.5 * n), "failed": 0,
            "runs": [phase], **{f"{what}_s_{p}": spread(x + n / 10) for what in ("latency", "first_token")
                                for p, x in (("p50", 2.4), ("p90", 2.6), ("p99", 2.9))},
        }
        for n in (1, 2, 4)
    ]  # fmt: skip
    term = {
        "name": "weights", "measured_bytes": 5_700_000_000, "estimated_bytes": 5_699_514_368,
        "estimated_low_bytes": None, "estimated_high_bytes": None, "difference": 0.0001,
    }  # fmt: skip
    document = {
        "format": "berth-measurement/1", "measured_at": "2026-11-24T07:00:00+00:00",
        "command": "berth verify /models/flan --report m.json", "target": "/models/flan",
        "machine": {
            "cpu": "AMD EPYC", "cores": 8, "threads": 8, "memory_bytes": 34_000_000_000,
            "gpus": [{"name": "NVIDIA L4", "memory_bytes": 24_000_000_000, "compute_capability": 8.9}],
            "system": "Linux 6.1", "python": "3.11.7", "versions": {"torch": "2.9.0"},
        },
        "model": {
            "name": MODEL, "architecture": "encoder-decoder", "dtype": "bf16", "device": "NVIDIA L4",
            "context_window": 512, "weights_bytes": 5_699_514_368,
        },
        "settings": None, "start_up": None, "largest_batch": None,
        "memory": {"batch": 2, "metric": "torch.cuda.max_memory_allocated", "terms": [term], "host": {
            "measured_load_peak_bytes": 20_000_000_000}},
        "workload": {
            "prompts": 8, "output_tokens": 128, "parameters": {}, "latency_wish_s": 5.0, "source": "prompts.jsonl"},
        "sweep": sweep, "best_concurrency": 2, "open_loop": {**phase, "rate_per_s": 1.4},
        "memory_splits": 0.0, "verdicts": ["90 % of answers within 2.8 s, as wished"],
    }  # fmt: skip
    return document | changes


def evaluation(metric: str = "rougeL", **changes: Any) -> dict[str, Any]:
    """An evaluation of a fine-tuned folder beside its base."""
    interval = {"value": 0.35, "low": 0.33, "high": 0.37}
    signs = {
        "repetitive_percent": 1.0, "cut_percent": 2.0, "median_length_percent": 98.0, "novel_words_percent": 4.0,
        "novel_numbers_percent": 0.5,
    }  # fmt: skip
    document = {
        "format": "berth-evaluation/1", "model": "runs/tickets", "base": MODEL, "form": "seq2seq", "part": "test",
        "examples": 200, "data_sha256": {}, "prompt": "{input}",
        "sampling": {"temperature": 0.0, "top_p": 1.0, "max_new_tokens": 128, "seed": 0},
        "bootstrap": {"draws": 1000, "level_percent": 95.0, "seed": 0},
        "metrics": [{
            "metric": metric, "higher_is_better": True, "model": interval, "base": {**interval, "value": 0.2},
            "difference": {"value": 0.15, "low": 0.12, "high": 0.18}, "verdict": "better",
        }],
        "signs": {"model": signs, "base": signs},
    }  # fmt: skip
    return document | changes
