"""A stack's requests, latency, errors, tokens and machines as they were seen between two moments; None is unknown."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from infra import metrics
from infra.components.endpoint import VARIANT
from infra.operations.clients import Client
from infra.operations.cloudwatch import Query, Series, finest_period, read
from infra.operations.machines import Machines
from infra.stack_files import StackFile

HOUR = 3600
MIB = 1 << 20
MICROSECONDS = 1e-6
_SERVED = ("Latency", "QueueTime", "TimeToFirstToken")
_COUNTED = ("BatchSize", "InputTokens", "OutputTokens", "Errors", "ServerErrors", "Truncations", "MemorySplits")


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Seconds. Where CloudWatch answers in several spans, `p50` is their mean by requests, `p95` the highest."""

    p50: float | None = None
    p95: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {"p50_s": self.p50, "p95_s": self.p95}


@dataclass(frozen=True, slots=True)
class Observed:
    """What was seen from `start` to `end`. Rates are requests a second, over the hours that the machines ran."""

    start: datetime
    end: datetime
    requests: float | None = None
    busiest_hour: float | None = None
    """Requests of the hour (or the whole window, if shorter) that had most."""
    latency: Quantiles = Quantiles()
    queue: Quantiles = Quantiles()
    first_token: Quantiles = Quantiles()
    balancer_latency: Quantiles = Quantiles()
    errors: float | None = None
    server_errors: float | None = None
    truncations: float | None = None
    memory_splits: float | None = None
    input_tokens: float | None = None
    output_tokens: float | None = None
    batch: float | None = None
    """Requests answered together, on average."""
    gpu_percent: float | None = None
    gpu_percent_most: float | None = None
    gpu_memory_bytes: float | None = None
    gpu_memory_percent: float | None = None
    host_hours: float | None = None
    """Hours that hosts or instances ran, all together."""
    stood_hours: float | None = None
    """Hours in which at least one ran."""
    notes: tuple[str, ...] = field(default=())

    @property
    def hours(self) -> float:
        """Hours of the window."""
        return (self.end - self.start).total_seconds() / HOUR

    @property
    def rate(self) -> float | None:
        """Requests a second while the stack stood; over the whole window where that is not known."""
        if self.requests is None:
            return None
        return self.requests / ((self.stood_hours or self.hours) * HOUR)

    @property
    def peak_factor(self) -> float | None:
        """The busiest hour over the mean of the hours stood, at least 1."""
        if not self.requests or self.busiest_hour is None:
            return None
        mean = self.requests / max(1.0, self.stood_hours or self.hours)
        return max(1.0, self.busiest_hour / mean)

    @property
    def tokens_per_request(self) -> tuple[float, float] | None:
        if not self.requests or self.input_tokens is None or self.output_tokens is None:
            return None
        return self.input_tokens / self.requests, self.output_tokens / self.requests

    def to_json(self) -> dict[str, Any]:
        tokens = self.tokens_per_request
        return {
            "hours": round(self.hours, 3),
            "requests": self.requests,
            "requests_per_s": self.rate,
            "busiest_hour_requests": self.busiest_hour,
            "peak_factor": self.peak_factor,
            "latency": self.latency.to_json(),
            "queue_time": self.queue.to_json(),
            "first_token": self.first_token.to_json(),
            "balancer_latency": self.balancer_latency.to_json(),
            "errors": self.errors,
            "server_errors": self.server_errors,
            "truncations": self.truncations,
            "memory_splits": self.memory_splits,
            "input_tokens_per_request": None if tokens is None else tokens[0],
            "output_tokens_per_request": None if tokens is None else tokens[1],
            "batch": self.batch,
            "gpu_percent": self.gpu_percent,
            "gpu_percent_most": self.gpu_percent_most,
            "gpu_memory_bytes": self.gpu_memory_bytes,
            "gpu_memory_percent": self.gpu_memory_percent,
            "host_hours": self.host_hours,
            "stood_hours": self.stood_hours,
        }


def observe(client: Client, file: StackFile, machines: Machines, start: datetime, end: datetime) -> Observed:
    """Ask CloudWatch for all that a stack of this role has. Raises `UserError` where it may not be asked."""
    window = max(60, int((end - start).total_seconds()) // 60 * 60)
    window = window if window < HOUR else window // HOUR * HOUR
    bucket = max(finest_period(start, end), min(HOUR, window))
    if machines.endpoint:
        return _endpoint(client, file, machines, start, end, max(window, bucket), bucket)
    return _hosts(client, file, machines, start, end, max(window, bucket), bucket)


def _hosts(
    client: Client, file: StackFile, machines: Machines, start: datetime, end: datetime, window: int, bucket: int
) -> Observed:
    stack = ((metrics.STACK_DIMENSION, file.name),)
    queries: dict[str, Query] = {}
    for name in _COUNTED:
        queries[name] = Query(metrics.NAMESPACE, name, stack, "Sum", bucket)
    queries["batches"] = Query(metrics.NAMESPACE, "BatchSize", stack, "SampleCount", bucket)
    for name in _SERVED:
        queries |= _quantiles(metrics.NAMESPACE, name, stack, window)
    queries["GpuMemory"] = Query(metrics.NAMESPACE, "GpuMemory", stack, "Maximum", bucket)
    fine = finest_period(start, end)
    queries["alive"] = Query(metrics.NAMESPACE, metrics.HEALTHY, stack, "SampleCount", fine)
    of_machines = (
        [("AutoScalingGroupName", machines.group)]
        if machines.group
        else [("InstanceId", i) for i in machines.instances]
    )
    for number, dimension in enumerate(of_machines):
        for name, metric, statistic in (
            ("use", metrics.GPU_USE, "Average"), ("use most", metrics.GPU_USE, "Maximum"),
            ("memory", metrics.GPU_MEMORY, "Maximum"),
        ):  # fmt: skip
            queries[f"{name} {number}"] = Query(metrics.AGENT_NAMESPACE, metric, (dimension,), statistic, bucket)
    if machines.balancer:
        balancer = (("LoadBalancer", machines.balancer),)
        queries |= _quantiles("AWS/ApplicationELB", "TargetResponseTime", balancer, window)
        queries["RequestCount"] = Query("AWS/ApplicationELB", "RequestCount", balancer, "Sum", bucket)
        queries["ELB5xx"] = Query("AWS/ApplicationELB", "HTTPCode_ELB_5XX_Count", balancer, "Sum", bucket)
    found = read(client, file.region, queries, start, end)

    def each(name: str) -> list[Series]:
        return [found[f"{name} {n}"] for n in range(len(of_machines)) if found[f"{name} {n}"].values]

    batches, sizes, alive = found["batches"].sum, found["BatchSize"], found["alive"]
    memory = [s.most for s in each("memory") if s.most is not None]
    own = found["GpuMemory"].most
    notes = []
    if machines.balancer and found["RequestCount"].sum and sizes.sum is None:
        notes.append(
            f"the load balancer counted {found['RequestCount'].sum:,.0f} requests and the handler wrote no metrics: "
            "look at option.metrics and the CloudWatch agent of the hosts"
        )
    refused = found["ELB5xx"].sum if machines.balancer else None
    if refused:
        notes.append(f"the load balancer itself answered {refused:,.0f} requests with 5xx")
    used = [s.mean for s in each("use") if s.mean is not None]
    most = [s.most for s in each("use most") if s.most is not None]
    return Observed(
        start, end,
        requests=sizes.sum,
        busiest_hour=sizes.most,
        latency=_read_quantiles(found, "Latency", 1e-3),
        queue=_read_quantiles(found, "QueueTime", 1e-3),
        first_token=_read_quantiles(found, "TimeToFirstToken", 1e-3),
        balancer_latency=_read_quantiles(found, "TargetResponseTime", 1.0),
        errors=found["Errors"].sum,
        server_errors=found["ServerErrors"].sum,
        truncations=found["Truncations"].sum,
        memory_splits=found["MemorySplits"].sum,
        input_tokens=found["InputTokens"].sum,
        output_tokens=found["OutputTokens"].sum,
        batch=sizes.sum / batches if sizes.sum is not None and batches else None,
        gpu_percent=sum(used) / len(used) if used else None,
        gpu_percent_most=max(most, default=None),
        gpu_memory_bytes=max(memory) * MIB if memory else own,
        host_hours=None if alive.sum is None else alive.sum / 60.0,
        stood_hours=_stood(alive, fine),
        notes=tuple(notes),
    )  # fmt: skip


def _endpoint(
    client: Client, file: StackFile, machines: Machines, start: datetime, end: datetime, window: int, bucket: int
) -> Observed:
    """SageMaker's own metrics: it knows no tokens, and its latencies are microseconds."""
    own = (("EndpointName", machines.endpoint), ("VariantName", VARIANT))
    namespace, host = "AWS/SageMaker", "/aws/sagemaker/Endpoints"
    queries = {name: Query(namespace, name, own, "Sum", bucket) for name in (
        "Invocations", "Invocation4XXErrors", "Invocation5XXErrors",
    )}  # fmt: skip
    queries |= _quantiles(namespace, "ModelLatency", own, window)
    queries |= _quantiles(namespace, "OverheadLatency", own, window)
    queries["use"] = Query(host, "GPUUtilization", own, "Average", bucket)
    queries["use most"] = Query(host, "GPUUtilization", own, "Maximum", bucket)
    queries["memory"] = Query(host, "GPUMemoryUtilization", own, "Maximum", bucket)
    # Each instance sends one point a minute (SageMaker developer guide, "Endpoint Instance Metrics").
    fine = finest_period(start, end)
    queries["alive"] = Query(host, "CPUUtilization", own, "SampleCount", fine)
    found = read(client, file.region, queries, start, end)
    failed = [found[name].sum for name in ("Invocation4XXErrors", "Invocation5XXErrors")]
    known = [n for n in failed if n is not None]
    host_hours = stood = None
    notes: tuple[str, ...] = ()
    alive = found["alive"]
    if alive.values:
        host_hours = sum(alive.values) / 60.0
        stood = _stood(alive, fine)
    elif machines.endpoint_since is None:
        notes = (f"there is no endpoint {machines.endpoint} now",)
    elif machines.endpoint_count is not None:
        stood = max(0.0, (end - max(start, machines.endpoint_since)).total_seconds() / HOUR)
        host_hours = stood * machines.endpoint_count
        notes = ("hours of instances: those of today's number since the endpoint was made",)
    return Observed(
        start, end,
        requests=found["Invocations"].sum,
        busiest_hour=found["Invocations"].most,
        latency=_read_quantiles(found, "ModelLatency", MICROSECONDS),
        queue=_read_quantiles(found, "OverheadLatency", MICROSECONDS),
        errors=sum(known) if known else None,
        server_errors=failed[1],
        gpu_percent=found["use"].mean,
        gpu_percent_most=found["use most"].most,
        gpu_memory_percent=found["memory"].most,
        host_hours=host_hours,
        stood_hours=stood,
        notes=notes,
    )  # fmt: skip


def _stood(alive: Series, period: int) -> float | None:
    """Hours in which at least one machine sent its point a minute; `period` is that of the series, in seconds."""
    return sum(min(points, period / 60.0) for points in alive.values) / 60.0 if alive.values else None


def _quantiles(namespace: str, metric: str, dimensions: tuple[tuple[str, str], ...], window: int) -> dict[str, Query]:
    return {
        f"{metric} {statistic}": Query(namespace, metric, dimensions, statistic, window)
        for statistic in ("p50", "p95", "SampleCount")
    }


def _read_quantiles(found: dict[str, Series], metric: str, seconds: float) -> Quantiles:
    """Percentiles of spans cannot be joined exactly: the mean by requests for p50, the highest for p95."""
    middle, high, counts = (found.get(f"{metric} {s}", Series((), ())) for s in ("p50", "p95", "SampleCount"))
    p50 = None
    if middle.values and len(counts.values) == len(middle.values) and sum(counts.values):
        p50 = sum(v * n for v, n in zip(middle.values, counts.values, strict=True)) / sum(counts.values) * seconds
    return Quantiles(p50, None if high.most is None else high.most * seconds)
