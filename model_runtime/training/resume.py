"""Where a run goes on: the newest checkpoint that every machine can have whole, brought to this one and made readable
for as many processes as there are now."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model_runtime.artifacts import delete_folder
from model_runtime.errors import ModelError
from model_runtime.training import checkpoints, reshard
from model_runtime.training.place import Place
from model_runtime.training.reshard import Written

PARTS = "parts"
"""Under the run's folder: the shards of other machines, until they are joined."""
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Resume:
    """`folder` is what the Trainer reads; `universal`: its shards are joined, in DeepSpeed's universal format."""

    step: int
    folder: Path
    universal: bool


def node_uri(upload: str, node: int) -> str:
    """Where a machine's checkpoints go: those of further machines hold other shards."""
    return f"{upload.rstrip('/')}/node-{node}" if upload and node else upload.rstrip("/")


@dataclass(slots=True)
class Finder:
    """All processes call its methods alike; the first of each machine does the work.

    `root`: the folder of checkpoints; `upload`: s3://BUCKET/PREFIX or empty; `now`: how the run is cut.
    """

    root: Path
    upload: str
    place: Place
    now: Written
    say: Say
    client: Any = None
    _stored: dict[int, set[int]] = field(default_factory=dict)
    _why: str = ""

    def newest(self) -> Resume | None:
        """The newest step that can be had whole on every machine; newer ones are deleted, so that they are written
        anew. None: begin at the first step. Raises `ModelError` where checkpoints are there but none can be read."""
        self._stored = checkpoints.stored_steps(self.upload, client=self.client) if self._looks else {}
        passed: set[int] = set()
        found: Resume | None = None
        while found is None and (step := self._agree(passed)) is not None:
            found = self.bring(step)
            passed.add(step)
        if found is None and self._why:
            raise ModelError(self._why)
        if self.place.leads:
            checkpoints.drop_newer(self.root, -1 if found is None else found.step)
        return found

    def bring(self, step: int, *, read: bool = True) -> Resume | None:
        """The checkpoint of `step` on every machine, or None where one of them cannot have it, which is said.

        `read` False: it is only to be there; shards are not joined.
        """
        made: Resume | None = None
        refused = missing = ""
        if self.place.leads:
            try:
                made = self._bring(step, read)
            except reshard.MissingShardsError as error:
                missing = str(error)
            except ModelError as error:
                refused = str(error)
        every = self._gather((self.place.node, made, refused, missing)) if self.place.leads else self._gather(None)
        leaders = [one for one in every if one is not None]
        for _, _, why, _ in leaders:
            if why:
                raise ModelError(why)
        for _, _, _, why in leaders:
            if why:
                self._why = self._why or why
                self.say(f"checkpoint-{step} is passed over: {why}")
        if any(one is None for _, one, _, _ in leaders):
            return None
        mine: Resume | None = next(one for node, one, _, _ in leaders if node == self.place.node)
        return mine

    def best(self, newest: Resume) -> int | None:
        """The step with the lowest validation loss that the checkpoint `newest` knows of, brought as well."""
        step: int | None = None
        if self.place.rank == 0:
            state = json.loads((newest.folder / "trainer_state.json").read_text(encoding="utf-8"))
            step = state.get("best_global_step") or None
        step = self._gather(step)[0]
        if step is None or step == newest.step:
            return step
        if self.bring(step, read=False) is None:
            self.say(f"checkpoint-{step}, the best so far, is gone: the artifact is the best or last from here on")
            return None
        return step

    def clean(self) -> None:
        """Delete what was made only to be read once."""
        if self.place.leads:
            for name in (reshard.FOLDER, PARTS):
                shutil.rmtree(self.root.parent / name, ignore_errors=True)

    @property
    def _looks(self) -> bool:
        return bool(self.upload) and self.place.leads

    def _agree(self, passed: set[int]) -> int | None:
        """The newest step that every machine has or can fetch."""
        here = checkpoints.sealed_steps(self.root) if self.place.leads else set()
        every = self._gather((self.place.node, here, self._stored))
        local: dict[int, set[int]] = {}
        stored: dict[int, set[int]] = {}
        for node, steps, there in every:
            local[node] = local.get(node, set()) | steps
            stored |= there
        known = set().union(*local.values(), *stored.values()) - passed
        in_s3 = set().union(*stored.values())
        everywhere = set.intersection(*local.values())
        return max(known & (in_s3 | everywhere), default=None)

    def _bring(self, step: int, read: bool) -> Resume | None:
        folder = self.root / f"checkpoint-{step}"
        sources = [self.place.node, *sorted(self._stored.keys() - {self.place.node})]
        if not self._whole(folder, step, sources):
            return None
        if not read:
            return Resume(step, folder, universal=False)
        written = reshard.written_by(folder)
        reshard.check(written, self.now, folder.name)
        each = self.now.processes // self.now.nodes
        mine = {self.place.node * each + i for i in range(each)}
        same = written.processes == self.now.processes
        if not written.zero_stage or (same and mine <= reshard.ranks_in(folder)):
            return Resume(step, folder, universal=False)
        parts = []
        for node in range(written.nodes):
            part = self.root.parent / PARTS / f"node-{node}" / folder.name
            if step in self._stored.get(node, set()) and self._whole(part, step, [node]):
                parts.append(part)
        made = reshard.reshard(folder, parts, self.root.parent / reshard.FOLDER, written, self.say, join=not same)
        return Resume(step, made, universal=not same)

    def _whole(self, folder: Path, step: int, nodes: list[int]) -> bool:
        """Whether `folder` is whole, fetched from the first of the machines' prefixes that has it where it is not."""
        problem = checkpoints.problem_of(folder) if folder.is_dir() else "not here"
        if not problem:
            return True
        if folder.is_dir():
            self.say(f"{folder.name} is passed over: {problem}")
            delete_folder(folder)
        for node in nodes:
            if step in self._stored.get(node, set()):
                return checkpoints.fetch_step(node_uri(self.upload, node), folder, self.say, client=self.client)
        return False

    def _gather(self, one: Any) -> list[Any]:
        if self.place.world == 1:
            return [one]
        import torch.distributed as dist

        every: list[Any] = [None] * self.place.world
        dist.all_gather_object(every, one)
        return every
