"""The sandbox's stand-in for a training node: what it fetches is checked, its expiry moves, it ends when it must."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from infra_projects import committed

from infra.lifecycle.follow import Follower
from infra.lifecycle.train_run import Desk, Run
from infra.sandbox import server
from infra.sandbox.aws import Aws
from infra.sandbox.node import Machine, NodeConfig
from infra.sandbox.node_boot import SetUpError, boot, environment_of
from infra.sandbox.node_logs import Shipper
from infra.sandbox.node_metadata import SPOT_FILE, serve
from infra.sandbox.node_schedule import fire_due
from model_runtime.artifacts import upload
from model_runtime.manifest import NAME, sha256_of, write_manifest
from model_runtime.training.settings import FinetuneSettings
from model_runtime.watch.metadata import Imds

BUCKET, IMAGE = "bucket-of-a-node", "ami-12c6146b"
PREFIXES = {"BERTH_BUNDLE": "bundles/x", "BERTH_ARTIFACT": "models/x", "BERTH_DATASET": "datasets/x"}


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    folder = tmp_path_factory.mktemp("sandbox")
    with server.locked(folder):
        found = server.start(folder)
    made = Aws(found.endpoint, "us-east-1")
    made.client("s3").create_bucket(Bucket=BUCKET)
    yield made
    server.stop(folder)


def machine(aws: Aws, script: str = "") -> str:
    tags = [{"Key": "expiry", "Value": "2026-11-24T12:00:00Z"}]
    made = aws.client("ec2").run_instances(
        ImageId=IMAGE, InstanceType="t3.micro", MinCount=1, MaxCount=1, UserData=script,
        TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
    )  # fmt: skip
    return str(made["Instances"][0]["InstanceId"])


def state(aws: Aws, instance: str) -> str:
    found = aws.client("ec2").describe_instances(InstanceIds=[instance])["Reservations"]
    return str(found[0]["Instances"][0]["State"]["Name"])


def put(aws: Aws, folder: Path, prefix: str, files: dict[str, str]) -> str:
    """Files under a prefix with their manifest, whose SHA-256 is returned."""
    place = folder / prefix
    place.mkdir(parents=True)
    for name, text in files.items():
        (place / name).write_text(text, encoding="utf-8")
    write_manifest(place)
    upload(place, f"s3://{BUCKET}/{prefix}", client=aws.client("s3"))
    return sha256_of(place / NAME)


@pytest.fixture
def environment(aws: Aws, tmp_path: Path) -> dict[str, str]:
    settings = FinetuneSettings(
        model="m", data="d", output="o", plan="plan", method="qlora", processes=8, micro_batch_size=64, epochs=9.0
    )
    files = {
        "BERTH_BUNDLE": {"finetune.json": json.dumps(settings.to_json())},
        "BERTH_ARTIFACT": {"config.json": "{}"},
        "BERTH_DATASET": {"train.jsonl": '{"input": "a", "target": "b"}\n'},
    }
    sums = {key: put(aws, tmp_path / "sent", PREFIXES[key], files[key]) for key in PREFIXES}
    return {"BERTH_BUCKET": BUCKET, **PREFIXES, "BERTH_BUNDLE_SHA256": sums["BERTH_BUNDLE"]}


def test_the_environment_is_the_one_that_the_stack_s_own_script_sets_up() -> None:
    script = next(
        r.inputs["userData"] for r in committed("training").resources if r.type == "aws:ec2/instance:Instance"
    )
    found, group = environment_of(script)
    assert found["BERTH_STACK"] == "training" and found["BERTH_OUTPUT"] == "output/training"
    assert found["BERTH_DATASET"] == "datasets/support-tickets" and group == "/berth/training"
    with pytest.raises(SetUpError, match="no environment"):
        environment_of("#!/bin/bash\n")


def test_the_run_is_placed_in_the_node_s_folder_and_cut_for_a_cpu(
    aws: Aws, environment: dict[str, str], tmp_path: Path
) -> None:
    said: list[str] = []
    booted = boot(tmp_path / "node", environment, "", aws.client("s3"), said.append)
    placed = FinetuneSettings(**{**json.loads(booted.settings.read_text()), "lora_targets": ()})
    assert Path(placed.data, "train.jsonl").is_file() and placed.model == str(tmp_path / "node" / "model")
    assert (placed.plan, placed.method, placed.processes, placed.device) == ("", "lora", 1, "cpu")
    assert any("the stand-in trains on the CPU" in line and "plan" in line for line in said)


@pytest.mark.parametrize("what", ["another manifest than the stack names", "an altered file", "nothing there"])
def test_what_is_not_as_the_stack_says_is_not_run(
    aws: Aws, environment: dict[str, str], tmp_path: Path, what: str
) -> None:
    s3 = aws.client("s3")
    if what == "another manifest than the stack names":
        environment["BERTH_BUNDLE_SHA256"] = "0" * 64
    elif what == "an altered file":
        s3.put_object(Bucket=BUCKET, Key="models/x/config.json", Body=b"[]")
    else:
        environment["BERTH_DATASET"] = "datasets/none"
    with pytest.raises(SetUpError):
        boot(tmp_path / "node", environment, "", s3, lambda _: None)


def test_a_set_up_that_fails_ends_the_machine_and_leaves_its_log(
    aws: Aws, environment: dict[str, str], tmp_path: Path
) -> None:
    environment |= {"BERTH_OUTPUT": "output/x", "BERTH_BUNDLE_SHA256": "0" * 64}
    lines = "\n".join(f"{key}={value}" for key, value in environment.items())
    instance = machine(aws, f"cat > /etc/berth/env <<'BERTH_ENV'\n{lines}\nBERTH_ENV\n")
    folder = tmp_path / "node"
    folder.mkdir()
    (folder / "berth.log").write_text("the set-up failed\n")
    assert not Machine(folder, NodeConfig(aws.endpoint, aws.region, instance), aws=aws).boot()
    assert state(aws, instance) == "terminated"
    key = f"output/x/logs/{instance}/berth.log"
    assert aws.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read() == b"the set-up failed\n"


def test_a_terminated_instance_switches_its_stand_in_off(aws: Aws, tmp_path: Path) -> None:
    instance = machine(aws)
    node = Machine(tmp_path, NodeConfig(aws.endpoint, aws.region, instance), aws=aws)
    node._watchdog_since = float("inf")  # nothing is booted here, so there is no watchdog to keep alive
    assert node.tick()
    aws.client("ec2").terminate_instances(InstanceIds=[instance])
    assert not node.tick()


def test_the_dead_man_s_switch_ends_a_machine_whose_watchdog_does_not(aws: Aws, tmp_path: Path) -> None:
    instance, moment = machine(aws), [datetime(2026, 11, 24, 12, 7, tzinfo=UTC)]
    node = Machine(tmp_path, NodeConfig(aws.endpoint, aws.region, instance), aws=aws, clock=lambda: moment[0])
    node._expires, node._watchdog_since = datetime(2026, 11, 24, 12, 0, tzinfo=UTC), float("inf")
    node.tick()
    assert state(aws, instance) == "running"
    moment[0] += timedelta(minutes=2)
    node.tick()
    assert state(aws, instance) == "terminated"


def test_the_watchdog_hears_of_a_moved_expiry_and_of_a_spot_notice(aws: Aws, tmp_path: Path) -> None:
    instance = machine(aws)
    service, base = serve(aws.client("ec2"), instance, tmp_path)
    try:
        asked = Imds(base)
        assert asked.expiry() == "2026-11-24T12:00:00Z" and asked.spot_notice() == "" and asked.rebalance() == ""
        tag = {"Key": "expiry", "Value": "2026-11-24T14:00:00Z"}
        aws.client("ec2").create_tags(Resources=[instance], Tags=[tag])
        (tmp_path / SPOT_FILE).write_text('{"action": "terminate", "time": "2026-11-24T08:22:00Z"}')
        assert asked.expiry() == "2026-11-24T14:00:00Z" and asked.spot_notice() == "2026-11-24T08:22:00Z"
    finally:
        service.shutdown()
        service.server_close()


def schedule(aws: Aws, name: str, at: str, target: str, given: dict[str, Any]) -> None:
    aws.client("scheduler").create_schedule(
        Name=name, ScheduleExpression=at, FlexibleTimeWindow={"Mode": "OFF"}, ActionAfterCompletion="DELETE",
        Target={"Arn": target, "RoleArn": "arn:aws:iam::123456789012:role/x", "Input": json.dumps(given)},
    )  # fmt: skip


def test_a_schedule_does_at_its_moment_what_it_says_once(aws: Aws) -> None:
    instance, call = machine(aws), "arn:aws:scheduler:::aws-sdk:ec2:terminateInstances"
    schedule(aws, "end", "at(2026-11-24T12:09:00)", call, {"InstanceIds": [instance]})
    schedule(aws, "office", "cron(0 8 ? * MON-FRI *)", call, {"InstanceIds": [instance]})
    before = datetime(2026, 11, 24, 12, 8, 59, tzinfo=UTC)
    assert fire_due(aws, before) == [] and state(aws, instance) == "running"
    fired = fire_due(aws, before + timedelta(seconds=1))
    assert [(f.name, f.problem) for f in fired] == [("end", "")] and state(aws, instance) == "terminated"
    assert fire_due(aws, before + timedelta(days=1)) == []


def test_a_schedule_whose_call_fails_is_tried_again(aws: Aws) -> None:
    call = "arn:aws:scheduler:::aws-sdk:ec2:terminateInstances"
    schedule(aws, "wrong", "at(2026-11-24T12:09:00)", call, {"InstanceIds": ["i-0123456789abcdef0"]})
    late = datetime(2026, 11, 25, tzinfo=UTC)
    for _ in range(2):
        assert "i-0123456789abcdef0" in fire_due(aws, late)[0].problem
    aws.client("scheduler").delete_schedule(Name="wrong")


def test_new_lines_of_a_log_arrive_once(aws: Aws, tmp_path: Path) -> None:
    logs, file = aws.client("logs"), tmp_path / "train.log"
    logs.create_log_group(logGroupName="/berth/node")
    shipper = Shipper(logs, "/berth/node", "training/i-1/service", file)
    shipper.ship()  # there is no file yet
    file.write_text("one\ntwo\nhal")
    shipper.ship()
    with file.open("a") as more:
        more.write("f\n")
    shipper.ship()
    shipper.ship()
    found = logs.get_log_events(logGroupName="/berth/node", logStreamName="training/i-1/service", startFromHead=True)
    assert [event["message"] for event in found["events"]] == ["one", "two", "half"]


def test_a_follower_reads_the_newest_lines_first_and_then_each_once(aws: Aws) -> None:
    logs, instance = aws.client("logs"), machine(aws)
    stream = {"logGroupName": "/berth/follow", "logStreamName": f"tuning/{instance}/service"}
    logs.create_log_group(logGroupName="/berth/follow")
    outputs = {"instances": [instance], "artifacts": f"s3://{BUCKET}/output/none", "expires_at": "never"}
    moment = datetime(2026, 11, 24, tzinfo=UTC)
    engine: Any = None
    desk = Desk(engine, aws, Path(), lambda: moment, lambda _: None, lambda _: None)
    follower = Follower(Run("tuning", outputs), desk, "/berth/follow")
    assert follower.look().log == (), "there is no stream yet"
    logs.create_log_stream(**stream)

    begun = int(datetime.now(tz=UTC).timestamp() * 1000)
    stamps = itertools.count(begun)  # CloudWatch orders by these, so that none may come before an earlier line's

    def say(count: int, word: str) -> None:
        events = [{"timestamp": next(stamps), "message": f"{word} {i}"} for i in range(count)]
        logs.put_log_events(**stream, logEvents=events)

    say(80, "old")
    first = follower.look()
    assert first.log[-1] == "old 79" and len(first.log) == 50
    assert first.status is None and first.usd is None and first.artifact_at is None
    say(2, "new")
    assert follower.look().log == ("new 0", "new 1")
    assert follower.look().log == ()
