"""A tape of what is live: the peak of a sequence of allocations and frees, counted as the caching allocator counts."""

from __future__ import annotations

ROUNDING = 512
"""Every block is a multiple of 512 bytes (`kMinBlockSize`, c10/cuda/CUDACachingAllocator)."""


class Tape:
    """Sums live bytes and keeps their peak."""

    def __init__(self) -> None:
        self.live = 0.0
        self.peak = 0.0

    def new(self, size: float) -> float:
        """Allocate `size` bytes; returns what is to be freed."""
        if size <= 0:
            return 0.0
        rounded = -(-size // ROUNDING) * ROUNDING
        self.live += rounded
        self.peak = max(self.peak, self.live)
        return rounded

    def free(self, *sizes: float) -> None:
        self.live -= sum(sizes)
