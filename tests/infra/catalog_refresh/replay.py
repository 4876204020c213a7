"""AWS clients that answer from answers recorded of this machine's AWS, and fail where told.

The answers come from boto3 itself, so their shape is the real one; replaying them makes a refresh fast enough to
break it at every one of its requests.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from infra.catalog_refresh.clients import Clients

NO_ERROR = -1


@dataclass
class Recorder:
    """Counts requests over all clients made of it; raises `error` at request number `fail_at`."""

    real: Clients
    answers: dict[str, list[Any]] = field(default_factory=dict)
    fail_at: int = NO_ERROR
    error: BaseException | None = None
    asked: list[str] = field(default_factory=list)

    def clients(self) -> Clients:
        return Clients(
            ec2=lambda region: _Client(self, lambda: self.real.ec2(region), region),  # type: ignore[return-value]
            pricing=_Client(self, lambda: self.real.pricing, "pricing"),  # type: ignore[arg-type]
            savingsplans=_Client(self, lambda: self.real.savingsplans, "savingsplans"),  # type: ignore[arg-type]
            regions=self.real.regions,
        )

    def failing(self, at: int, error: BaseException) -> Clients:
        self.asked.clear()
        self.fail_at, self.error = at, error
        return self.clients()

    def request(self, operation: str) -> None:
        self.asked.append(operation)
        if len(self.asked) - 1 == self.fail_at and self.error is not None:
            raise self.error


@dataclass
class _Client:
    recorder: Recorder
    real: Any
    scope: str

    def get_paginator(self, operation: str) -> _Paginator:
        return _Paginator(self, operation)

    def describe_savings_plans_offering_rates(self, **request: Any) -> Any:
        self.recorder.request("describe_savings_plans_offering_rates")
        key = f"{self.scope} savings {request}"
        if key not in self.recorder.answers:
            self.recorder.answers[key] = [self.real().describe_savings_plans_offering_rates(**request)]
        return copy.deepcopy(self.recorder.answers[key][0])


@dataclass
class _Paginator:
    client: _Client
    operation: str

    def paginate(self, **request: Any) -> Iterator[Any]:
        recorder = self.client.recorder
        shape = {name: value for name, value in request.items() if name != "StartTime"}
        key = f"{self.client.scope} {self.operation} {shape}"
        if key not in recorder.answers:
            recorder.answers[key] = list(self.client.real().get_paginator(self.operation).paginate(**request))
        for page in recorder.answers[key]:
            recorder.request(self.operation)
            yield copy.deepcopy(page)
