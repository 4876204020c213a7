"""What stands of a stack today, asked of the person's own `pulumi`: its state, and its preview of what would come.

Nothing is changed, no question is asked and nothing is downloaded; where the CLI cannot say, the reason is one line,
and the offline plan stands alone.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.errors import one_line
from infra.plan import PlannedResource, read_preview, resource_of_state
from sizing.errors import UserError

ASK_SECONDS = 30.0
"""For the state, which a backend answers in a second or two."""
PREVIEW_SECONDS = 240.0
"""For a preview, which asks AWS about every resource."""
_QUIET = {
    "PULUMI_SKIP_UPDATE_CHECK": "true",
    "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
    "NO_COLOR": "1",
}


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command left; `code` None where it was ended for taking too long."""

    code: int | None
    out: str
    err: str


Run = Callable[[Sequence[str], float], Ran]


@dataclass(frozen=True, slots=True)
class Standing:
    """`before` is what the state holds, None where nothing is known of it.

    `after` is what the engine's preview says would come, None where only the offline plan knows. `said` is the line
    that tells a person what the bill is compared with, and why not with more.
    """

    before: tuple[PlannedResource, ...] | None = None
    after: tuple[PlannedResource, ...] | None = None
    said: str = ""


def cli(root: Path, environ: Mapping[str, str] = os.environ) -> Run | None:
    """`pulumi` in the project's folder, None where it is not on PATH."""
    found = shutil.which("pulumi", path=environ.get("PATH"))
    if found is None:
        return None
    program: str = found

    def run(arguments: Sequence[str], seconds: float) -> Ran:
        started = subprocess.Popen(  # noqa: S603 (arguments are a list, the stack's name is checked)
            [program, *arguments, "--non-interactive", "--cwd", str(root)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8",
            errors="replace", env={**environ, **_QUIET}, start_new_session=True,
        )  # fmt: skip
        try:
            out, err = started.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            _end(started)
            return Ran(None, "", "")
        except BaseException:
            _end(started)
            raise
        return Ran(started.returncode, out, err)

    return run


def _end(started: subprocess.Popen[str]) -> None:
    """End the CLI with the plugins and the program that it started; a preview holds no lock and leaves nothing."""
    with suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGKILL)
    started.communicate()


def standing(stack: str, run: Run | None) -> Standing:
    """What stands of `stack`, by its state and the engine's preview. Raises nothing: what is not known is said."""
    if run is None:
        return Standing(said="planned offline, against nothing: no pulumi CLI on PATH to ask what stands today")
    asked = run(["stack", "export", "--stack", stack], ASK_SECONDS)
    if asked.code != 0:
        why = _why(asked, ASK_SECONDS)
        if "no stack named" in why:
            return Standing(said=f"planned offline, against nothing: pulumi has no state of {stack} yet")
        return Standing(said=f"planned offline, against nothing: pulumi cannot read the state: {why}")
    try:
        state = _resources(asked.out)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return Standing(said=f"planned offline, against nothing: pulumi's state is not as expected: {error}")
    if not state:
        return Standing(said=f"planned offline, against nothing: the state of {stack} is empty")
    shown = run(["preview", "--json", "--stack", stack], PREVIEW_SECONDS)
    if shown.code == 0:
        try:
            before, after = read_preview(json.loads(shown.out), "pulumi preview --json", stack)
        except (ValueError, UserError) as error:
            return Standing(state, said=f"the offline plan against the state: {error}")
        return Standing(before, after, "pulumi's own preview, against the state")
    why = _why(shown, PREVIEW_SECONDS)
    return Standing(state, said=f"the offline plan against the state; pulumi cannot preview: {why}")


def _resources(text: str) -> tuple[PlannedResource, ...]:
    found = json.loads(text)["deployment"].get("resources") or []
    return tuple(resource_of_state(r) for r in found if not str(r["type"]).startswith("pulumi:"))


def _why(ran: Ran, seconds: float) -> str:
    """The first error in one line."""
    if ran.code is None:
        return f"it did not answer within {seconds:.0f} s"
    with suppress(ValueError, AttributeError):
        document: Mapping[str, Any] = json.loads(ran.out)
        for told in document.get("diagnostics") or []:
            if told.get("severity") == "error":
                return _line(str(told.get("message", "")))
    lines = [line for line in (ran.err + "\n" + ran.out).splitlines() if "error:" in line]
    return _line(lines[0] if lines else ran.err or "it failed and said nothing")


def in_words(said: str) -> str:
    """What a person does about it, where the CLI says what it often says; empty for anything else."""
    if "passphrase" in said:
        return (
            "the state in files needs PULUMI_CONFIG_PASSPHRASE; a stack of Berth's has no secrets, so the empty one "
            "will do: export PULUMI_CONFIG_PASSPHRASE="
        )
    if "PULUMI_ACCESS_TOKEN" in said:
        return "pulumi is not logged in: `pulumi login --local` keeps the state in files, with no account"
    return ""


def _line(text: str) -> str:
    return in_words(text) or re.sub(r"^.*?error:\s*", "", one_line(text))[:200]
