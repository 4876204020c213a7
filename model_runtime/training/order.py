"""The order of the examples: fixed by seed and epoch, the same for any number of processes and any micro-batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Generator, randperm
from torch.utils.data import Sampler

GROUPED = 50
"""Global batches that are sorted by length together (transformers' `LengthGroupedSampler`)."""


class EpochOrder(Sampler):  # type: ignore[misc]  # torch is not typed here
    """Indices of an epoch, whole global batches of them: the last is filled up with the epoch's first examples.

    With `lengths` the batches hold examples of like length, so that little is padded; which batch comes when is drawn.
    A step takes the next `global_batch` indices however they are cut, so a run may go on with another cut.
    """

    def __init__(self, count: int, global_batch: int, seed: int, lengths: Sequence[int] | None = None) -> None:
        self.count, self.global_batch, self.seed, self.lengths = count, global_batch, seed, lengths
        self.epoch = 0
        self.batches = -(-count // global_batch)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.batches * self.global_batch

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices(self.epoch))

    def indices(self, epoch: int) -> list[int]:
        """All indices of `epoch`, in order."""
        generator = Generator()
        generator.manual_seed(self.seed * 1_000_003 + epoch)
        drawn: list[int] = randperm(self.count, generator=generator).tolist()
        size = self.global_batch
        filled = [*drawn, *(drawn[i % self.count] for i in range(len(self) - self.count))]
        if self.lengths is None:
            return filled
        lengths = self.lengths
        grouped: list[int] = []
        for start in range(0, len(filled), size * GROUPED):
            grouped += sorted(filled[start : start + size * GROUPED], key=lambda i: -lengths[i])
        order = randperm(self.batches, generator=generator).tolist()
        return [i for b in order for i in grouped[b * size : (b + 1) * size]]
