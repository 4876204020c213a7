"""What machines call and what their roles allow are the same: every call of the runtime and of the host's scripts."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from infra_projects import INFERENCE, TRAINING, Project

from infra.places import feedback_prefix
from infra.plan import Plan
from infra.sandbox.node_boot import environment_of
from infra.stack_files import ROOT
from model_runtime.feedback.journal import place_of

S3_CALLS: dict[str, set[str]] = {
    "get_object": {"s3:GetObject"},
    "head_object": {"s3:GetObject"},
    "download_file": {"s3:GetObject"},
    "list_objects_v2": {"s3:ListBucket"},
    "put_object": {"s3:PutObject"},
    # Large files go up in parts, which a failed upload gives up (boto3's S3 transfer).
    "upload_file": {"s3:PutObject", "s3:AbortMultipartUpload"},
    "delete_object": {"s3:DeleteObject"},
    "delete_objects": {"s3:DeleteObject"},
}
"""boto3's method -> actions (Amazon S3 user guide, "Required permissions for Amazon S3 API operations")."""
SHELL_CALLS: dict[str, set[str]] = {
    "aws s3 sync": {"s3:ListBucket", "s3:GetObject"},
    "aws s3 cp": {"s3:PutObject", "s3:AbortMultipartUpload"},
    "aws cloudwatch put-metric-data": {"cloudwatch:PutMetricData"},
    "aws ecr get-login-password": {"ecr:GetAuthorizationToken"},
    "docker pull": {"ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer", "ecr:BatchCheckLayerAvailability"},
    "aws elbv2 deregister-targets": {"elasticloadbalancing:DeregisterTargets"},
    "aws autoscaling complete-lifecycle-action": {"autoscaling:CompleteLifecycleAction"},
}
AGENT = {"cloudwatch:PutMetricData", "logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"}
"""CloudWatch's agent: metrics, and logs in groups that exist (AWS's CloudWatchAgentServerPolicy, without what it does
not do here); with the name of an auto scaling group among its dimensions it reads tags."""
OF_KEYS = {"s3:GetObject": {"kms:Decrypt"}, "s3:PutObject": {"kms:GenerateDataKey"}}
"""What S3 asks of the caller for objects encrypted with a key of KMS."""
SERVING = ("handler", "feedback", "fetch.py")
"""Of model_runtime: what runs on a host that serves."""
TRAINING_ONLY = ("training", "watch", "data", "artifacts.py", "fetch.py")
"""Of model_runtime: what runs on a training node."""
ELSEWHERE = {"invoke_endpoint_with_response_stream"}
"""Called by a person's machine alone."""


def boto_calls(file: Path) -> Iterator[str]:
    """Methods called on anything whose name ends in client, and the operations of paginators."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        owner = node.func.value
        name = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
        if not name.lower().endswith("client"):
            continue
        if node.func.attr == "get_paginator":
            yield str(node.args[0].value)  # type: ignore[attr-defined]
        else:
            yield node.func.attr


def runtime_calls(parts: tuple[str, ...]) -> set[str]:
    root = ROOT / "model_runtime"
    files = [f for part in parts for f in ([root / part] if part.endswith(".py") else (root / part).rglob("*.py"))]
    return {call for file in files for call in boto_calls(file)}


def shell_calls(script: str) -> set[str]:
    flat = script.replace('", "', " ").replace('["aws', "aws")
    return {call for call in SHELL_CALLS if re.search(rf"\b{re.escape(call)}\b", flat)}


def needed(calls: set[str], script: str, grouped: bool) -> set[str]:
    actions = set(AGENT) | ({"ec2:DescribeTags"} if grouped else set())
    for call in calls:
        actions |= S3_CALLS[call]
    for call in shell_calls(script):
        actions |= SHELL_CALLS[call]
    return actions | {key for action in actions for key in OF_KEYS.get(action, ())}


def allowed(plan: Plan) -> dict[str, set[str]]:
    """Action -> resources, of the role of the stack's machines."""
    document = json.loads(next(r for r in plan.resources if r.name == f"{plan.stack}-identity-policy").inputs["policy"])
    found: dict[str, set[str]] = {}
    for statement in document["Statement"]:
        for action in statement["Action"]:
            found.setdefault(action, set()).update(statement["Resource"])
    return found


def script_of(plan: Plan) -> str:
    import base64

    for template in plan.of_type("aws:ec2/launchTemplate:LaunchTemplate"):
        return base64.b64decode(template.inputs["userData"]).decode()
    return str(plan.of_type("aws:ec2/instance:Instance")[0].inputs["userData"])


def test_every_call_of_the_runtime_is_known() -> None:
    everywhere = {call for file in (ROOT / "model_runtime").rglob("*.py") for call in boto_calls(file)}
    calls = {c for c in everywhere if "_" in c}
    assert calls - set(S3_CALLS) <= ELSEWHERE, (
        "a call without its permission: add it here, and to the role that needs it"
    )
    assert {"upload_file", "delete_objects", "list_objects_v2", "put_object"} <= calls


@pytest.mark.parametrize(
    ("values", "parts", "grouped"),
    [
        pytest.param(TRAINING, TRAINING_ONLY, False, id="training"),
        pytest.param(INFERENCE, SERVING, False, id="host"),
        pytest.param({**INFERENCE, "feedback": True}, SERVING, False, id="host with feedback"),
        pytest.param({**INFERENCE, "replicas": 2}, SERVING, True, id="group"),
    ],
)
def test_a_role_allows_what_its_machines_call_and_nothing_else(
    project: Project, values: dict[str, object], parts: tuple[str, ...], grouped: bool
) -> None:
    plan = project.plan(values)
    calls = {c for c in runtime_calls(parts) if c in S3_CALLS}
    assert set(allowed(plan)) == needed(calls, _called(script_of(plan), grouped), grouped)


def _called(script: str, grouped: bool) -> str:
    """A host without a group has the same script, in which the calls of a group stand behind empty settings."""
    return script if grouped else re.sub(r"aws (elbv2|autoscaling) [a-z-]+", "", script)


def test_a_node_deletes_its_own_checkpoints_and_nothing_else(project: Project, plan_of: Callable[[str], Plan]) -> None:
    plan = project.plan(TRAINING)
    own = "arn:aws:s3:::berth-111122223333-us-east-1-artifacts/output/trial/checkpoints/*"
    assert allowed(plan)["s3:DeleteObject"] == {own}
    endpoint = next(r for r in plan.of_type("aws:ec2/vpcEndpoint:VpcEndpoint") if r.name.endswith("-s3"))
    deletes = [s for s in json.loads(endpoint.inputs["policy"])["Statement"] if "s3:DeleteObject" in s["Action"]]
    assert [s["Resource"] for s in deletes] == [[own]], "the way to S3 lets the same through"
    for name in ("inference-dev", "inference-prod", "endpoint-prod"):
        assert "s3:DeleteObject" not in json.dumps([r.inputs for r in plan_of(name).resources])


def test_what_a_node_writes_lies_below_its_own_prefix(project: Project) -> None:
    from model_runtime.watch.status import EVENTS, STATUS

    writes = allowed(project.plan(TRAINING))["s3:PutObject"]
    assert writes == {"arn:aws:s3:::berth-111122223333-us-east-1-artifacts/output/trial/*"}
    assert not STATUS.startswith("/") and not EVENTS.startswith("/"), "relative to the run's prefix"


def test_feedback_goes_below_the_prefix_that_its_host_may_write_and_berth_feedback_reads(project: Project) -> None:
    plan = project.plan({**INFERENCE, "feedback": True})
    values, _ = environment_of(script_of(plan))
    place = place_of(None, values)
    assert place == f"s3://{values['BERTH_BUCKET']}/{feedback_prefix('trial')}"
    writes = allowed(plan)["s3:PutObject"]
    assert [w for w in writes if f"arn:aws:s3:::{place.removeprefix('s3://')}/x".startswith(w.removesuffix("*"))]
    assert place_of("s3://own/place", values) == "s3://own/place"
    assert place_of(None, {}) == ""


def test_a_group_without_the_internet_reaches_what_its_hosts_call(project: Project) -> None:
    plan = project.plan({**INFERENCE, "replicas": 2, "egress": "endpoints"})
    reached = {r.inputs["serviceName"].rsplit(".", 1)[-1] for r in plan.of_type("aws:ec2/vpcEndpoint:VpcEndpoint")}
    called = {action.split(":")[0] for action in allowed(plan)}
    names = {"cloudwatch": "monitoring", "ecr": "api", "kms": "s3"}
    assert {names.get(service, service) for service in called} <= reached
