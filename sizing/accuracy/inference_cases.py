"""From a row about inference to the situation it was measured in, or the reason why Berth makes no estimate for it.

The mapping reads the row's own text; what a source's script measures is said once per source. Nothing is tuned per row.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from sizing.accuracy.points import UNIT_BYTES, Point, PointMetric, number
from sizing.memory.setup import InferenceSetup
from sizing.models.catalogue import load_catalogue
from sizing.models.facts import ModelFacts, Tensor
from sizing.units import GIB, MIB

MODELS: dict[str, str] = {
    "phi-1.5": "microsoft/phi-1_5",
    "CodeLlama": "codellama/CodeLlama-34b-hf",
    "Falcon": "tiiuae/falcon-40b",
    "Falcon 7B": "tiiuae/falcon-7b",
    "Llama-2-70b-chat": "meta-llama/Llama-2-70b-chat-hf",
    "Vicuna 7B": "lmsys/vicuna-7b-v1.5",
    "Mistral 7B": "mistralai/Mistral-7B-v0.1",
    "TinyLlama 1B": "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
    "DeepSeek 33B": "deepseek-ai/deepseek-coder-33b-instruct",
    "Mixtral 46.7B": "mistralai/Mixtral-8x7B-v0.1",
    "Qwen-1.8B-Chat": "Qwen/Qwen-1_8B-Chat",
    "Qwen-7B-Chat": "Qwen/Qwen-7B-Chat",
    "Qwen-14B-Chat": "Qwen/Qwen-14B-Chat",
    "Qwen-72B-Chat": "Qwen/Qwen-72B-Chat",
    "GPT-J-6B": "EleutherAI/gpt-j-6b",
    "GPT-NeoX-20B": "EleutherAI/gpt-neox-20b",
    "T0pp": "bigscience/T0pp",
    "OPT-30B": "facebook/opt-30b",
    "Llama-2-13b-hf": "meta-llama/Llama-2-13b-hf",
    "Llama-2-7B": "meta-llama/Llama-2-7b-hf",
    "llama-2-7b-instruction-generator (merged Llama-2-7B)": "meta-llama/Llama-2-7b-hf",
    "Llama-3.1-8B-Instruct": "meta-llama/Llama-3.1-8B-Instruct",
    "Meta-Llama-3-8B": "meta-llama/Meta-Llama-3-8B",
    "t5-3b": "google-t5/t5-3b",
    "T5-3B": "google-t5/t5-3b",
    "t5-11b": "google-t5/t5-11b",
    "flan-t5-xl": "google/flan-t5-xl",
}
"""The name in a row -> the catalogue's."""

SPEED_UNITS = ("ms/token", "tokens/s", "s/token", "s/iter", "ms", "s", "hours", "minutes")
"""Units of rows about time; on one known device they still say that the run fitted."""

GPU_BYTES: dict[str, float] = {
    # What nvidia-smi shows as total.
    "A100-SXM4-40GB": 40_960 * MIB,
    "A100-40GB": 40_960 * MIB,
    "A100-SXM4-80GB": 81_920 * MIB,
    "A100-80GB": 81_920 * MIB,
    "RTX 4090": 24_564 * MIB,
    "T4": 15_360 * MIB,
    "T4-15GB": 15_360 * MIB,
    "A10G-24GB": 23_028 * MIB,
}

_DTYPES = (
    (r"NF4-DQ", "nf4-dq"),
    (r"NF4|bnb 4-bit", "nf4"),
    (r"AWQ", "awq-int4"),
    (r"GPTQ[- ]?4|Int4 GPTQ|GPTQ-4bit", "gptq-int4"),
    (r"Int8 GPTQ", "gptq-int8"),
    (r"int8 \(bnb\)|LLM\.int8|^int8$", "int8"),
    (r"bf16", "bf16"),
    (r"fp16", "fp16"),
    (r"fp32", "fp32"),
)


@dataclass(frozen=True, slots=True)
class Case:
    """What to estimate for a point: the model, the setup, which figure, in which unit (bytes)."""

    model: ModelFacts
    setup: InferenceSetup
    metric: PointMetric
    unit_bytes: float
    devices: int = 1
    """The measured value is the sum of the peaks of this many devices, which share the layers one after another."""
    capacity_bytes: float = 0.0
    note: str = ""


Reader = Callable[[Point], "Case | str"]


def case_of(point: Point) -> Case | str:
    """The situation of `point`, or why it is out of scope."""
    if point.task != "inference":
        return "not an inference row"
    if point.unit in SPEED_UNITS and not point.method.startswith(_FITTING_METHODS):
        return "a speed, which `sizing.throughput` answers"
    for prefix, reader in _READERS:
        if point.source.startswith(prefix):
            return reader(point)
    return _by_its_words(point)


def model_of(point: Point) -> ModelFacts | None:
    """The catalogue's model that the row names: as `MODELS` says, else the shortest name that begins like the row's
    and has the parameters that the row gives, within a tenth."""
    catalogue = load_catalogue()
    named = catalogue.find(MODELS.get(point.model, point.model))
    if named is not None:
        return named
    wanted = _letters(point.model)
    size = _count(point.params) or _count(point.model)
    close = [
        name
        for name, entry in catalogue.entries.items()
        if entry.deployable
        and wanted
        and _letters(name.split("/")[-1]).startswith(wanted)
        and (size is None or abs(entry.params / size - 1) <= 0.1)
    ]
    return catalogue[min(close, key=len)] if close else None


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9.]", "", name.lower()).removesuffix("hf")


def _count(text: str) -> float | None:
    """`7B`, `1.3 B`, `360M`, `3212749824` as a number; None where the text names no count."""
    found = re.search(r"(\d+(?:\.\d+)?)\s*([BM])\b", text)
    if found:
        return float(found.group(1)) * (1e9 if found.group(2) == "B" else 1e6)
    return float(text) if text.isdigit() else None


def dtype_of(point: Point) -> str | None:
    """Berth's name for the row's precision."""
    for pattern, name in _DTYPES:
        if re.search(pattern, point.precision):
            return name
    return None


def without_fp32_exceptions(model: ModelFacts) -> ModelFacts:
    """The model as loaded with `_keep_in_fp32_modules = None`."""
    return replace(model, tensors=tuple(replace(t, keep_fp32=False) for t in model.tensors))


def first_stage(model: ModelFacts, stages: int) -> ModelFacts:
    """The fullest of `stages` devices that share the layers, with embeddings and output projection."""
    main = model.main
    layers = -(-main.layers // stages)

    def scaled(tensor: Tensor) -> Tensor:
        return replace(tensor, count=round(tensor.count * layers / main.layers)) if tensor.layered else tensor

    tensors = tuple(scaled(t) for t in model.tensors)
    attention = tuple(replace(a, layers=-(-a.layers // stages)) for a in main.attention)
    return replace(model, tensors=tensors, decoder=replace(main, layers=layers, attention=attention))


def _needs(point: Point) -> tuple[ModelFacts, str] | str:
    model, dtype = model_of(point), dtype_of(point)
    if model is None:
        return f"the catalogue has no model '{point.model}'"
    if dtype is None:
        return f"precision '{point.precision}' is not one that Berth estimates"
    return model, dtype


def _litgpt(point: Point) -> Case | str:
    """`litgpt generate`: max_memory_allocated / 1e9, the default prompt of about 10 tokens, 50 new ones unless said."""
    found = _needs(point)
    if isinstance(found, str):
        return found
    model, dtype = found
    new = re.search(r"(\d+) new tokens", point.seq_len)
    gpus = point.gpu_count
    tensor_parallel = gpus if "tensor parallel" in point.method else 1
    if "sequential" in point.method:
        model = first_stage(model, gpus)
    setup = InferenceSetup(
        dtype=dtype,
        input_tokens=10,
        output_tokens=int(new.group(1)) if new else 50,
        tensor_parallel=tensor_parallel,
        engine="litgpt",
    )
    return Case(model, setup, "allocated", 1e9, capacity_bytes=GPU_BYTES.get(point.gpu_type, 0.0))


def _autoawq(point: Point) -> Case | str:
    """AutoAWQ's benchmark: max_memory_allocated / 1024^3, fused layers, cache for prefill + decode."""
    found = _needs(point)
    if isinstance(found, str):
        return found
    model, dtype = found
    lengths = re.match(r"prefill (\d+) \+ decode (\d+)", point.seq_len)
    if lengths is None:
        return "no lengths given"
    setup = InferenceSetup(
        dtype=dtype,
        batch=int(point.batch),
        input_tokens=int(lengths.group(1)),
        output_tokens=int(lengths.group(2)),
        engine="autoawq",
        attention="eager",
    )
    return Case(
        model,
        setup,
        "allocated",
        GIB,
        devices=point.gpu_count,
        capacity_bytes=point.gpu_count * GPU_BYTES.get(point.gpu_type, 0.0),
    )


def _qwen(point: Point) -> Case | str:
    """Qwen's README: transformers 4.31, one token of context, GiB.

    The README does not say which counter it read. Every row exceeds what the tensors need by 0.06 to 0.68 GiB whatever
    the length, and no row by a CUDA context: what was reserved.
    """
    found = _needs(point)
    if isinstance(found, str):
        return found
    model, dtype = found
    tokens = re.search(r"generate (\d+)", point.seq_len)
    if tokens is None:
        return "no length given"
    setup = InferenceSetup(
        dtype=dtype,
        batch=int(point.batch),
        input_tokens=1,
        output_tokens=int(tokens.group(1)),
        engine="transformers-4.3x",
        attention="flash",
        kv_dtype="int8" if "int8 KV" in point.method else "",
    )
    return Case(
        model,
        setup,
        "reserved",
        GIB,
        devices=point.gpu_count,
        capacity_bytes=GPU_BYTES.get(point.gpu_type, 0.0),
    )


def _optimum_gptq(point: Point) -> Case | str:
    """optimum's tests/benchmark: peak allocated + (NVML - reserved), 1e6 bytes, prompt 512 and 512 new tokens.

    The blog's table calls these rows prefill; in the benchmark's own README the same figures stand under "generation"
    (prompt 512, 512 new tokens) and prefill has others (27,999.54 MB at batch 1).
    """
    found = _needs(point)
    if isinstance(found, str):
        return found
    model, dtype = found
    setup = InferenceSetup(
        dtype=dtype,
        batch=int(point.batch),
        input_tokens=512,
        output_tokens=512,
        engine="transformers-4.3x",
        attention="eager",
    )
    return Case(
        model, setup, "allocated + context", 1e6, note="generation of 512 tokens, as the benchmark's README says"
    )


def _accelerate(point: Point) -> Case | str:
    """accelerate's big_model_inference: memory_allocated after loading, in MiB / 1000."""
    if (
        "offload" in point.method
        or point.model == "OPT-30B"
        or (point.model, point.precision) == ("GPT-NeoX-20B", "fp32")
    ):
        return "part of the model was offloaded: the figure is the device map's limit, not the model's need"
    if "weights" not in point.setting:
        return "host memory of offloaded weights, set by the device map"
    found = _needs(point)
    if isinstance(found, str):
        return found
    return Case(found[0], InferenceSetup(dtype=found[1]), "weights", 1000 * MIB)


def _philschmid(point: Point) -> Case | str:
    if "need at least" in point.setting:
        return "a recommendation in the text, not a measurement"
    found = _needs(point)
    if isinstance(found, str):
        return found
    if "memory_allocated" in point.setting:
        setup = InferenceSetup(dtype=found[1], input_tokens=128, output_tokens=1)
        return Case(found[0], setup, "weights", GIB, note="memory_allocated after loading, not a peak")
    return Case(found[0], InferenceSetup(dtype=found[1]), "weights", UNIT_BYTES.get(point.unit, GIB))


def _vllm(point: Point) -> Case | str:
    if point.setting != "weights":
        return "vLLM's own pools and graphs; Berth's handler does not run vLLM"
    found = _needs(point)
    if isinstance(found, str):
        return found
    setup = InferenceSetup(dtype=found[1], tensor_parallel=point.gpu_count, engine="vllm")
    return Case(found[0], setup, "weights", GIB)


def _bitsandbytes(point: Point) -> Case | str:
    found = _needs(point)
    if isinstance(found, str):
        return found
    model, dtype = found
    if "also int8" in point.precision or "None" in point.precision:
        model = without_fp32_exceptions(model)
    setup = InferenceSetup(dtype=dtype, input_tokens=1, output_tokens=1)
    capacity = GPU_BYTES.get(point.gpu_type, 0.0)
    return Case(model, setup, "footprint" if point.unit == "bytes" else "driver", 1.0, capacity_bytes=capacity)


def _tgi(_: Point) -> Case | str:
    return "text-generation-inference's own kernels and warm-up pools; Berth's handler does not run it"


def _by_its_words(point: Point) -> Case | str:
    """A source without a reader of its own: metric, lengths and engine as the row's text says them."""
    found = _needs(point)
    if isinstance(found, str):
        return found
    unit = UNIT_BYTES.get(point.unit)
    if unit is None and point.unit != "fit":
        return f"the unit '{point.unit}' may be GB or GiB, and no reader knows its script"
    words = f"{point.setting} {point.method}".lower()
    lengths = [int(n) for n in re.findall(r"\d+", point.seq_len)]
    if not point.batch.isdigit() or int(point.batch) < 1 or not lengths:
        return "no batch or no length given"
    generates = re.search(r"generate|new tokens", point.seq_len) is not None and len(lengths) == 1
    tensor_parallel = point.gpu_count if "tensor parallel" in words or " tp" in words else 1
    setup = InferenceSetup(
        dtype=found[1],
        batch=int(point.batch),
        input_tokens=1 if generates else max(1, lengths[0]),
        output_tokens=lengths[-1] if generates or len(lengths) > 1 else 1,
        tensor_parallel=tensor_parallel,
        engine=next((name for name in ("litgpt", "autoawq", "vllm") if name in words), "transformers"),
    )
    metric: PointMetric = "driver"
    if "allocated" in words:
        metric = "allocated"
    elif "reserved" in words:
        metric = "reserved"
    elif "weights" in words:
        metric = "weights"
    return Case(found[0], setup, metric, unit or 1.0, capacity_bytes=GPU_BYTES.get(point.gpu_type, 0.0))


def _int8_blog(point: Point) -> Case | str:
    """The LLM.int8 blog's speed rows: that they ran says that they fitted."""
    if point.gpu_count != 1:
        return "layers on several devices one after another, which Berth does not serve with"
    found = _needs(point)
    if isinstance(found, str):
        return found
    setup = InferenceSetup(dtype=found[1], batch=int(point.batch), input_tokens=10, output_tokens=50)
    return Case(found[0], setup, "driver", 1.0, capacity_bytes=GPU_BYTES.get(point.gpu_type, 0.0))


_FITTING_METHODS = ("litgpt generate", "AutoAWQ", "HF accelerate (naive PP)", "HF generate")

_READERS: tuple[tuple[str, Reader], ...] = (
    ("Lightning-AI/litgpt", _litgpt),
    ("casper-hansen/AutoAWQ", _autoawq),
    ("QwenLM/Qwen@", _qwen),
    ("huggingface/blog@0a1251e038:overview-quantization", _optimum_gptq),
    ("huggingface/accelerate", _accelerate),
    ("philschmid/", _philschmid),
    ("vllm-project/vllm", _vllm),
    ("bitsandbytes issue #111", _bitsandbytes),
    ("huggingface/text-generation-inference", _tgi),
    ("huggingface/blog@0097a3854c:hf-bitsandbytes", _int8_blog),
    (
        "huggingface/blog@1928066b3a:bloom",
        lambda _: "several processes or devices in ways that Berth does not serve with",
    ),
    (
        "huggingface/blog@062647cf13",
        lambda _: "host memory of a training launcher's rank; docs/loading.md measures loading",
    ),
    ("DeepSpeedExamples", lambda _: "a bound (<), not a measurement"),
    ("stas00/ml-engineering", lambda _: "the source of the CUDA context term itself"),
    ("meta-pytorch/gpt-fast", lambda _: "a speed, which `sizing.throughput` answers"),
)


def measured(point: Point) -> float | None:
    """The row's value as a number, None for one about fitting."""
    return number(point.measured_value)
