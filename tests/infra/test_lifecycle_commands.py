"""`berth up`, `status`, `extend`, `down` as a person runs them, on a local AWS and without a pulumi CLI."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from infra_projects import TRAINING
from lifecycle_sandbox import Run, World, document

from infra.durations import parse_instant
from infra.inventory import standing
from infra.lifecycle.down import names_of
from infra.lifecycle.lock import held
from infra.sandbox.listing import tagged
from infra.stack_files import read_stack


def expiry_tag(world: World, machine: str) -> str:
    found = world.aws.client("ec2").describe_instances(InstanceIds=[machine])["Reservations"][0]["Instances"][0]
    return str({t["Key"]: t["Value"] for t in found["Tags"]}["expiry"])


def test_a_stack_comes_up_is_shown_lives_longer_and_goes(run_berth: Run, world: World) -> None:
    world.trial(budget_per_month=20, feedback=True)
    before = read_stack("trial", world.project.root).path.read_text(encoding="utf-8")
    made = document("up", run_berth("up", "trial", "--sandbox", "--yes", "--json"))
    assert made["up"] is True
    assert made["engine"] == "the sandbox's walk"
    assert {c["operation"] for c in made["changes"]} == {"create"}
    assert made["bill"]["usd_per_hour"] > 0.5
    assert made["health"]["state"] == "unknown"
    assert made["address"] == made["outputs"]["url"] == "http://trial.berth.internal:8080"
    assert made["outputs"]["feedback_url"] == "http://trial.berth.internal:8081/predictions/feedback"
    assert read_stack("trial", world.project.root).path.read_text(encoding="utf-8") == before
    again = document("up", run_berth("up", "trial", "--sandbox", "--yes", "--json"))
    assert (again["changes"], again["recorded"], again["expires_at"]) == ([], {}, made["expires_at"])

    found = document("status", run_berth("status", "--sandbox", "--drift", "--json"))
    assert found["orphans"] == []
    assert {f.id for f in standing(world.aws)} >= {t.id for t in tagged(world.aws)}
    listed = {name for f in standing(world.aws, "trial") for name in (f.id, f.name)}
    unlisted = [
        r.name for r in world.engine().resources("trial") if r.inputs.get("tags") and not names_of([r]) & listed
    ]
    assert unlisted == []
    trial, shared = sorted(found["stacks"], key=lambda s: s["role"])
    assert (trial["name"], shared["name"]) == ("trial", "shared")
    assert (trial["drift"], trial["overdue"], trial["complete"]) == ([], False, True)
    machine = trial["machines"][0]
    assert (machine["type"], machine["state"]) == ("g4dn.xlarge", "running")
    assert {layer["kind"] for layer in trial["layers"]} == {"stack file", "schedule"}
    shown = run_berth("status", "--sandbox").out
    assert "g4dn.xlarge running" in shown
    assert "Orphans: none" in shown

    dear = document("extend", run_berth("extend", "trial", "--by", "2d", "--sandbox", "--yes", "--json"), code=3)
    assert "over budget_per_month (20)" in dear["over_budget"]
    assert (dear["moves"], dear["complete"]) == ([], False)
    longer = document("extend", run_berth("extend", "trial", "--by", "3h", "--sandbox", "--yes", "--json"))
    assert longer["complete"] is True
    assert [m["moved"] for m in longer["moves"]] == [True] * 6
    old, new = parse_instant(longer["from"]), parse_instant(longer["until"])
    assert (old, new - old) == (datetime.fromisoformat(made["expires_at"]), timedelta(hours=3))
    assert expiry_tag(world, machine["id"]) == longer["until"]
    schedule = world.aws.client("scheduler").list_schedules(NamePrefix="trial-expiry-at-")["Schedules"][0]
    at = world.aws.client("scheduler").get_schedule(Name=schedule["Name"])
    assert at["ScheduleExpression"] == f"at({new:%Y-%m-%dT%H:%M:%S})"
    assert at["ActionAfterCompletion"] == "DELETE"
    assert {f.expiry for f in standing(world.aws, "trial") if f.expiry} == {longer["until"]}
    after = document("up", run_berth("up", "trial", "--sandbox", "--yes", "--json"))
    assert (after["changes"], parse_instant(after["expires_at"])) == ([], new)

    kept = run_berth("down", "shared", "--sandbox", "--yes")
    assert (kept.code, kept.err) == (2, "berth: stack shared is used by trial; take that down first\n")
    gone = document("down", run_berth("down", "trial", "--sandbox", "--yes", "--json"))
    assert (gone["nothing_left"], gone["left"], gone["standing"]) == (True, [], [])
    assert gone["spent"]["usd"] >= 0
    assert any(line["item"] == "g4dn.xlarge (on-demand)" for line in gone["spent"]["lines"])
    assert standing(world.aws, "trial") == []
    nothing = run_berth("down", "trial", "--sandbox", "--yes")
    assert (nothing.code, "Nothing of trial stands" in nothing.out) == (0, True)
    down = run_berth("down", "shared", "--sandbox", "--yes")
    assert down.out.endswith("Listed by the tags project=berth, stack=shared: nothing is left.\n")
    assert standing(world.aws) == []


def test_nothing_happens_where_nobody_can_answer(run_berth: Run, world: World) -> None:
    world.trial()
    for arguments in (("up", "trial"), ("down", "trial"), ("extend", "trial", "--by", "1h")):
        ran = run_berth(*arguments, "--sandbox")
        assert (ran.code, ran.out) == (2, "")
        assert "give --yes" in ran.err
    mistyped = run_berth("extend", "trial", "--by", "2x", "--sandbox")
    assert (mistyped.code, "--by" in mistyped.err, "give --yes" in mistyped.err) == (2, True, False)
    assert standing(world.aws) == []


def test_aws_itself_needs_the_cli_and_says_how_to_get_it(run_berth: Run, world: World) -> None:
    world.trial()
    for arguments in (("up", "trial"), ("down", "trial"), ("extend", "trial", "--by", "1h")):
        ran = run_berth(*arguments, "--yes")
        assert (ran.code, ran.out) == (2, "")
        assert "https://www.pulumi.com/docs/install/" in ran.err


def test_a_policy_stops_an_up_before_anything_exists(run_berth: Run, world: World) -> None:
    world.trial(budget_per_month=1, time_to_live="30d")
    found = document("up", run_berth("up", "trial", "--sandbox", "--yes", "--json"), code=3)
    assert found["up"] is False
    assert {v["rule"] for v in found["violations"] if v["level"] == "mandatory"} == {"over-budget"}
    shown = run_berth("up", "trial", "--sandbox", "--yes")
    assert "Refused by policy" in shown.err
    assert standing(world.aws, "trial") == []
    assert "expires_at" not in read_stack("trial", world.place.project).given


@pytest.mark.slow
def test_a_training_node_goes_only_when_its_work_is_safe_or_given_up(run_berth: Run, world: World) -> None:
    world.project.write("train", {**TRAINING, "instance_type": "g4dn.xlarge", "dtype": "fp32", **_network(world)})
    document("up", run_berth("up", "train", "--sandbox", "--yes", "--json"))
    assert document("status", run_berth("status", "train", "--sandbox", "--json"))["stacks"][0]["watchdog"] == [
        "Its watchdog has not said anything yet."
    ]
    held_back = document("down", run_berth("down", "train", "--sandbox", "--yes", "--json"), code=3)
    assert held_back["work"]["may_destroy"] is False
    assert len(held_back["standing"]) == len(held_back["removed"]) == 0
    assert "--abandon" in run_berth("down", "train", "--sandbox", "--yes").err
    document("extend", run_berth("extend", "train", "--by", "2h", "--sandbox", "--yes", "--json"))
    after = document("up", run_berth("up", "train", "--sandbox", "--yes", "--json"))
    assert after["changes"] == []
    gone = document("down", run_berth("down", "train", "--sandbox", "--yes", "--abandon", "--json"))
    assert (gone["work"]["kind"], gone["nothing_left"]) == ("abandoned", True)


def _network(world: World) -> dict[str, object]:
    world.trial("net")
    given = read_stack("net", world.project.root).given
    return {"vpc_id": given["vpc_id"], "subnet_ids": given["subnet_ids"], "zones": ["use1-az1"]}


def test_orphans_come_with_their_removal_and_drift_names_what_is_gone(run_berth: Run, world: World) -> None:
    document("up", run_berth("up", "shared", "--sandbox", "--yes", "--json"))
    machine = world.machine("old")
    world.aws.client("ecr").delete_repository(repositoryName="berth/shared")
    found = document("status", run_berth("status", "--sandbox", "--drift", "--json"))
    assert [(o["id"], o["stack"]) for o in found["orphans"]] == [(machine, "old")]
    where = f"--region us-east-1 --endpoint-url {world.local.endpoint}"
    assert found["orphans"][0]["commands"] == [f"aws ec2 terminate-instances --instance-ids {machine} {where}"]
    gone = [(d["kind"], d["name"]) for d in found["stacks"][0]["drift"]]
    assert gone == [("gone", "shared-images"), ("gone", "shared-images-lifecycle")]
    shown = run_berth("status", "--sandbox", "--drift").out
    assert f"aws ec2 terminate-instances --instance-ids {machine}" in shown
    assert "Drift: shared-images (berth/shared) gone" in shown


def test_a_second_command_at_once_is_told_who_is_at_work(run_berth: Run, world: World) -> None:
    world.trial()
    with held(world.folder, "trial", "berth up trial"):
        ran = run_berth("up", "trial", "--sandbox", "--yes", "--no-wait")
    assert ran.code == 2
    assert "stack shared is being changed by" in ran.err
    assert "berth up trial) since 20" in ran.err
    assert standing(world.aws) == []


def test_status_of_a_sandbox_that_does_not_run(run_berth: Run, world: World) -> None:
    (world.folder / "server.json").unlink()
    world.trial()
    found = document("status", run_berth("status", "--sandbox", "--json"))
    assert (found["stacks"], found["down"]) == ([], ["shared", "trial"])
    ran = run_berth("down", "trial", "--sandbox", "--yes")
    assert (ran.code, "the sandbox does not run" in ran.err) == (2, True)
