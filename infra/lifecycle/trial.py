"""Stacks on the sandbox's AWS by Pulumi's engine, as `berth sandbox` makes, shows and removes them.

Told as the sandbox's walk tells its own, so that one command shows either.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from infra.cloud import sandbox_aws
from infra.lifecycle.down import users_of
from infra.lifecycle.engine import Removal, Resource
from infra.lifecycle.pulumi_engine import PulumiEngine, sandbox_engine
from infra.new_stack import record_choice
from infra.resolve import now
from infra.sandbox.catalogue import kind_of
from infra.sandbox.journal import Made, StackRecord
from infra.sandbox.listing import tagged
from infra.settings import MachineSettings
from infra.stack_files import read_stack
from infra.steps import Tell, silent
from sizing.errors import UserError


class Trial:
    """The stacks that the engine has on the local AWS. Raises `UserError` where that does not run, unless `start`."""

    def __init__(self, root: Path, *, start: bool = False, folder: Path | None = None) -> None:
        self.engine: PulumiEngine = sandbox_engine(root, start=start, folder=folder)
        if self.engine.place is None:
            raise UserError("the sandbox's engine has no place of its own")
        self.server = self.engine.place.server

    def bring_up(self, stack: str, tell: Tell = silent, say: Callable[[str], None] = lambda _: None) -> list[str]:
        """Make the stack, and its shared one before it, what their files say; returns the stacks that changed.

        What is left open in a file is recorded in the sandbox's copy, and the person's file stays as it is. What is
        gone from AWS is made again. Raises `UserError` where a stack of that name stands that the engine did not make.
        """
        project, changed = self.engine.project, []
        ours = {summary.name for summary in self.engine.stacks() if summary.resources}
        file = read_stack(stack, project)
        names = [name for name in (file.shared_name, stack) if name]
        self._refuse_foreign([name for name in names if name not in ours])
        for name in names:
            record_choice(name, project, now)
            if name in ours:
                for lost in self.engine.refresh(name):
                    say(f"{name}: {lost.name} ({lost.id}) is {lost.kind} in AWS")
            counts = self.engine.preview(name).counts()
            same = counts.pop("same", 0)
            if counts:
                told = ", ".join(f"{number} to {operation}" for operation, number in counts.items())
                say(f"{name}: {told}" + (f", {same} stay" if same else ""))
                changed.append(name)
                self.engine.up(name, tell)
        return changed

    def take_down(self, stack: str, tell: Tell = silent) -> Removal:
        """Remove what the engine's state of the stack holds. Raises `UserError` where another stack uses it."""
        if users := users_of(stack, self.engine):
            raise UserError(f"stack {stack} is used by {', '.join(users)}; take that down first")
        return self.engine.destroy(stack, tell)

    def records(self) -> list[StackRecord]:
        """The engine's stacks, a shared one after those that use it."""
        found = []
        for summary in self.engine.stacks():
            made = [_made(r) for r in self.engine.resources(summary.name)]
            if not made:
                continue
            file = read_stack(summary.name, self.engine.project)
            lives = file.settings.expires_at if isinstance(file.settings, MachineSettings) else ""
            found.append(
                StackRecord(
                    summary.name, file.region, summary.since, lives, summary.complete,
                    dict(self.engine.outputs(summary.name)), self._stand_ins(file.region, made), made,
                    file.shared_name,
                )
            )  # fmt: skip
        return sorted(found, key=lambda r: not r.uses)

    def _refuse_foreign(self, stacks: list[str]) -> None:
        for name in stacks:
            region = read_stack(name, self.engine.project).region
            if any(t.stack == name for t in tagged(sandbox_aws(self.server.endpoint, region))):
                raise UserError(
                    f"stack {name} stands in the sandbox without Pulumi's engine; `berth sandbox down {name}` removes "
                    "it, --no-engine goes on without the engine"
                )

    def _stand_ins(self, region: str, made: list[Made]) -> dict[str, str]:
        """The image that stands in for AWS's, where a machine runs from it: the provider's own process told nobody."""
        images = sorted({str(m.inputs.get("ami") or m.inputs.get("imageId") or "") for m in made} - {""})
        if not images:
            return {}
        found = sandbox_aws(self.server.endpoint, region).client("ec2").describe_images(ImageIds=images)["Images"]
        return {"Deep Learning image of AWS's": ", ".join(f"{i['ImageId']} ({i['Name'].strip()})" for i in found)}


def _made(resource: Resource) -> Made:
    return Made(resource.type, resource.name, resource.id, resource.inputs, kind_of(resource.type).lacking)
