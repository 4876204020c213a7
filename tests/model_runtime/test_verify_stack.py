"""Verifying a stack: where it is reached, what is said where it cannot be, and an endpoint over SageMaker's runtime."""

from __future__ import annotations

import json
import struct
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import jsonschema
import pytest

from berth.schemas import load as load_schema
from berth.stack_target import find_target, reachable
from infra.lifecycle.engine import Resource
from infra.stack_files import StackFile, read_stack
from model_runtime.errors import ModelError
from model_runtime.generate import Generator
from model_runtime.handler.service import Service
from model_runtime.handler.settings import ServingSettings
from model_runtime.load import LoadOptions, load
from model_runtime.progress import Lines
from model_runtime.server.app import Server
from model_runtime.verify.plan import Plan, Stack
from model_runtime.verify.run import verify
from model_runtime.verify.sagemaker import EndpointTransport, runtime_client
from model_runtime.verify.verdicts import verdicts
from sizing.errors import UserError
from tests.infra.infra_projects import ENDPOINT, INFERENCE, SHARED, TRAINING, Project
from tests.model_runtime.serving_tools import running

HOST = Resource("aws:ec2/instance:Instance", "host", "i-0123")
GROUP = Resource("aws:autoscaling/group:Group", "group", "berth-dev")
STACK = Stack("dev", "endpoint", "us-east-1", "x", "google/flan-t5-base", "fp32", "g4dn.xlarge", 4)


@pytest.fixture
def stack(tmp_path: Path) -> Callable[[Mapping[str, Any]], StackFile]:
    project = Project(tmp_path)

    def written(values: Mapping[str, Any]) -> StackFile:
        project.write("dev", dict(values))
        return read_stack("dev", project.root)

    return written


def engine(outputs: Mapping[str, Any], *resources: Resource) -> Any:
    return SimpleNamespace(outputs=lambda _: outputs, resources=lambda _: resources)


def cloud(*machines: str) -> Any:
    group = {"AutoScalingGroups": [{"Instances": [{"InstanceId": m} for m in machines]}]}
    return SimpleNamespace(client=lambda _: SimpleNamespace(describe_auto_scaling_groups=lambda **_: group))


def test_a_stack_that_can_be_reached_is_asked_at_its_address(stack: Callable[..., StackFile]) -> None:
    file = stack({**INFERENCE, "latency_ms": 2500, "input_tokens": 300, "output_tokens": 40, "batch": 4})
    up = engine({"url": "http://10.0.0.9:8080"}, HOST)
    found = find_target(file, up, cloud(), sandbox=False, connects=lambda url: url == "http://10.0.0.9:8080")
    assert (found.url, found.endpoint) == ("http://10.0.0.9:8080", "")
    assert (found.input_tokens, found.output_tokens, found.latency_s) == (300, 40, 2.5)
    assert found.stack == Stack(
        "dev", "inference", "us-east-1", "http://10.0.0.9:8080", "google/flan-t5-xl", "fp32", "g4dn.2xlarge", 4
    )


def test_one_that_answers_inside_its_network_names_the_way_in(stack: Callable[..., StackFile]) -> None:
    file = stack(INFERENCE)
    up = engine({"url": "http://dev.berth.internal:8080"}, HOST)
    with pytest.raises(UserError) as refused:
        find_target(file, up, cloud(), sandbox=False, connects=lambda _: False)
    assert (
        "aws ssm start-session --region us-east-1 --target i-0123 --document-name AWS-StartPortForwardingSession "
        '--parameters \'{"portNumber":["8080"],"localPortNumber":["8080"]}\' ; then `berth verify dev --url '
        "http://127.0.0.1:8080`" in str(refused.value)
    )
    balanced = stack({**INFERENCE, "replicas": 2, "max_replicas": 3})
    behind = engine({"url": "http://internal-lb.amazonaws.com"}, GROUP)
    with pytest.raises(UserError) as refused:
        find_target(balanced, behind, cloud("i-0aa"), sandbox=False, connects=lambda _: False)
    assert "--target i-0aa --document-name AWS-StartPortForwardingSessionToRemoteHost" in str(refused.value)
    assert '{"host":["internal-lb.amazonaws.com"],"portNumber":["80"],' in str(refused.value)
    through = find_target(file, None, None, sandbox=False, url="http://127.0.0.1:8080")
    assert through.url == through.stack.address == "http://127.0.0.1:8080"


def test_what_answers_nothing_says_so(stack: Callable[..., StackFile]) -> None:
    for values, up, sandbox, says in (
        (INFERENCE, engine({}), False, "is not up; `berth up dev` makes it"),
        (INFERENCE, engine({"image": "x"}), False, "no address among its outputs"),
        (INFERENCE, engine({"url": "http://x"}), True, "`berth serve dev --sandbox` stands in for it"),
        (ENDPOINT, engine({"endpoint": "e", "invocation": "async"}), False, "asynchronous endpoint"),
        (ENDPOINT, engine({"image": "x"}), False, "no endpoint among its outputs"),
        (TRAINING, engine({"instances": []}), False, "has the role training"),
        (SHARED, engine({"bucket": "b"}), False, "has the role shared"),
    ):
        with pytest.raises(UserError, match=says):
            find_target(stack(values), up, cloud(), sandbox=sandbox)
    found = find_target(stack(ENDPOINT), engine({"endpoint": "e", "invocation": "real-time"}), cloud(), sandbox=False)
    assert (found.url, found.endpoint) == ("", "e")


def test_a_port_nobody_listens_on_is_not_reachable() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        url = f"http://127.0.0.1:{server.server_address[1]}"
        assert reachable(url)
    assert not reachable(url)


def event(payload: bytes, **headers: str) -> bytes:
    """One message of AWS's event stream encoding: lengths, headers, payload, CRC-32s."""
    packed = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        for name, value in ((f":{k.replace('_', '-')}", v) for k, v in headers.items())
    )
    prelude = struct.pack(">II", 16 + len(packed) + len(payload), len(packed))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + packed + payload
    return message + struct.pack(">I", zlib.crc32(message))


class Runtime(BaseHTTPRequestHandler):
    """SageMaker's runtime before a server of this package: it wraps what that answers into an event stream."""

    behind = ""
    refuse: tuple[int, str, dict[str, Any]] | None = None
    breaks = False

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if Runtime.refuse is not None:
            status, kind, told = Runtime.refuse
            self._send(status, json.dumps(told).encode(), {"x-amzn-errortype": kind})
            return
        assert self.path == "/endpoints/berth-dev/invocations-response-stream"
        assert self.headers["authorization"].startswith("AWS4-HMAC-SHA256")
        answer = httpx.post(f"{Runtime.behind}/invocations", content=body)
        part = {"message_type": "event", "event_type": "PayloadPart", "content_type": "application/octet-stream"}
        half = len(answer.content) // 2
        events = [event(answer.content[:half], **part), event(answer.content[half:], **part)]
        if Runtime.breaks:
            broken = {"message_type": "exception", "exception_type": "InternalStreamFailure"}
            events = [events[0], event(b'{"Message": "the instance went away"}', **broken)]
        self._send(200, b"".join(events), {"content-type": "application/vnd.amazon.eventstream"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def endpoint(tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of a runtime whose endpoint is a tiny model."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    Runtime.refuse, Runtime.breaks = None, False
    settings = ServingSettings("m", model_name="tiny", batch_size=4)
    generator = Generator(load(str(tiny("llama")), LoadOptions(device="cpu")), settings.limits)
    server = Server(Service(generator, settings, write=lambda _: None))
    with running(server) as url, ThreadingHTTPServer(("127.0.0.1", 0), Runtime) as runtime:
        Runtime.behind = url
        thread = threading.Thread(target=runtime.serve_forever, daemon=True)
        thread.start()
        yield runtime_client("us-east-1", 8, 30.0, f"http://127.0.0.1:{runtime.server_address[1]}")
        runtime.shutdown()
        thread.join()


def plan(client: Any, **more: Any) -> Plan:
    asked = {"input_tokens": 8, "output_tokens": 4, "requests": 4, "runs": 1, "max_concurrency": 2, **more}
    return Plan("https://endpoint", stack=STACK, transport=EndpointTransport(client, "berth-dev", 8), **asked)


def test_an_endpoint_is_measured_through_its_runtime(endpoint: Any) -> None:
    document = verify(plan(endpoint), Lines(lambda _: None))
    jsonschema.validate(document, load_schema("verify"))
    assert document["stack"]["name"] == "dev"
    run = document["sweep"][0]["runs"][0]
    assert (run["failed"], run["output_tokens"]["min"], run["output_tokens"]["max"]) == ({}, 4, 4)
    assert 0 < run["first_token_s"]["p50"] <= run["latency_s"]["p50"]
    estimate = document["stack"]["estimate"]
    assert estimate["input_tokens"] == round(run["input_tokens"]["mean"])
    assert estimate["latency_s"]["likely"] > 0
    assert estimate["device_bytes"] < estimate["max_bytes"]
    said = next(line for line in document["verdicts"] if line.startswith("one client: p50"))
    assert said.endswith("for google/flan-t5-base in fp32 on g4dn.xlarge")
    assert "over the network, estimated " in said
    document["stack"]["stand_in"] = True
    said = next(line for line in verdicts(document) if line.startswith("one client: p50"))
    assert "of a stand-in on this machine, which says nothing of the estimate of " in said


@pytest.mark.parametrize(
    ("refuse", "says"),
    [
        ((424, "ModelError", {"Message": "bad", "OriginalStatusCode": 400, "OriginalMessage": "bad"}), "status 400"),
        ((503, "ServiceUnavailable", {"Message": "no instance"}), "status 503"),
        ((400, "ThrottlingException", {"Message": "slow down"}), "status 503"),
        (
            (400, "ValidationError", {"Message": "Endpoint berth-dev not found"}),
            "no answer.*Endpoint berth-dev not found",
        ),
        ((403, "AccessDeniedException", {"Message": "not authorized"}), "no answer.*not authorized"),
    ],
)
def test_what_the_runtime_refuses_is_told(endpoint: Any, refuse: Any, says: str) -> None:
    Runtime.refuse = refuse
    with pytest.raises(ModelError, match=says):
        verify(plan(endpoint), Lines(lambda _: None))


def test_a_stream_that_breaks_is_no_answer(endpoint: Any) -> None:
    Runtime.breaks = True
    with pytest.raises(ModelError, match=r"no answer.*the instance went away"):
        verify(plan(endpoint), Lines(lambda _: None))


def test_the_command_takes_a_stack_and_a_way_to_it(
    run_berth: Callable[..., Any], tiny: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Project(tmp_path).write(
        "dev", {**INFERENCE, "model": "google/flan-t5-small", "input_tokens": 8, "output_tokens": 4}
    )
    monkeypatch.chdir(tmp_path)
    settings = ServingSettings("m", model_name="tiny", batch_size=4)
    generator = Generator(load(str(tiny("t5")), LoadOptions(device="cpu")), settings.limits)
    report = tmp_path / "m.json"
    quick = ("--requests", 4, "--runs", 1, "--max-concurrency", 1)
    with running(Server(Service(generator, settings, write=lambda _: None))) as url:
        ran = run_berth("verify", "dev", "--url", url, "--report", report, *quick)
    assert ran.code == 0, ran.err
    assert "Stack dev: google/flan-t5-small in fp32 at" in ran.out
    document = json.loads(report.read_text())
    assert (document["stack"]["name"], document["workload"]["output_tokens"]) == ("dev", 4)
    for arguments, says in (
        (("staging",), "no folder here, no URL and no stack of this project (dev, shared)"),
        (("dev", "--url", "127.0.0.1:8080"), "give it whole"),
        (("http://127.0.0.1:1", "--sandbox"), "are for a stack"),
    ):
        ran = run_berth("verify", *arguments)
        assert (ran.code, ran.out) == (2, "")
        assert says in ran.err
