"""Model folders for tests: a config, and safetensors files that hold what a config describes, without weights."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sizing.models.read import layout_of
from sizing.models.stored import BITS

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 112,
    "vocab_size": 999,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
Entries = dict[str, tuple[str, tuple[int, ...]]]
"""Tensor name -> dtype and shape."""


def tensors_of(config: Mapping[str, Any], dtype: str = "BF16") -> Entries:
    """What a checkpoint of `config` holds: one entry a layer, tied tensors left out."""
    found: Entries = {}
    for t in layout_of(config).tensors:
        if t.tied_to:
            continue
        for i in range(t.count):
            head, _, rest = t.name.partition(".layers.")
            found[f"{head}.layers.{i}.{rest}" if rest else t.name if t.count == 1 else f"{i}.{t.name}"] = (
                dtype,
                t.shape,
            )
    return found


def header_of(entries: Entries, metadata: bool = True) -> tuple[bytes, int]:
    """A header for `entries` and the bytes of data that it promises."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}} if metadata else {}
    offset = 0
    for name, (dtype, shape) in entries.items():
        size = math.prod(shape) * BITS[dtype] // 8
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    return json.dumps(header).encode(), offset


def write_safetensors(path: Path, entries: Entries) -> None:
    """A file of `entries`; its data is a hole, so it takes no room on disk."""
    header, size = header_of(entries)
    with path.open("wb") as stream:
        stream.write(len(header).to_bytes(8, "little") + header)
        stream.truncate(8 + len(header) + size)


def write_config(folder: Path, config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config), encoding="utf-8")
    return folder


def write_model(folder: Path, config: Mapping[str, Any] = LLAMA, entries: Entries | None = None) -> Path:
    """A folder with `config` and one safetensors file of `entries` (those of `config` when left out)."""
    write_config(folder, dict(config))
    write_safetensors(folder / "model.safetensors", tensors_of(config) if entries is None else entries)
    return folder


def write_shards(folder: Path, parts: Sequence[Entries], weight_map: Mapping[str, str] | None = None) -> None:
    """`parts` as numbered shards with their index."""
    named = {f"model-{i + 1:05}-of-{len(parts):05}.safetensors": part for i, part in enumerate(parts)}
    for file, part in named.items():
        write_safetensors(folder / file, part)
    index = (
        {tensor: file for file, part in named.items() for tensor in part} if weight_map is None else dict(weight_map)
    )
    total = sum(header_of(part)[1] for part in parts)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": index})
    )
