"""Live bytes of real forward passes on the meta device: what `sizing.memory.activations` is held against.

    python scripts/oracle_inference.py            # a table on stdout
    python scripts/oracle_inference.py --csv FILE # the rows that the tests compare with
"""

from __future__ import annotations

import argparse
import csv
import sys
import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of storages that are alive, rounded as the CUDA caching allocator rounds, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self._seen: set[int] = set()

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
                    size = -(-storage.nbytes() // 512) * 512
                    self._seen.add(key)
                    weakref.finalize(storage, self._gone, key, size)
                    self.live += size
                    self.peak = max(self.peak, self.live)
        return out


def peak_of(model: torch.nn.Module, call: Any) -> int:
    """Peak bytes of what `call()` allocates beside the model's parameters and buffers."""
    tracker = LiveBytes()
    for tensor in (*model.parameters(), *model.buffers()):
        tracker._seen.add(id(tensor.untyped_storage()))
    with torch.no_grad(), tracker:
        call()
    return tracker.peak
