"""Measures what int8 and NF4 do to real layers: bytes of the weights as they stand, per architecture, on a CPU.

The common claim is -75 % against fp32 and -50 % against fp16 for int8. Each model is built with its published shape and
random weights (bytes do not depend on their values), saved, and loaded by `model_runtime.load` in each dtype; what
parameters, buffers and quantization statistics hold is counted and put beside sizing's estimate.

    python scripts/measure_quantization.py model_runtime/verify/quantization_measured.csv
"""

from __future__ import annotations

import csv
import gc
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

COLUMNS = (
    "model", "architecture", "params", "dtype", "measured_bytes", "against_fp32", "against_fp16",
    "linear_layers_against_fp16", "estimated_bytes", "versions", "as_of",
)  # fmt: skip
WAYS = (("fp32", "fp32", ""), ("fp16", "fp16", ""), ("int8", "fp16", "int8"), ("nf4", "fp16", "nf4"))


def shapes() -> dict[str, Any]:
    """Model classes by the name of the published shape."""
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        GPT2Config,
        GPT2LMHeadModel,
        Qwen2Config,
        Qwen2ForCausalLM,
        T5Config,
        T5ForConditionalGeneration,
    )

    return {
        "flan-t5-base shape": lambda: T5ForConditionalGeneration(
            T5Config(
                d_model=768, d_kv=64, d_ff=2048, num_layers=12, num_heads=12, vocab_size=32128,
                feed_forward_proj="gated-gelu", decoder_start_token_id=0, pad_token_id=0,
            )
        ),
        "qwen2.5-0.5b shape": lambda: Qwen2ForCausalLM(
            Qwen2Config(
                hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
                num_key_value_heads=2, vocab_size=151936, tie_word_embeddings=True, max_position_embeddings=32768,
            )
        ),
        "gpt2 shape": lambda: GPT2LMHeadModel(GPT2Config()),
        "bert-base-uncased shape": lambda: BertForSequenceClassification(BertConfig(num_labels=2)),
    }  # fmt: skip


def linear_bytes(model: Any) -> int:
    """Bytes of the matrices inside the layers, which are what a quantizer turns, with their statistics."""
    from model_runtime.load import weights_bytes

    def counts(module: Any) -> bool:
        return type(module).__name__ in ("Linear", "Linear8bitLt", "Linear4bit", "Conv1D")

    total = 0
    for name, module in model.named_modules():
        if counts(module) and not name.startswith(("lm_head", "classifier")):
            bias = module.bias.numel() * module.bias.element_size() if module.bias is not None else 0
            total += weights_bytes(module) - bias
    return total


def rows() -> list[dict[str, Any]]:
    from transformers import AutoTokenizer

    from model_runtime.load import LoadOptions, load
    from model_runtime.tiny import build
    from sizing.memory.inference import estimate_inference
    from sizing.memory.setup import InferenceSetup
    from sizing.models.resolve import resolve_model

    versions = "; ".join(f"{p} {version(p)}" for p in ("torch", "transformers", "bitsandbytes"))
    found = []
    for name, make in shapes().items():
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            tokenizer = AutoTokenizer.from_pretrained(build("llama", folder / "tiny"))
            make().half().save_pretrained(folder / "model")
            tokenizer.save_pretrained(folder / "model")
            facts = resolve_model(str(folder / "model"))
            whole: dict[str, int] = {}
            linear: dict[str, int] = {}
            for label, dtype, quantize in WAYS:
                loaded = load(str(folder / "model"), LoadOptions(dtype=dtype, quantize=quantize, device="cpu"))
                whole[label], linear[label] = loaded.weights_bytes, linear_bytes(loaded.model)
                terms = estimate_inference(facts, InferenceSetup(dtype=label, output_tokens=1)).device.terms
                found.append(
                    {
                        "model": name,
                        "architecture": loaded.architecture,
                        "params": facts.params,
                        "dtype": label,
                        "measured_bytes": whole[label],
                        "against_fp32": f"{whole[label] / whole['fp32'] - 1:+.4f}",
                        "against_fp16": f"{whole[label] / whole['fp16'] - 1:+.4f}" if "fp16" in whole else "",
                        "linear_layers_against_fp16": f"{linear[label] / linear['fp16'] - 1:+.4f}"
                        if "fp16" in linear
                        else "",
                        "estimated_bytes": sum(
                            t.bytes for t in terms if t.name.startswith(("weights", "quantization", "buffers"))
                        ),
                        "versions": versions,
                        "as_of": datetime.now(UTC).date().isoformat(),
                    }
                )
                print({k: v for k, v in found[-1].items() if k != "versions"}, flush=True)
                del loaded
                gc.collect()
    return found


def main() -> None:
    target = Path(sys.argv[1])
    measured = rows()
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_suffix(".tmp")
    with draft.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(measured)
    draft.replace(target)


if __name__ == "__main__":
    main()
