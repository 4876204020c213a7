"""A process that kills itself, as `kill -9` would, at one moment of making or removing a stack on the local AWS.

`python lifecycle_killed.py ROOT FOLDER up|destroy STACK before|within|after NUMBER`: at the NUMBER-th resource, before
AWS is asked, between AWS's answer and the journal, or after the journal.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from infra.lifecycle.place import open_place
from infra.lifecycle.walk_engine import WalkEngine
from infra.sandbox.aws import Aws
from infra.sandbox.kind import Inputs, Outputs
from infra.sandbox.provider import SandboxProvider


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Killing(SandboxProvider):
    """Counts what it makes and removes, and dies at one of them."""

    moment, number, asked = "", 0, 0

    def at(self, moment: str) -> bool:
        return self.moment == moment and self.asked == self.number

    def create(
        self, type_: str, name: str, inputs: Inputs, made: Callable[[str], None] = lambda _: None
    ) -> tuple[str, Outputs]:
        self.asked += 1
        if self.at("before"):
            die()

        def told(id_: str) -> None:
            if self.at("within"):
                die()
            made(id_)
            if self.at("after"):
                die()

        return super().create(type_, name, inputs, told)

    def delete(self, type_: str, name: str, id_: str, inputs: Inputs) -> None:
        self.asked += 1
        if self.at("before"):
            die()
        super().delete(type_, name, id_, inputs)
        if self.at("within"):
            die()


def main(root: str, folder: str, action: str, stack: str, moment: str, number: str) -> None:
    def provider(aws: Aws) -> Killing:
        found = Killing(aws)
        found.moment, found.number = moment, int(number)
        return found

    engine = WalkEngine(open_place(Path(root), begin=False, folder=Path(folder)), provider=provider)
    getattr(engine, action)(stack)


if __name__ == "__main__":
    main(*sys.argv[1:])
