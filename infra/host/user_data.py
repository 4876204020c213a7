"""User data of hosts: the templates beside this file, filled in. Installs nothing from the internet."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pulumi

from infra import metrics
from infra.context import Context, Shared
from sizing.units import GIB

LIMIT_BYTES = 16 * 1024
"""What EC2 takes as user data, before base64."""
SYSTEM_SHARE = 0.06
"""Of the RAM, left to the system and its agents; at least 1 GiB."""
FEEDBACK_GIB = 2
"""RAM of the server that takes feedback: a JVM with 1 GiB of heap, as the image starts it, and a small Python."""


@cache
def _template(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


@cache
def _fetch() -> str:
    """The fetcher without its docstring and comments: user data is short of room."""
    lines = _template("fetch.py").split('"""\n', 1)[1].splitlines()
    return "\n".join(
        line.split("  # ")[0].rstrip() for line in lines if line.strip() and not line.strip().startswith(("#", '"""'))
    )


def memory_limit(ram_bytes: int, *, feedback: bool = False) -> str:
    """What the model's container may use of the RAM, as docker and systemd read it: less with `feedback` beside it."""
    left = max(GIB, int(ram_bytes * SYSTEM_SHARE)) + (FEEDBACK_GIB * GIB if feedback else 0)
    return f"{(ram_bytes - left) // GIB}g"


def agent_config(context: Context, log_group: str, grouped: bool) -> str:
    """The CloudWatch agent's configuration: GPU, disk, memory, and the logs of the container."""
    stream = f"{context.stack}/{{instance_id}}"
    dimensions = ["InstanceId", "AutoScalingGroupName"] if grouped else ["InstanceId"]
    collected: dict[str, object] = {
        "nvidia_gpu": {"measurement": ["utilization_gpu", "memory_used"], "metrics_collection_interval": 60},
        "disk": {"measurement": ["used_percent"], "resources": ["/"], "ignore_file_system_types": ["tmpfs", "overlay"]},
        "mem": {"measurement": ["used_percent"]},
    }
    files = [
        {"file_path": path, "log_group_name": log_group, "log_stream_name": f"{stream}/{name}"}
        for name, path in (("host", "/var/log/berth.log"), ("service", "/var/log/berth/*.log"))
    ]
    return json.dumps(
        {
            "metrics": {
                "append_dimensions": {name: f"${{aws:{name}}}" for name in dimensions},
                "aggregation_dimensions": [[dimensions[-1]]],
                "metrics_collected": collected,
            },
            "logs": {"logs_collected": {"files": {"collect_list": files}}},
        },
        separators=(",", ":"),
    )


def _environment(values: Mapping[str, str]) -> str:
    """Lines that both systemd and the shell read alike: values without quotes, spaces or dollars only."""
    for key, value in values.items():
        if value and shlex.quote(value) != value:
            raise ValueError(f"{key}={value!r} cannot stand in an environment file")
    return "\n".join(f"{key}={value}" for key, value in values.items())


def _fill(template: str, values: Mapping[str, str]) -> str:
    for key, value in values.items():
        template = template.replace(f"@{key}@", value)
    return template


def user_data(
    kind: str,
    context: Context,
    shared: Shared,
    environment: Mapping[str, pulumi.Input[str]],
    values: Mapping[str, str],
    *,
    grouped: bool = False,
    feedback: bool = False,
) -> pulumi.Output[str]:
    """The script of a host of `kind` (inference, training), once its outputs are known.

    With `feedback` a second server takes it beside that of the model.
    """

    def render(known: Mapping[str, str]) -> str:
        own = {key: known[key] for key in environment}
        registry = own["BERTH_IMAGE"].split(".")
        region = registry[3] if len(registry) > 4 and registry[1:3] == ["dkr", "ecr"] else context.region
        lines = _environment(
            {
                "AWS_DEFAULT_REGION": context.region,
                "BERTH_NAMESPACE": metrics.NAMESPACE,
                "BERTH_STACK": context.stack,
                "BERTH_BUCKET": known["bucket"],
                "BERTH_IMAGE_REGION": region,
                **own,
            }
        )
        first = _template("training_first.sh") if kind == "training" else ""
        beside = _template("inference_feedback.sh").replace("@FEEDBACK_GIB@", str(FEEDBACK_GIB)) if feedback else ""
        script = _fill(
            _template("common.sh").replace("@FIRST@", first) + _template(f"{kind}.sh").replace("@FEEDBACK@", beside),
            {"ENV": lines, "AGENT": agent_config(context, known["log_group"], grouped), **values, "FETCH": _fetch()},
        )
        size = len(script.encode())
        if size > LIMIT_BYTES:
            raise ValueError(f"user data of {context.stack} is {size:,} bytes; EC2 takes {LIMIT_BYTES:,}")
        return script

    return pulumi.Output.all(bucket=shared.bucket, log_group=shared.log_group, **environment).apply(render)
