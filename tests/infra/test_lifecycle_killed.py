"""Commands that are killed with -9: whatever they were doing, the next one tells the truth and finishes."""

from __future__ import annotations

import getpass
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lifecycle_sandbox import Run, World, document

from infra.inventory import standing
from infra.lifecycle.lock import holder

HERE = Path(__file__).parent
BERTH = (sys.executable, "-m", "berth")


def killed(world: World, action: str, moment: str, number: int) -> None:
    command = [sys.executable, str(HERE / "lifecycle_killed.py"), str(world.project.root), str(world.folder)]
    ran = subprocess.run([*command, action, "shared", moment, str(number)], capture_output=True, text=True, check=False)
    assert ran.returncode == -signal.SIGKILL, ran.stderr


def left(world: World) -> list[str]:
    return [f.id for f in standing(world.aws, "shared")]


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        pytest.param("before", 1, marks=pytest.mark.slow),
        ("within", 3),
        pytest.param("after", 15, marks=pytest.mark.slow),
    ],
)
def test_an_up_killed_at_any_moment_is_seen_and_taken_down(
    run_berth: Run, world: World, moment: str, number: int
) -> None:
    """`within` 3: a key that AWS has made and no journal knows."""
    killed(world, "up", moment, number)
    assert holder(world.folder) == ""  # the lock went with the process, and its words are a dead one's
    found = document("status", run_berth("status", "--sandbox", "--json"))
    assert [(s["name"], s["complete"], s["resources"]) for s in found["stacks"]] == [
        ("shared", False, number if moment == "after" else number - 1)
    ]
    assert len(found["orphans"]) == (1 if moment == "within" else 0)
    down = document("down", run_berth("down", "shared", "--sandbox", "--yes", "--json"))
    assert (down["nothing_left"], left(world)) == (True, [])
    assert document("status", run_berth("status", "--sandbox", "--json"))["stacks"] == []


def test_an_up_killed_in_the_middle_is_finished_by_the_next_up(run_berth: Run, world: World) -> None:
    killed(world, "up", "within", 3)
    again = document("up", run_berth("up", "shared", "--sandbox", "--yes", "--json"))
    assert (again["up"], len(again["changes"])) == (True, 22)
    found = document("status", run_berth("status", "--sandbox", "--json"))
    assert (found["orphans"], found["stacks"][0]["complete"]) == ([], True)


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        pytest.param("before", 1, marks=pytest.mark.slow),
        ("within", 9),
        pytest.param("within", 22, marks=pytest.mark.slow),
    ],
)
def test_a_down_killed_at_any_moment_is_finished_by_the_next(
    run_berth: Run, world: World, moment: str, number: int
) -> None:
    world.engine().up("shared")
    killed(world, "destroy", moment, number)
    stack = document("status", run_berth("status", "--sandbox", "--json"))["stacks"][0]
    assert (stack["complete"], stack["resources"]) == (moment == "before", 22 - number + 1)
    down = document("down", run_berth("down", "shared", "--sandbox", "--yes", "--json"))
    assert (down["nothing_left"], left(world)) == (True, [])


@pytest.mark.slow
@pytest.mark.parametrize(("command", "after"), [("up", " 3/"), ("up", "18/"), ("down", " 5/"), ("down", "18/")])
def test_the_command_itself_is_killed_while_it_works(run_berth: Run, world: World, command: str, after: str) -> None:
    """The whole command, at a step that it has just told."""
    world.trial()
    if command == "down":
        document("up", run_berth("up", "trial", "--sandbox", "--yes", "--json"))
    else:
        document("up", run_berth("up", "shared", "--sandbox", "--yes", "--json"))
    process = start(world, command)
    assert process.stderr is not None
    for line in process.stderr:
        if line.strip().startswith(after.strip()):
            break
    process.kill()
    process.communicate()
    stack = next(
        s for s in document("status", run_berth("status", "--sandbox", "--json"))["stacks"] if s["name"] == "trial"
    )
    assert (stack["complete"], stack["busy"]) == (False, None)
    shown = run_berth("status", "trial", "--sandbox").out
    assert "Incomplete: a command broke off" in shown
    down = document("down", run_berth("down", "trial", "--sandbox", "--yes", "--json"))
    assert (down["nothing_left"], standing(world.aws, "trial")) == (True, [])


@pytest.mark.slow
def test_two_people_with_the_same_command_at_once(run_berth: Run, world: World) -> None:
    world.trial()
    document("up", run_berth("up", "shared", "--sandbox", "--yes", "--json"))
    first = start(world, "up")
    assert first.stderr is not None
    for line in first.stderr:
        if " made " in line:
            break
    first.send_signal(signal.SIGSTOP)  # else a quick first may be done before a slow second asks
    second = start(world, "up")
    _, said = second.communicate()
    first.send_signal(signal.SIGCONT)
    assert second.returncode == 2
    assert f"stack trial is being changed by {getpass.getuser()} on " in said
    assert f"(process {first.pid}, berth up trial) since 20" in said
    first.communicate()
    assert first.returncode == 0
    found = document("status", run_berth("status", "--sandbox", "--json"))
    assert (found["orphans"], all(s["complete"] for s in found["stacks"])) == ([], True)


def start(world: World, command: str) -> subprocess.Popen[str]:
    """`berth COMMAND trial --sandbox --yes` in a process of its own, in the project."""
    more: list[Any] = ["--no-wait"] if command == "up" else []
    return subprocess.Popen(
        [*BERTH, command, "trial", "--sandbox", "--yes", *more],
        cwd=world.project.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
