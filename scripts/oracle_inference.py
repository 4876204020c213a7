"""Live bytes of real `generate()` runs on the CPU, beside `sizing.memory`'s estimate of the same.

    python scripts/oracle_inference.py              # a table on stdout
    python scripts/oracle_inference.py --csv FILE   # rows for tests/data; rows of the same releases are kept

Small models of each family are built from their configs with random weights. A dispatch mode counts the bytes of
storages that are alive, so the figure is what `torch.cuda.max_memory_allocated()` counts, less weights and cuBLAS's
workspace.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from sizing.memory.inference import estimate_inference
from sizing.memory.setup import Attention, InferenceSetup
from sizing.models.read import facts_from_config

BLOCK = 512
WORKING_TERMS = (
    "activations",
    "logits",
    "KV cache",
    "KV cache, cross-attention",
    "KV cache, copy while it grows",
)
_SMALL = {"hidden_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8}
_GROUPED = _SMALL | {"num_key_value_heads": 2}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": _GROUPED | {"intermediate_size": 1408},
    "mistral": _GROUPED | {"intermediate_size": 1792, "sliding_window": None},
    "qwen2": _GROUPED | {"intermediate_size": 2816},
    "qwen3": _SMALL | {"num_key_value_heads": 4, "head_dim": 128, "intermediate_size": 1536},
    "granite": _GROUPED | {"intermediate_size": 2048},
    "phi3": _SMALL | {"num_key_value_heads": 8, "intermediate_size": 2048},
    "gpt2": {"n_embd": 512, "n_layer": 4, "n_head": 8, "n_positions": 2048},
    "gpt_neox": _SMALL | {"intermediate_size": 2048},
    "opt": _SMALL | {"word_embed_proj_dim": 512, "ffn_dim": 2048},
    "mixtral": _GROUPED | {"intermediate_size": 1024, "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2_moe": _GROUPED
    | {
        "intermediate_size": 1024,
        "moe_intermediate_size": 256,
        "shared_expert_intermediate_size": 512,
        "num_experts": 8,
        "num_experts_per_tok": 2,
    },
    "qwen3_moe": _GROUPED
    | {
        "head_dim": 64,
        "intermediate_size": 1024,
        "moe_intermediate_size": 256,
        "num_experts": 8,
        "num_experts_per_tok": 2,
    },
    "deepseek_v2": _SMALL
    | {
        "num_key_value_heads": 8,
        "intermediate_size": 1408,
        "moe_intermediate_size": 256,
        "n_routed_experts": 8,
        "num_experts_per_tok": 2,
        "n_shared_experts": 1,
        "first_k_dense_replace": 1,
        "kv_lora_rank": 128,
        "q_lora_rank": None,
        "qk_rope_head_dim": 32,
        "qk_nope_head_dim": 64,
        "v_head_dim": 64,
        "topk_group": 1,
        "n_group": 1,
        "topk_method": "greedy",
    },
    # Windows shorter than the prompts, so that what sliding layers hold shows.
    "gemma3_text": _SMALL
    | {
        "num_key_value_heads": 4,
        "head_dim": 128,
        "intermediate_size": 2048,
        "sliding_window": 128,
        "query_pre_attn_scalar": 128,
        "layer_types": ["sliding_attention"] * 3 + ["full_attention"],
    },
    "gpt_oss": _GROUPED
    | {
        "head_dim": 64,
        "intermediate_size": 512,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "sliding_window": 128,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
    "t5": {
        "d_model": 512,
        "num_layers": 4,
        "num_heads": 8,
        "d_kv": 64,
        "d_ff": 1408,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "decoder_start_token_id": 0,
    },
    "bart": {
        "d_model": 512,
        "encoder_layers": 4,
        "decoder_layers": 4,
        "encoder_attention_heads": 8,
        "decoder_attention_heads": 8,
        "encoder_ffn_dim": 2048,
        "decoder_ffn_dim": 2048,
        "max_position_embeddings": 2048,
        "forced_eos_token_id": None,
        "decoder_start_token_id": 0,
    },
}
NO_SDPA = ("gpt_oss",)
SHAPES = ((4, 256, 16), (16, 64, 40), (1, 700, 4))
"""(batch, input tokens, output tokens)"""
COLUMNS = (
    "model_type",
    "attention",
    "batch",
    "input_tokens",
    "output_tokens",
    "live_bytes",
    "torch",
    "transformers",
    "as_of",
)


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of storages that are alive, rounded as the CUDA caching allocator rounds, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self._seen: set[int] = set()

    def ignore(self, tensor: torch.Tensor) -> None:
        """Leave `tensor`'s storage out: it was there before."""
        self._seen.add(id(tensor.untyped_storage()))

    def _gone(self, key: int, size: int) -> None:
        self.live -= size
        self._seen.discard(key)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for item in tree_flatten(out)[0]:
            if isinstance(item, torch.Tensor):
                storage = item.untyped_storage()
                key = id(storage)
                if key not in self._seen and storage.nbytes():
                    size = -(-storage.nbytes() // BLOCK) * BLOCK
                    self._seen.add(key)
                    weakref.finalize(storage, self._gone, key, size)
                    self.live += size
                    self.peak = max(self.peak, self.live)
        return out


def live_peak(model: torch.nn.Module, call: Callable[[], object], *, fused: bool) -> int:
    """Peak bytes of what `call()` allocates beside the model's parameters and buffers.

    `fused`: attention is one operation, as CUDA's kernels are; otherwise composite operations are seen in their parts.
    """
    tracker = LiveBytes()
    for tensor in (*model.parameters(), *model.buffers()):
        tracker.ignore(tensor)
    with torch.inference_mode() if fused else torch.no_grad(), tracker:
        call()
    return tracker.peak


def measure(model_type: str, attention: Attention, batch: int, input_tokens: int, output_tokens: int) -> int:
    """Peak live bytes of one greedy `generate()` in fp32."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    vocab = 8000
    config = AutoConfig.for_model(
        model_type, **CONFIGS[model_type], vocab_size=vocab, pad_token_id=0, bos_token_id=1, eos_token_id=2
    )
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model = kind.from_config(config, attn_implementation=attention, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    ids = torch.randint(3, vocab, (batch, input_tokens))
    mask = torch.ones_like(ids)
    if batch > 1:
        mask[0, : input_tokens // 10] = 0
    return live_peak(
        model,
        lambda: model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=output_tokens,
            min_new_tokens=output_tokens,
            do_sample=False,
        ),
        fused=attention == "sdpa",
    )


def estimate(model_type: str, attention: Attention, batch: int, input_tokens: int, output_tokens: int) -> int:
    """Bytes that sizing says for the same run: cache, activations and logits."""
    model = facts_from_config({"model_type": model_type, "vocab_size": 8000, **CONFIGS[model_type]}, name=model_type)
    setup = InferenceSetup(
        dtype="fp32", batch=batch, input_tokens=input_tokens, output_tokens=output_tokens, attention=attention
    )
    return estimate_inference(model, setup).device.bytes_of(WORKING_TERMS)


def _known(path: Path | None, *releases: str) -> dict[tuple[str, ...], dict[str, str]]:
    """Rows of the file that were made with the same releases of torch and transformers."""
    if path is None or not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if (r["torch"], r["transformers"]) == releases]
    return {(r["model_type"], r["attention"], r["batch"], r["input_tokens"], r["output_tokens"]): r for r in rows}


def main() -> None:
    import transformers

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, help="write the rows here as well")
    given = parser.parse_args()
    transformers.logging.set_verbosity_error()
    rows = []
    known = _known(given.csv, torch.__version__, transformers.__version__)
    for model_type in CONFIGS:
        for attention in ("eager",) if model_type in NO_SDPA else ("sdpa", "eager"):
            for shape in SHAPES:
                row = known.get((model_type, attention, *map(str, shape)))
                live = int(row["live_bytes"]) if row else measure(model_type, attention, *shape)
                said = estimate(model_type, attention, *shape)
                print(
                    f"{model_type:9} {attention:6} {shape!s:16} {live / 2**20:8.1f} MiB, "
                    f"estimate {said / live - 1:+.1%}"
                )
                rows.append(
                    (
                        model_type,
                        attention,
                        *shape,
                        live,
                        torch.__version__,
                        transformers.__version__,
                        row["as_of"] if row else datetime.date.today(),
                    )
                )
    if given.csv:
        aside = given.csv.with_suffix(".part")
        with aside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(rows)
        aside.replace(given.csv)


if __name__ == "__main__":
    sys.exit(main())
