"""Where a process stands among those of its run."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """`rank` of `world` processes, `local_rank` on machine `node`, from torchrun's environment."""

    rank: int
    local_rank: int
    world: int
    node: int

    @classmethod
    def here(cls) -> Place:
        get = os.environ.get
        return cls(
            int(get("RANK", "0")), int(get("LOCAL_RANK", "0")), int(get("WORLD_SIZE", "1")), int(get("GROUP_RANK", "0"))
        )

    @property
    def leads(self) -> bool:
        """Whether it is the first of its machine, which does what is done once a machine."""
        return self.local_rank == 0
