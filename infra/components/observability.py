"""What is watched: alarms that write to the stack's topic, and one dashboard a stack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.components.base import Component
from infra.context import Context

Dimensions = Mapping[str, pulumi.Input[str]]


@dataclass(frozen=True, slots=True)
class Watch:
    """One alarm: `periods` times `period` seconds beyond the threshold."""

    name: str
    description: str
    namespace: str
    metric: str
    dimensions: Dimensions
    statistic: str
    """Average, Sum, Minimum, Maximum, or a percentile such as p95."""
    comparison: str
    """`>` or `<`."""
    threshold: float
    period: int = 60
    periods: int = 5
    missing: str = "notBreaching"


@dataclass(frozen=True, slots=True)
class ObservabilityArgs:
    """`charts`: titles with the metrics that they show, each (namespace, metric, dimensions, statistic)."""

    topic_arn: pulumi.Input[str]
    watches: Sequence[Watch]
    charts: Mapping[str, Sequence[tuple[str, str, Dimensions, str]]]


class Observability(Component):
    """Alarms and dashboard."""

    def __init__(self, name: str, context: Context, args: ObservabilityArgs) -> None:
        super().__init__("Observability", name, context)
        for watch in args.watches:
            self._alarm(watch, args.topic_arn)
        aws.cloudwatch.Dashboard(
            f"{name}-dashboard",
            dashboard_name=f"{context.project}-{context.stack}",
            dashboard_body=pulumi.Output.json_dumps({"widgets": self._widgets(args)}),
            opts=self.child(),
        )
        self.register_outputs({})

    def _alarm(self, watch: Watch, topic: pulumi.Input[str]) -> None:
        percentile = watch.statistic.startswith("p")
        aws.cloudwatch.MetricAlarm(
            f"{self.name}-{watch.name}",
            alarm_description=f"{self.context.stack}: {watch.description}",
            namespace=watch.namespace,
            metric_name=watch.metric,
            dimensions=dict(watch.dimensions),
            statistic=None if percentile else watch.statistic,
            extended_statistic=watch.statistic if percentile else None,
            comparison_operator="GreaterThanThreshold" if watch.comparison == ">" else "LessThanThreshold",
            threshold=watch.threshold,
            period=watch.period,
            evaluation_periods=watch.periods,
            treat_missing_data=watch.missing,
            alarm_actions=[topic],
            ok_actions=[topic],
            tags=self.context.tags(watch.name),
            opts=self.child(),
        )

    def _widgets(self, args: ObservabilityArgs) -> list[dict[str, Any]]:
        widgets: list[dict[str, Any]] = []
        for number, (title, lines) in enumerate(args.charts.items()):
            metrics: list[list[Any]] = []
            for namespace, metric, dimensions, statistic in lines:
                pairs = [part for pair in dimensions.items() for part in pair]
                metrics.append([namespace, metric, *pairs, {"stat": statistic}])
            widgets.append(
                {
                    "type": "metric",
                    "width": 12,
                    "height": 6,
                    "x": 12 * (number % 2),
                    "y": 6 * (number // 2),
                    "properties": {"title": title, "region": self.context.region, "metrics": metrics, "period": 60},
                }
            )
        return widgets
