"""The offline plan: every committed stack as reviewed text, the engine's own entry, what the programs must never do."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pulumi
import pytest
from infra_projects import ENDPOINT, INFERENCE, MOMENT, STACKS, TRAINING, Project, committed
from pulumi.runtime import config as pulumi_config

from infra.bill.pricers import FREE, PRICERS
from infra.host.user_data import LIMIT_BYTES
from infra.plan import Plan, PlannedResource, from_preview, plan_stack, record_program
from infra.stack_files import ROOT, config_declarations
from infra.uploads.content import HOST_JOURNAL
from model_runtime.handler.bundle import FEEDBACK
from scripts.golden_plans import golden_files, golden_text
from sizing.errors import UserError

INSTANCE = "aws:ec2/instance:Instance"


def one(plan: Plan, type_: str) -> PlannedResource:
    found = plan.of_type(type_)
    assert len(found) == 1, [r.name for r in found]
    return found[0]


@pytest.mark.parametrize("path", golden_files(), ids=lambda path: path.name)
def test_the_plan_of_a_committed_stack_is_the_reviewed_one(path: Path) -> None:
    text = golden_text(path, committed)
    assert path.read_text(encoding="utf-8") == text, "read the difference, then run `make golden`"


def test_no_golden_file_is_left_of_a_stack_that_is_gone() -> None:
    folder = ROOT / "tests" / "infra" / "golden"
    assert {p.name for p in folder.iterdir()} == {p.name for p in golden_files()}


@pytest.mark.parametrize("name", STACKS)
def test_every_resource_of_a_stack_has_a_pricer_or_is_known_to_be_free(name: str) -> None:
    types = {r.type for r in committed(name).resources if r.type.startswith("aws:")}
    assert types - set(PRICERS) - set(FREE) == set()
    assert set(PRICERS) & set(FREE) == set()


@pytest.mark.parametrize("name", STACKS)
def test_components_have_children_and_every_parent_is_there(name: str) -> None:
    plan = committed(name)
    urns = {r.urn for r in plan.resources}
    parents = {r.parent for r in plan.resources if r.parent}
    assert parents <= urns
    components = {r.urn for r in plan.resources if not r.custom and r.type.startswith("berth:")}
    assert components <= parents, "a component without resources"
    assert all(r.parent for r in plan.resources if r.custom and r.type.startswith("aws:")), "outside any component"


@pytest.mark.parametrize("name", STACKS)
def test_nothing_in_a_plan_is_left_unknown(name: str) -> None:
    assert "04da6b54" not in json.dumps([r.to_json() for r in committed(name).resources])


def test_the_shared_stack_is_protected_where_it_keeps_something() -> None:
    kept = {r.type.split(":")[-1] for r in committed("shared").resources if r.options.get("protect")}
    assert kept == {"Bucket", "Key", "Repository", "LogGroup"}
    assert all(r.options.get("retain_on_delete") for r in committed("shared").resources if r.options.get("protect"))


@pytest.mark.parametrize("name", ["inference-dev", "inference-prod", "sandbox", "training"])
def test_hosts_have_no_keys_no_ssh_and_no_public_address(name: str) -> None:
    plan = committed(name)
    for machine in [*plan.of_type(INSTANCE), *plan.of_type("aws:ec2/launchTemplate:LaunchTemplate")]:
        assert "keyName" not in machine.inputs
        assert machine.inputs["metadataOptions"]["httpPutResponseHopLimit"] == 2
        public = machine.inputs.get("associatePublicIpAddress", False)
        assert public is False
    ports = [
        r.inputs.get("fromPort") for r in plan.of_type("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule")
    ]
    assert 22 not in ports
    assert plan.of_type("aws:iam/user:User") == plan.of_type("aws:iam/accessKey:AccessKey") == []


@pytest.mark.parametrize("name", ["inference-dev", "inference-prod", "sandbox", "training"])
def test_user_data_is_a_script_that_fits_parses_and_installs_nothing(name: str, tmp_path: Path) -> None:
    import base64

    plan = committed(name)
    scripts = [str(m.inputs["userData"]) for m in plan.of_type(INSTANCE)]
    scripts += [
        base64.b64decode(t.inputs["userData"]).decode() for t in plan.of_type("aws:ec2/launchTemplate:LaunchTemplate")
    ]
    assert scripts
    for script in scripts:
        assert len(script.encode()) <= LIMIT_BYTES
        path = tmp_path / "user-data.sh"
        path.write_text(script, encoding="utf-8")
        parsed = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True, check=False)
        assert parsed.returncode == 0, parsed.stderr
        for word in (
            "apt-get",
            "apt ",
            "yum ",
            "dnf ",
            "pip install",
            "curl -L",
            "wget",
            "git clone",
            "@ENV@",
            "@FETCH@",
        ):
            assert word not in script, word
        addresses = {part.split("/")[2] for part in script.split() if part.startswith(("http://", "https://"))}
        assert addresses <= {"169.254.169.254", "127.0.0.1:8080"}, addresses


def test_a_host_that_was_stopped_fetches_again_what_its_own_disks_have_lost() -> None:
    script = str(committed("inference-dev").of_type(INSTANCE)[0].inputs["userData"])
    prepare = script.split("<<'BERTH_PREPARE'\n")[1].split("\nBERTH_PREPARE\n", maxsplit=1)[0]
    assert prepare.count("fetch.py") == 2 and "/opt/dlami/nvme/berth" in prepare
    assert "systemctl enable berth-prepare" in script
    unit = script.split("<<'BERTH_UNIT'\n")[1].split("\nBERTH_UNIT\n", maxsplit=1)[0]
    assert "Requires=docker.service berth-prepare.service" in unit


@pytest.mark.parametrize("role", ["inference", "endpoint", "training"])
def test_names_of_the_longest_stack_name_fit(project: Project, role: str) -> None:
    values = {"inference": {**INFERENCE, "replicas": 2}, "endpoint": ENDPOINT, "training": TRAINING}[role]
    plan = project.plan({**values, "time_to_live": "2d"}, name="x" * 36)
    suffix = 8
    limits = {"Role": 64, "InstanceProfile": 128, "LoadBalancer": 32, "TargetGroup": 32, "Schedule": 64, "Model": 63}
    for resource in plan.resources:
        limit = limits.get(resource.type.rsplit(":", 1)[-1])
        if limit is not None and "name" not in resource.inputs and resource.type.startswith("aws:"):
            assert len(resource.name) + suffix <= limit, resource.name


def test_the_embedded_fetcher_is_python_that_compiles() -> None:
    script = str(committed("inference-dev").of_type(INSTANCE)[0].inputs["userData"])
    body = script.split("<<'BERTH_FETCH'\n")[1].split("\nBERTH_FETCH\n", maxsplit=1)[0]
    compile(body, "fetch.py", "exec")
    assert "digest(path) != entry" in body


def test_one_host_stands_behind_a_name_and_follows_office_hours() -> None:
    plan = committed("inference-dev")
    machine = one(plan, INSTANCE)
    assert machine.options["ignore_changes"] == ["ami"]
    assert machine.options["custom_timeouts"] == {"create": "10m"}
    assert plan.outputs["url"] == "http://inference-dev.berth.internal:8080"
    calls = {s.inputs["target"]["arn"].rsplit(":", 1)[-1] for s in plan.of_type("aws:scheduler/schedule:Schedule")}
    assert calls == {"startInstances", "stopInstances"}


def test_a_host_that_takes_feedback_has_a_second_server_without_a_gpu_at_a_port_of_its_own(project: Project) -> None:
    plan, off = project.plan({**INFERENCE, "feedback": True}), project.plan(INFERENCE)
    assert plan.outputs["feedback_url"] == "http://trial.berth.internal:8081/predictions/feedback"
    assert "feedback_url" not in off.outputs
    rules = {
        (r.inputs["fromPort"], r.inputs["toPort"], r.inputs["cidrIpv4"])
        for r in plan.of_type("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule")
        if "cidrIpv4" in r.inputs and r.inputs["securityGroupId"] == "trial-host-group-id"
    }
    assert rules == {(8080, 8080, "10.42.0.0/16"), (8081, 8081, "10.42.0.0/16")}
    assert {r.name for r in plan.resources} - {r.name for r in off.resources} == {"trial-host-feedback-0"}
    script, silent = (str(one(p, INSTANCE).inputs["userData"]) for p in (plan, off))
    assert "8081" not in silent and "berth-feedback" not in silent
    unit = script.split("<<'BERTH_FEEDBACK'\n")[1].split("\nBERTH_FEEDBACK\n", maxsplit=1)[0]
    started = next(line for line in unit.splitlines() if line.startswith("ExecStart="))
    assert "--publish 8081:8080" in started and "--gpus" not in started
    for hardened in ("--memory 2g", "--memory-swap 2g", "--pids-limit", "--security-opt no-new-privileges", "readonly"):
        assert hardened in started
    # The journal lies on the root volume: the instance's own disks are empty after a stop.
    assert f"--volume {HOST_JOURNAL}:{HOST_JOURNAL} " in started and "/opt/berth/data" not in started
    assert f"src=/opt/berth/bundle/{FEEDBACK},dst=/opt/ml/model/feedback" in started
    assert "Restart=always" in unit and "systemctl enable --now berth-feedback" in script
    limits = [int(s.split("--memory ")[1].split("g", maxsplit=1)[0]) for s in (silent, script)]
    assert limits[0] - limits[1] == 2, "what the second server takes, the first leaves"


@pytest.mark.parametrize("name", ["inference-dev", "inference-prod", "training"])
def test_machines_start_after_their_way_out_and_their_permissions(name: str) -> None:
    """User data runs once: a host that boots before its NAT route or its policy would never be ready."""
    plan = committed(name)
    starters = [*plan.of_type(INSTANCE), *plan.of_type("aws:autoscaling/group:Group")]
    for machine in starters:
        after = {urn.rsplit("::", 1)[-1] for urn in machine.options["depends_on"]}
        assert {f"{name}-network-private-default", f"{name}-network-s3", f"{name}-identity-policy"} <= after


def test_an_endpoint_writes_the_log_group_that_sagemaker_names() -> None:
    plan = committed("endpoint-prod")
    policy = json.loads(next(r for r in plan.resources if r.name == "endpoint-prod-identity-policy").inputs["policy"])
    logs = next(s for s in policy["Statement"] if s["Sid"] == "Logs")
    group = "/aws/sagemaker/Endpoints/berth-endpoint-prod"
    assert logs["Resource"] == [f"arn:aws:logs:us-east-1:111122223333:log-group:{group}:log-stream:*"]
    assert group in {r.inputs["name"] for r in plan.of_type("aws:cloudwatch/logGroup:LogGroup")}


def test_several_hosts_scale_behind_a_load_balancer_that_checks_them() -> None:
    plan = committed("inference-prod")
    group = one(plan, "aws:autoscaling/group:Group")
    assert (group.inputs["minSize"], group.inputs["maxSize"]) == (2, 4)
    assert group.inputs["healthCheckType"] == "ELB"
    assert one(plan, "aws:lb/loadBalancer:LoadBalancer").inputs["internal"] is True
    assert one(plan, "aws:lb/targetGroup:TargetGroup").inputs["healthCheck"]["path"] == "/ping"
    policy = one(plan, "aws:autoscaling/policy:Policy").inputs["targetTrackingConfiguration"]
    assert policy["customizedMetricSpecification"]["metricName"] == "nvidia_smi_utilization_gpu"


def test_callers_from_the_internet_get_https_and_public_subnets(project: Project) -> None:
    arn = "arn:aws:acm:us-east-1:111122223333:certificate/x"
    plan = project.plan({**INFERENCE, "callers": ["203.0.113.0/24"], "certificate_arn": arn})
    assert one(plan, "aws:lb/loadBalancer:LoadBalancer").inputs["internal"] is False
    listener = one(plan, "aws:lb/listener:Listener").inputs
    assert (listener["port"], listener["protocol"]) == (443, "HTTPS")
    blocks = [
        r.inputs.get("cidrIpv4")
        for r in plan.of_type("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule")
        if r.inputs.get("cidrIpv4")
    ]
    assert blocks == ["203.0.113.0/24"], "hosts themselves are reached through the load balancer only"


def test_spot_hosts_drain_and_come_back_through_the_group(project: Project) -> None:
    plan = project.plan({**INFERENCE, "purchase": "spot", "replicas": 2})
    template = one(plan, "aws:ec2/launchTemplate:LaunchTemplate")
    assert template.inputs["instanceMarketOptions"] == {"marketType": "spot"}
    assert one(plan, "aws:autoscaling/group:Group").inputs["capacityRebalance"] is True
    single = project.plan({**INFERENCE, "purchase": "spot"})
    machine = one(single, INSTANCE)
    assert machine.inputs["instanceMarketOptions"]["spotOptions"]["spotInstanceType"] == "one-time"
    assert "BERTH_SPOT=yes" in machine.inputs["userData"]


def test_an_existing_network_is_used_and_nothing_is_built_in_it(project: Project) -> None:
    plan = project.plan({**INFERENCE, "vpc_id": "vpc-0a1b2c3d", "subnet_ids": ["subnet-1", "subnet-2"]})
    assert not plan.of_type("aws:ec2/vpc:Vpc") and not plan.of_type("aws:ec2/natGateway:NatGateway")
    assert one(plan, INSTANCE).inputs["subnetId"] == "subnet-1"


def test_egress_goes_the_cheaper_way_unless_a_way_is_asked_for(project: Project) -> None:
    assert len(project.plan(INFERENCE).of_type("aws:ec2/natGateway:NatGateway")) == 1
    closed = project.plan({**INFERENCE, "egress": "endpoints"})
    services = {r.inputs["serviceName"].rsplit(".", 1)[-1] for r in closed.of_type("aws:ec2/vpcEndpoint:VpcEndpoint")}
    assert services == {"s3", "api", "dkr", "logs", "monitoring", "ssm", "ssmmessages", "ec2messages"}
    assert not closed.of_type("aws:ec2/natGateway:NatGateway")
    assert not closed.of_type("aws:ec2/internetGateway:InternetGateway")


def test_an_expiry_ends_what_carries_the_stack_s_tag_and_nothing_else() -> None:
    plan = committed("training")
    schedule = next(s for s in plan.of_type("aws:scheduler/schedule:Schedule"))
    assert schedule.inputs["scheduleExpression"] == "at(2026-11-25T12:09:00)"
    assert schedule.inputs["target"]["arn"].endswith("ec2:terminateInstances")
    assert json.loads(schedule.inputs["target"]["input"]) == {"InstanceIds": ["training-node-0-id"]}
    policy = json.loads(next(r for r in plan.resources if r.name == "training-expiry-policy").inputs["policy"])
    assert policy["Statement"][0]["Action"] == ["ec2:TerminateInstances"]
    assert policy["Statement"][0]["Condition"] == {"StringEquals": {"aws:ResourceTag/stack": "training"}}
    machine = one(plan, INSTANCE)
    assert machine.inputs["instanceInitiatedShutdownBehavior"] == "terminate"
    assert "BERTH_EXPIRES_AT=2026-11-25T12:00:00Z" in machine.inputs["userData"], "what its watchdog goes by"
    assert "2026-11-25 12:08:00 UTC" in machine.inputs["userData"], "its dead man's switch"


def test_an_expiring_group_is_deleted_whole(project: Project) -> None:
    plan = project.plan({**INFERENCE, "replicas": 2, "time_to_live": "2d"})
    schedule = next(s for s in plan.of_type("aws:scheduler/schedule:Schedule"))
    assert json.loads(schedule.inputs["target"]["input"]) == {
        "AutoScalingGroupName": "berth-trial",
        "ForceDelete": True,
    }


def test_several_training_nodes_share_efa_a_placement_group_and_a_name(project: Project) -> None:
    plan = project.plan({**TRAINING, "nodes": 2})
    assert len(plan.of_type(INSTANCE)) == 2
    assert one(plan, "aws:ec2/placementGroup:PlacementGroup").inputs["strategy"] == "cluster"
    for template in plan.of_type("aws:ec2/launchTemplate:LaunchTemplate"):
        interfaces = template.inputs["networkInterfaces"]
        assert [i["interfaceType"] for i in interfaces] == ["efa"] * 4
        assert [i["networkCardIndex"] for i in interfaces] == [0, 1, 2, 3]
        assert not any("associatePublicIpAddress" in i for i in interfaces)
    rules = [
        r.inputs
        for kind in ("Ingress", "Egress")
        for r in plan.of_type(f"aws:vpc/securityGroup{kind}Rule:SecurityGroup{kind}Rule")
    ]
    assert (
        sum(r.get("ipProtocol") == "-1" and r["referencedSecurityGroupId"] == r["securityGroupId"] for r in rules) == 2
    )
    assert one(plan, "aws:route53/record:Record").inputs["name"] == "node-0.trial.berth.internal"
    # One call for both would be refused as a whole once EC2 has forgotten one of them.
    calls = [json.loads(s.inputs["target"]["input"]) for s in plan.of_type("aws:scheduler/schedule:Schedule")]
    assert [len(call["InstanceIds"]) for call in calls] == [1, 1]
    assert len({call["InstanceIds"][0] for call in calls}) == 2


def test_a_capacity_block_is_named_to_the_machine(project: Project) -> None:
    plan = project.plan({**TRAINING, "purchase": "capacity-block", "capacity_block_id": "cr-0a1b"})
    machine = one(plan, INSTANCE).inputs
    assert machine["instanceMarketOptions"] == {"marketType": "capacity-block"}
    target = machine["capacityReservationSpecification"]["capacityReservationTarget"]
    assert target == {"capacityReservationId": "cr-0a1b"}


def test_an_endpoint_scales_to_zero_where_its_start_is_tolerated(project: Project) -> None:
    config = "aws:sagemaker/endpointConfiguration:EndpointConfiguration"
    patient = committed("endpoint-prod")
    assert patient.outputs["invocation"] == "async"
    assert one(patient, "aws:appautoscaling/target:Target").inputs["minCapacity"] == 0
    assert "asyncInferenceConfig" in one(patient, config).inputs
    eager = project.plan({**ENDPOINT, "capture_percent": 20, "max_replicas": 3})
    assert eager.outputs["invocation"] == "real-time"
    inputs = one(eager, config).inputs
    assert "asyncInferenceConfig" not in inputs
    assert inputs["dataCaptureConfig"]["initialSamplingPercentage"] == 20
    assert one(eager, "aws:appautoscaling/target:Target").inputs["maxCapacity"] == 3


def test_the_endpoint_serves_the_container_and_folder_of_the_host() -> None:
    container = one(committed("endpoint-prod"), "aws:sagemaker/model:Model").inputs["primaryContainer"]
    host = committed("inference-dev").outputs["image"]
    assert container["image"] == host
    assert container["modelDataSource"]["s3DataSources"][0]["s3Uri"].endswith("/bundles/endpoint-prod/")


def engine_config(values: dict[str, Any], region: str = "us-east-1") -> dict[str, str]:
    """What the engine hands a program: project defaults and the stack's values, all as text."""
    merged = {k: e["default"] for k, e in config_declarations().items() if "default" in e} | values
    text = {f"berth:{k}": v if isinstance(v, str) else json.dumps(v) for k, v in merged.items()}
    return {"aws:region": region, **text}


def run_entry(project: Project, values: dict[str, Any]) -> tuple[PlannedResource, ...]:
    """`infra/__main__.py` under the recording monitor, with the configuration as the engine passes it."""
    from infra.__main__ import main

    outputs = plan_stack("shared", project.root, clock=lambda: MOMENT).outputs

    def program() -> dict[str, Any]:
        pulumi_config.set_all_config(engine_config(values))
        main()
        return {}

    resources, _ = record_program("trial", "us-east-1", program, lambda _: outputs)
    return resources


def test_the_engine_s_entry_declares_what_the_plan_shows(project: Project) -> None:
    planned = project.plan(INFERENCE)
    assert [r.to_json() for r in run_entry(project, INFERENCE)] == [r.to_json() for r in planned.resources]


@pytest.mark.parametrize(
    ("values", "missing"),
    [
        ({**INFERENCE, "instance_type": "auto"}, "instance_type"),
        ({**INFERENCE, "dtype": "auto"}, "dtype"),
        ({**TRAINING}, "expires_at"),
    ],
)
def test_under_the_engine_what_is_unrecorded_stops_with_the_command(
    project: Project, values: dict[str, Any], missing: str
) -> None:
    with pytest.raises(UserError, match=rf"{missing}.*berth settings trial --record"):
        run_entry(project, values)


def test_offline_an_unrecorded_choice_is_taken_and_said(project: Project) -> None:
    plan = project.plan({**INFERENCE, "instance_type": "auto", "dtype": "auto"})
    assert one(plan, INSTANCE).inputs["instanceType"] == plan.settings.instance_type
    assert plan.settings.dtype == "fp32"
    assert any("not recorded" in w and plan.settings.instance_type in w for w in plan.warnings)


def test_a_recorded_type_that_sizing_would_not_choose_is_kept_with_a_warning(project: Project) -> None:
    plan = project.plan({**INFERENCE, "instance_type": "g5.4xlarge"})
    assert one(plan, INSTANCE).inputs["instanceType"] == "g5.4xlarge"
    assert any("g5.4xlarge is recorded; sizing would choose g4dn.2xlarge" in w for w in plan.warnings)


def test_a_stack_that_has_expired_says_so(project: Project) -> None:
    plan = project.plan({**TRAINING, "expires_at": "2026-11-01T00:00:00Z"})
    assert any("expired" in w for w in plan.warnings)


def test_two_plans_of_one_stack_are_equal_and_leave_no_loop_behind(project: Project) -> None:
    project.write("trial", INFERENCE)
    first, second = (plan_stack("trial", project.root, clock=lambda: MOMENT) for _ in range(2))
    assert [r.to_json() for r in first.resources] == [r.to_json() for r in second.resources]
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


def test_a_question_to_aws_that_has_no_answer_offline_fails_loudly() -> None:
    import pulumi_aws as aws

    def program() -> dict[str, Any]:
        return {"zones": aws.get_availability_zones_output().names}

    with pytest.raises(NotImplementedError, match="getAvailabilityZones"):
        record_program("trial", "us-east-1", program, lambda _: {})


def test_an_error_in_a_program_is_not_swallowed() -> None:
    def program() -> dict[str, Any]:
        pulumi.Output.from_input(1).apply(lambda _: 1 / 0)
        return {}

    with pytest.raises(ZeroDivisionError):
        record_program("trial", "us-east-1", program, lambda _: {})


def test_help_never_pays_for_pulumi() -> None:
    program = "import sys; sys.argv = ['berth', 'preview', '--help']\nimport atexit\n"
    program += "atexit.register(lambda: print('PULUMI' if 'pulumi' in sys.modules else 'NONE', file=sys.stderr))\n"
    program += "from berth.cli import main\nmain()"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ran.returncode == 0 and ran.stderr.strip() == "NONE"


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ("not json", "is no JSON"),
        ("[]", "has no steps"),
        ('{"steps": [{"newState": {}}]}', "step 0"),
        ('{"steps": [7]}', "step 0"),
    ],
)
def test_a_preview_file_that_is_none_is_refused(tmp_path: Path, document: str, says: str) -> None:
    path = tmp_path / "preview.json"
    path.write_text(document, encoding="utf-8")
    with pytest.raises(UserError, match=says):
        from_preview(path, "trial")


def test_the_preview_of_another_stack_is_refused(tmp_path: Path) -> None:
    urn = "urn:pulumi:other::berth::aws:ec2/vpc:Vpc::vpc"
    state = {"urn": urn, "type": "aws:ec2/vpc:Vpc", "inputs": {}}
    path = tmp_path / "preview.json"
    path.write_text(json.dumps({"steps": [{"op": "create", "urn": urn, "newState": state}]}), encoding="utf-8")
    with pytest.raises(UserError, match="preview of other, not of trial"):
        from_preview(path, "trial")
