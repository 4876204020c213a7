"""A process of its own that answers batches of a fixed shape and says what they took: it may die of memory, and
another takes its place. Commands come as JSON lines on stdin, results go as JSON lines to stdout."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

OUT_OF_MEMORY = 77
"""Exit status after a batch that did not fit: the process has said so and is not used again."""
TOLD_EVERY_S = 0.2


def main() -> None:
    """`probe FOLDER OVERRIDES`: load, say what loading took, then answer `{"batch": n}` until stdin ends."""
    folder, overrides = Path(sys.argv[1]), json.loads(sys.argv[2])
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not stand among the results

    def tell(document: dict[str, Any]) -> None:
        out.write(json.dumps(document) + "\n")
        out.flush()

    import psutil

    before_imports = time.time()
    from transformers import AutoConfig, AutoModel, AutoTokenizer  # noqa: F401 (loading must not be charged for it)

    from model_runtime.errors import ModelError
    from model_runtime.generate import Generator
    from model_runtime.load import fetch, load
    from model_runtime.serving import settings_of
    from model_runtime.verify.start import forget_cached

    imported = time.time()
    imported_bytes = _resident()
    try:
        settings = settings_of(folder, overrides)
        location = settings.location(folder, os.environ)
        local = fetch(location, _Piped(tell))
        fetched = time.time()
        if not local.downloaded_bytes:
            forget_cached(local.folder)
        loaded = load(location, settings.load_options, local=local)
    except ModelError as error:
        tell({"error": str(error)})
        return
    tell(
        {
            "process_start_s": before_imports - psutil.Process().create_time(),
            "import_s": imported - before_imports,
            "download_s": fetched - imported,
            "downloaded_bytes": local.downloaded_bytes,
            "load_s": loaded.seconds["load"],
            "weights_bytes": loaded.weights_bytes,
            "import_resident_bytes": imported_bytes,
            "load_peak_bytes": max(0, _peak() - imported_bytes),
            "architecture": loaded.architecture,
            "dtype": loaded.quantize or loaded.dtype,
            "device": loaded.device.name,
            "compute_capability": loaded.device.compute_capability,
            "context_window": loaded.total_window or loaded.input_window,
            "folder": str(loaded.folder),
        }
    )
    generator = Generator(loaded, settings.limits)
    for line in sys.stdin:
        command = json.loads(line)
        result = run_batch(generator, **command)
        tell(result)
        if result.get("out_of_memory"):
            sys.exit(OUT_OF_MEMORY)


class _Piped:
    """A download's progress as lines of the pipe, a few a second."""

    def __init__(self, tell: Callable[[dict[str, Any]], None]) -> None:
        self._tell = tell
        self._left, self._told_at = 0, 0.0

    def begin(self, label: str, total: int | None = None, unit: str = "requests") -> None:
        self._tell({"progress": ["begin", label, total, unit]})

    def advance(self, by: int = 1) -> None:
        self._left += by
        if time.monotonic() - self._told_at >= TOLD_EVERY_S:
            self._tell({"progress": ["advance", self._left]})
            self._left, self._told_at = 0, time.monotonic()

    def note(self, text: str) -> None:
        """Nothing is noted while fetching."""


def run_batch(
    generator: Any, batch: int, input_tokens: int, output_tokens: int, memory_limit_bytes: int | None = None
) -> dict[str, Any]:
    """Answer `batch` prompts of exactly `input_tokens` with exactly `output_tokens`; seconds and bytes of the peak.

    `memory_limit_bytes`: resident bytes (CPU) beyond which the batch counts as one that did not fit.
    """
    import torch

    from model_runtime.generate import is_out_of_memory, release_memory
    from model_runtime.parameters import Sampling
    from model_runtime.rows import Row

    cuda = torch.cuda.is_available() and generator.loaded.device.kind == "cuda"
    release_memory()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    else:
        _give_back()
        _reset_peak()
    before = torch.cuda.memory_allocated() if cuda else _resident()
    vocabulary = len(generator.tokenizer)
    ids = [(7 + 13 * i) % max(1, vocabulary - 20) + 10 for i in range(input_tokens)]
    sampling = Sampling(max_new_tokens=output_tokens, min_new_tokens=output_tokens)
    rows = [Row(list(ids), sampling, output_tokens) for _ in range(batch)]
    began = time.perf_counter()
    try:
        with _cache_of(generator) as cache:
            done = generator.run_once(rows)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return {"batch": batch, "out_of_memory": True, "why": str(error)[:200]}
    seconds = time.perf_counter() - began
    if cuda:
        torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() if cuda else _peak()
    if memory_limit_bytes and peak > memory_limit_bytes:
        return {
            "batch": batch,
            "out_of_memory": True,
            "why": f"{peak:,} resident bytes, over the limit",
            "peak_bytes": peak,
        }
    result = {
        "batch": batch,
        "seconds": seconds,
        "first_token_s": getattr(done[0], "first_token_s", seconds),
        "before_bytes": before,
        "peak_bytes": peak,
        "kv_cache_bytes": cache.get("self"),
        "cross_cache_bytes": cache.get("cross"),
    }
    if cuda:
        result |= {
            "reserved_bytes": torch.cuda.max_memory_reserved(),
            "driver_bytes": torch.cuda.mem_get_info()[1] - torch.cuda.mem_get_info()[0],
        }
    return result


@contextlib.contextmanager
def _cache_of(generator: Any) -> Any:
    """Measures the KV cache that generation leaves, by asking `generate` for it in passing."""
    sizes: dict[str, int] = {}
    if not generator.generates:
        yield sizes
        return
    real = generator.model.generate

    def kept(**arguments: Any) -> Any:
        out = real(**arguments, return_dict_in_generate=True)
        cache = out.past_key_values
        sizes["self"] = cache_bytes(getattr(cache, "self_attention_cache", cache))
        sizes["cross"] = cache_bytes(getattr(cache, "cross_attention_cache", None))
        return out.sequences

    generator.model.generate = kept
    try:
        yield sizes
    finally:
        del generator.model.generate


def cache_bytes(cache: Any) -> int:
    """Bytes of the keys and values of every layer of a transformers cache."""
    tensors = [
        tensor
        for layer in getattr(cache, "layers", [])
        for tensor in (getattr(layer, "keys", None), getattr(layer, "values", None))
        if tensor is not None
    ]
    return sum(t.numel() * t.element_size() for t in tensors)


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0


def _resident() -> int:
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _give_back() -> None:
    """Let glibc return what earlier batches have freed, so that this one's growth is its own."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _reset_peak() -> None:
    """Start a new peak of resident memory (Linux: proc(5), clear_refs, value 5)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


if __name__ == "__main__":
    main()
