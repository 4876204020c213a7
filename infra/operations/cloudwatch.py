"""What CloudWatch holds of a stack's metrics between two moments. What it has no data of is None."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from infra.operations.clients import Client, asking

MOST_QUERIES = 500
"""Queries that one GetMetricData takes (Amazon CloudWatch API reference)."""
_KEPT = ((timedelta(days=15), 60), (timedelta(days=63), 300), (timedelta(days=455), 3600))
"""How long points of a period are kept (Amazon CloudWatch user guide, "Metrics retention")."""


@dataclass(frozen=True, slots=True)
class Query:
    """One statistic of one metric: Sum, Average, Maximum, SampleCount or a percentile such as p95."""

    namespace: str
    metric: str
    dimensions: tuple[tuple[str, str], ...]
    statistic: str
    period: int
    """Seconds."""


@dataclass(frozen=True, slots=True)
class Series:
    """The values of each period that has some."""

    times: tuple[datetime, ...]
    values: tuple[float, ...]

    @property
    def sum(self) -> float | None:
        return sum(self.values) if self.values else None

    @property
    def most(self) -> float | None:
        return max(self.values, default=None)

    @property
    def mean(self) -> float | None:
        return sum(self.values) / len(self.values) if self.values else None


def finest_period(start: datetime, now: datetime) -> int:
    """Seconds of the shortest period that is still kept at `start`."""
    age = now - start
    return next((period for kept, period in _KEPT if age <= kept), 3600)


def read(
    client: Client, region: str, queries: Mapping[str, Query], start: datetime, end: datetime
) -> dict[str, Series]:
    """The series of each query by its name. Raises `UserError` where CloudWatch may not be asked."""
    cloudwatch = client("cloudwatch")
    names = list(queries)
    found: dict[str, tuple[list[datetime], list[float]]] = {name: ([], []) for name in names}
    for at in range(0, len(names), MOST_QUERIES):
        part = names[at : at + MOST_QUERIES]
        asked = [_asked(f"q{number}", queries[name]) for number, name in enumerate(part)]
        token: dict[str, str] = {}
        while True:
            with asking("cloudwatch:GetMetricData", region):
                answer = cloudwatch.get_metric_data(
                    MetricDataQueries=asked, StartTime=start, EndTime=end, ScanBy="TimestampAscending", **token
                )
            _take(answer["MetricDataResults"], part, found)
            if not answer.get("NextToken"):
                break
            token = {"NextToken": answer["NextToken"]}
    return {name: Series(tuple(times), tuple(values)) for name, (times, values) in found.items()}


def _take(results: Sequence[Mapping[str, Any]], names: Sequence[str], found: Mapping[str, Any]) -> None:
    for result in results:
        times, values = found[names[int(result["Id"][1:])]]
        times.extend(result["Timestamps"])
        values.extend(float(value) for value in result["Values"])


def _asked(name: str, query: Query) -> dict[str, Any]:
    return {
        "Id": name,
        "MetricStat": {
            "Metric": {
                "Namespace": query.namespace,
                "MetricName": query.metric,
                "Dimensions": [{"Name": key, "Value": value} for key, value in query.dimensions],
            },
            "Period": query.period,
            "Stat": query.statistic,
        },
    }
