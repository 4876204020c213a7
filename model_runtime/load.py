"""A model and its tokenizer from a folder, an S3 prefix or the hub, at the dtype and quantization that are wished."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from model_runtime.errors import ModelError, first_line
from model_runtime.fetch import fetch_s3, is_s3
from model_runtime.hub import fetch_hub
from model_runtime.precision import Device, check_quantization, choose_dtype, find_device, torch_dtype
from model_runtime.progress import Lines, Progress, downloading, without_bars

Architecture = Literal["encoder-only", "decoder-only", "encoder-decoder"]
_CLASSIFIER = "ForSequenceClassification"
_NO_LIMIT = 1_000_000
"""A tokenizer without a limit says 10^30."""


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How to load. `dtype`: auto, fp32, fp16, bf16; `quantize`: "", int8, nf4, nf4-dq; `device`: auto, cpu, cuda.

    `allow_pickle`: read `.bin` weights where no safetensors are (a pickle can run code when it is read).
    `spread`: the number of GPUs over which the layers are laid (transformers' `device_map="auto"`).
    """

    dtype: str = "auto"
    quantize: str = ""
    device: str = "auto"
    allow_pickle: bool = False
    spread: int = 1


@dataclass(slots=True)
class Loaded:
    """A model ready to run.

    `input_window`, `total_window`: tokens of an input, and of input and output together; None where nothing limits
    them. `weights_bytes`: bytes of parameters and buffers as they stand. `downloaded_bytes`: 0 where the files were
    there. `seconds`: download, load.
    """

    model: Any
    tokenizer: Any
    architecture: Architecture
    device: Device
    dtype: str
    quantize: str
    input_window: int | None
    total_window: int | None
    weights_bytes: int
    source: str
    folder: Path
    downloaded_bytes: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Local:
    """A model's files on this disk; `downloaded_bytes` came for it, 0 where all was there."""

    folder: Path
    downloaded_bytes: int = 0


def fetch(location: str, progress: Progress, *, cache: Path | None = None, client: Any = None) -> Local:
    """Bring `location`: a folder (taken as it is), `s3://bucket/prefix`, or a hub id (`google/flan-t5-base`).

    `cache`: where S3 downloads go (default: `models` in `BERTH_CACHE_DIR`, else in `~/.cache/berth`). The hub's go
    where `HF_HUB_CACHE` says.
    """
    path = Path(location).expanduser()
    if path.is_dir():
        return Local(path)
    told = downloading(progress, location)
    if is_s3(location):
        root = cache or Path(os.environ.get("BERTH_CACHE_DIR") or Path.home() / ".cache" / "berth") / "models"
        target = root / location.removeprefix("s3://").strip("/").replace("/", "--")
        got = fetch_s3(location, target, client=client, progress=told)
        return Local(got.folder, got.downloaded_bytes)
    if location.startswith((".", "/", "~")) or location.count("/") != 1:
        raise ModelError(
            f"{location!r} is no folder here; give a folder, s3://BUCKET/PREFIX, or a hub id (google/flan-t5-base)"
        )
    return Local(*fetch_hub(location, told))


def load(
    location: str,
    options: LoadOptions | None = None,
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
    client: Any = None,
    local: Local | None = None,
) -> Loaded:
    """Fetch and load. Raises `ModelError` with one line for whatever cannot be loaded, and why.

    `local`: what `fetch` has brought of `location` already.
    """
    options = options or LoadOptions()
    progress = progress or Lines(lambda _: None)
    started = time.monotonic()
    local = local or fetch(location, progress, cache=cache, client=client)
    folder = local.folder
    fetched = time.monotonic()
    device = find_device(options.device)
    dtype = choose_dtype(options.dtype, device)
    quantize = check_quantization(options.quantize, device)
    progress.note(f"loading {location} in {quantize or dtype} on {device.name}")

    from transformers import AutoConfig, AutoTokenizer

    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} has no config.json, so it is no model of transformers; give the model's folder")
    try:
        config = AutoConfig.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder}: configuration or tokenizer cannot be read: {first_line(error)}") from error
    architecture = architecture_of(config)
    _check_files(folder, options.allow_pickle)
    model = _model(folder, config, architecture, device, dtype, quantize, options)
    notes = _prepare_tokenizer(tokenizer, model, architecture)
    input_window, total_window = windows(config, tokenizer, architecture)
    return Loaded(
        model=model,
        tokenizer=tokenizer,
        architecture=architecture,
        device=device,
        dtype=dtype,
        quantize=quantize,
        input_window=input_window,
        total_window=total_window,
        weights_bytes=weights_bytes(model),
        source=location,
        folder=folder,
        downloaded_bytes=local.downloaded_bytes,
        seconds={"download": fetched - started, "load": time.monotonic() - fetched},
        notes=(*notes, *_left_as_they_are(model, quantize, dtype)),
    )


def _left_as_they_are(model: Any, quantize: str, dtype: str) -> tuple[str, ...]:
    """A note where quantization reached less than half of the parameters: bitsandbytes turns modules that are exactly
    `torch.nn.Linear`, so the stacked experts of a mixture, or layers of a class of their own, stay."""
    if not quantize:
        return ()
    from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt

    layers = (Linear8bitLt, Linear4bit)
    turned = [module for module in model.modules() if isinstance(module, layers)]
    own = {id(parameter) for module in turned for parameter in module.parameters(recurse=False)}
    small = sum(module.in_features * module.out_features for module in turned)
    rest = sum(parameter.numel() for parameter in model.parameters() if id(parameter) not in own)
    share = small / (small + rest)
    if share >= 0.5:
        return ()
    return (
        f"{quantize} reached {share:.0%} of the parameters: bitsandbytes turns plain linear layers alone, and the "
        f"others (embeddings, a mixture's experts) stay in {dtype}",
    )


def architecture_of(config: Any) -> Architecture:
    """By the model's own configuration. Raises `ModelError` for a head that neither generates nor classifies."""
    names = tuple(getattr(config, "architectures", None) or ())
    if any(name.endswith(_CLASSIFIER) for name in names):
        return "encoder-only"
    if getattr(config, "is_encoder_decoder", False):
        return "encoder-decoder"
    if any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in names):
        return "decoder-only"
    raise ModelError(
        f"a {config.model_type} model with the head {', '.join(names) or 'unknown'} neither generates text nor "
        "classifies; serve one whose config.json names a ...ForConditionalGeneration, ...ForCausalLM or "
        "...ForSequenceClassification"
    )


def windows(config: Any, tokenizer: Any, architecture: Architecture) -> tuple[int | None, int | None]:
    """Tokens of an input, and of input and output together (decoder-only), that the model was made for.

    From `max_position_embeddings` or `n_positions` and the tokenizer's own limit, whichever is smaller. An
    encoder-decoder's output has a window of its own, so nothing is shared.
    """
    positions = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    limits = [n for n in (positions, getattr(tokenizer, "model_max_length", None)) if n and n < _NO_LIMIT]
    window = int(min(limits)) if limits else None
    return window, (window if architecture == "decoder-only" else None)


def weights_bytes(model: Any) -> int:
    """Bytes of parameters and buffers, shared storages (tied tensors) once; a quantized layer's statistics included."""
    seen: dict[int, int] = {}

    def count(tensor: Any) -> None:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()

    for tensor in (*model.parameters(), *model.buffers()):
        count(tensor)
        state = getattr(tensor, "quant_state", None)
        for part in (state, getattr(state, "state2", None)):
            for name in ("absmax", "code", "offset"):
                value = getattr(part, name, None)
                if hasattr(value, "untyped_storage"):
                    count(value)
    # LLM.int8's row scales move from the parameter to the layer's state at the first pass.
    states = [getattr(module, "state", None) for module in model.modules()]
    for holder in (*model.parameters(), *states):
        for name in ("SCB", "CB"):
            value = getattr(holder, name, None)
            if hasattr(value, "untyped_storage"):
                count(value)
    return sum(seen.values())


def _check_files(folder: Path, allow_pickle: bool) -> None:
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(p.name for p in (*folder.glob("*.bin"), *folder.glob("*.pt")) if p.name != "training_args.bin")
    if not pickles:
        raise ModelError(f"{folder} holds no weights (*.safetensors); fetch or save the model again")
    if not allow_pickle:
        raise ModelError(
            f"{folder} has only pickled weights ({pickles[0]}), and a pickle can run code when it is read; convert it "
            "to safetensors, or allow it if you trust where it is from (--allow-pickle, option.allow_pickle=true)"
        )


def _model(
    folder: Path,
    config: Any,
    architecture: Architecture,
    device: Device,
    dtype: str,
    quantize: str,
    options: LoadOptions,
) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

    auto = {
        "encoder-only": AutoModelForSequenceClassification,
        "decoder-only": AutoModelForCausalLM,
        "encoder-decoder": AutoModelForSeq2SeqLM,
    }[architecture]
    major, minor = (int(n) for n in version("transformers").split(".")[:2])
    arguments: dict[str, Any] = {
        ("dtype" if (major, minor) >= (4, 56) else "torch_dtype"): torch_dtype(dtype),
        "use_safetensors": any(folder.glob("*.safetensors")),
        "config": config,
    }
    if quantize:
        arguments["quantization_config"] = _bitsandbytes(quantize, dtype, architecture)
    if device.kind == "cuda":
        arguments["device_map"] = "auto" if options.spread > 1 else {"": 0}
    elif quantize:
        arguments["device_map"] = {"": "cpu"}
    try:
        with without_bars():
            model = auto.from_pretrained(folder, **arguments)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(f"{folder} cannot be loaded: {first_line(error)}") from error
    model.eval()
    if quantize and device.kind == "cpu":
        _try_cpu_kernels(model, architecture, quantize)
    return model


def _bitsandbytes(quantize: str, dtype: str, architecture: Architecture) -> Any:
    try:
        version("bitsandbytes")
    except PackageNotFoundError as error:
        raise ModelError(
            f"quantize is {quantize}, but bitsandbytes is not installed here; install it (pip install bitsandbytes)"
        ) from error
    from transformers import BitsAndBytesConfig

    # A classifier's head is small and decides everything: it stays as it is (a language model's does by itself).
    kept: dict[str, Any] = {"llm_int8_skip_modules": ["classifier", "score"]} if architecture == "encoder-only" else {}
    if quantize == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, **kept)
    return BitsAndBytesConfig(
        **kept,
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=quantize == "nf4-dq",
        bnb_4bit_compute_dtype=torch_dtype(dtype),
    )


def _try_cpu_kernels(model: Any, architecture: Architecture, quantize: str) -> None:
    """bitsandbytes' CPU kernels take some shapes only, and say so at the first pass: better now than at a request."""
    import torch

    ids = torch.ones(1, 2, dtype=torch.long)
    inputs = {"input_ids": ids} | ({"decoder_input_ids": ids} if architecture == "encoder-decoder" else {})
    try:
        with torch.inference_mode():
            model(**inputs)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"quantize {quantize}: bitsandbytes' CPU kernels do not take this model's shapes ({first_line(error)}); "
            "use int8, none, or a GPU"
        ) from error


def _prepare_tokenizer(tokenizer: Any, model: Any, architecture: Architecture) -> tuple[str, ...]:
    """Padding and truncation sides that are right for the architecture, and a pad token where there is none.

    A decoder-only model goes on from the last position, so padding stands at the left and the end of a prompt is kept.
    """
    left = architecture == "decoder-only"
    tokenizer.padding_side = tokenizer.truncation_side = "left" if left else "right"
    notes = []
    if tokenizer.pad_token_id is None:
        eos = tokenizer.eos_token_id
        if eos is None:
            raise ModelError("the tokenizer has neither a pad nor an end token, so prompts cannot be batched; add one")
        tokenizer.pad_token = tokenizer.eos_token
        notes.append(f"no pad token: padding with {tokenizer.eos_token!r}, masked")
        if architecture == "encoder-only":
            model.config.pad_token_id = eos
    return tuple(notes)
