"""AWS on this machine: moto's server for EC2, and a small HTTP server for the Price List and Savings Plans APIs.

Moto knows neither of the two. Their answers are written in the documented shape (botocore's service models; AWS's
"Reading the service price list files"), quirks included: entries of PriceList are JSON in strings, a type repeats
under other tenancies, some products cost 0, SageMaker names a type in one attribute or another, pages end with an empty
token.
boto3 itself makes the requests, so signing, serialising, paging, retrying and error parsing are the real ones.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from sizing.hardware.load import DATA, build_hardware

HOURS = 8760
PAGE = 12
"""Products a page: small, so that every answer of interest has several pages."""

RAISED = 1.1
"""What the price list here asks, over the shipped figures: a refresh is visible in every rate."""

Reply = tuple[int, dict[str, Any]]


@dataclass
class PriceApis:
    """What the two price APIs answer. `on_demand` is by (type, region); the rest follows from it."""

    on_demand: dict[tuple[str, str], float]
    before: Callable[[str, dict[str, Any]], Reply | None] | None = None
    """Called with each request; a reply of its own (status, body) replaces the answer."""
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    url: str = ""

    def products(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        wanted = {f["Field"]: f["Value"] for f in request["Filters"]}
        assert {f["Type"] for f in request["Filters"]} == {"TERM_MATCH"}
        machines = request["ServiceCode"] == "AmazonSageMaker" or "instanceType" in wanted
        if not machines:
            found = service_products(request["ServiceCode"], wanted["regionCode"])
            return [document for document in found if _matches(document["product"], wanted)]
        documents = ec2_products if request["ServiceCode"] == "AmazonEC2" else ml_products
        listed = [
            document
            for (name, region), usd in self.on_demand.items()
            if region == wanted["regionCode"] and wanted.get("instanceType", name) == name
            for document in documents(name, region, usd)
        ]
        return [document for document in listed if _matches(document["product"], wanted)]

    def rates(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        wanted = {f["name"]: f["values"] for f in request["filters"]}
        assert wanted["productDescription"] == ["Linux/UNIX"]
        assert wanted["tenancy"] == ["shared"]
        return [
            rate
            for (name, region), usd in self.on_demand.items()
            if region in wanted["region"] and name in wanted["instanceType"]
            for rate in savings_rates(name, region, usd)
            if rate["savingsPlanOffering"]["planType"] in request["savingsPlanTypes"]
            and rate["savingsPlanOffering"]["paymentOption"] in request["savingsPlanPaymentOptions"]
        ]


def raised_rates() -> dict[tuple[str, str], float]:
    """On-demand rates of two regions, raised."""
    return {
        key: round(price.usd_per_hour["on-demand"] * RAISED, 6)
        for key, price in build_hardware(DATA).prices.items()
        if key[1] in ("us-east-1", "eu-west-1")
    }


def _matches(product: dict[str, Any], wanted: dict[str, str]) -> bool:
    facts = {**product["attributes"], "productFamily": product["productFamily"]}
    return all(facts.get(name) == value for name, value in wanted.items())


def ec2_products(name: str, region: str, usd: float) -> list[dict[str, Any]]:
    """A type's entries in AmazonEC2's price list: shared, dedicated, and as idle capacity reservation."""
    metal = name.endswith(".metal")

    def product(tenancy: str, capacity: str, hourly: float) -> dict[str, Any]:
        sku = f"{name}-{region}-{tenancy}-{capacity}".upper()
        terms: dict[str, Any] = {"OnDemand": _term(sku, "JRTCKXETXF", {"Hrs": hourly})}
        if capacity == "Used":
            terms["Reserved"] = {}
            for code, (length, kind, option, dimensions) in reserved_terms(hourly).items():
                attributes = {"LeaseContractLength": length, "OfferingClass": kind, "PurchaseOption": option}
                terms["Reserved"] |= _term(sku, code, dimensions, attributes)
        return {
            "product": {
                "productFamily": "Compute Instance (bare metal)" if metal else "Compute Instance",
                "attributes": {
                    "instanceType": name,
                    "regionCode": region,
                    "locationType": "AWS Region",
                    "operatingSystem": "Linux",
                    "preInstalledSw": "NA",
                    "tenancy": tenancy,
                    "capacitystatus": capacity,
                    "marketoption": "OnDemand",
                    "usagetype": f"BoxUsage:{name}",
                    "operation": "RunInstances",
                },
                "sku": sku,
            },
            "serviceCode": "AmazonEC2",
            "terms": terms,
            "version": "20261124000000",
            "publicationDate": "2026-11-24T00:00:00Z",
        }

    used = [product("Dedicated", "Used", usd)] if metal else [product("Shared", "Used", usd)]
    other = (
        [] if metal else [product("Dedicated", "Used", usd * 1.06), product("Shared", "UnusedCapacityReservation", usd)]
    )
    return [product("Host", "Used", 0.0), *other, *used]


def service_products(code: str, region: str) -> list[dict[str, Any]]:
    """Entries of services beside machines, and what stands near them in AWS's lists: variants, free tiers."""
    prefix = {"us-east-1": "", "eu-west-1": "EU-"}.get(region, "EUW3-")

    def product(usage: str, tiers: dict[str, tuple[str, float]], family: str = "", **attributes: str) -> dict[str, Any]:
        sku = f"{code}-{region}-{usage}-{attributes.get('operation', '')}"
        dimensions = {
            f"{sku}.{begin}": {
                "unit": unit, "beginRange": begin, "rateCode": f"{sku}.{begin}", "pricePerUnit": {"USD": f"{usd:.10f}"}
            }
            for begin, (unit, usd) in tiers.items()
        }  # fmt: skip
        place = {"regionCode": region, "locationType": "AWS Region", "usagetype": usage}
        return {
            "product": {"productFamily": family, "attributes": {**place, **attributes}, "sku": sku},
            "serviceCode": code,
            "terms": {"OnDemand": {f"{sku}.T": {"sku": sku, "priceDimensions": dimensions}}},
        }

    lists: dict[str, list[dict[str, Any]]] = {
        "AmazonEC2": [
            product(f"{prefix}NatGateway-Hours", {"0": ("Hrs", 0.048)}, "NAT Gateway"),
            product(f"{prefix}RegionalNatGateway-Hours", {"0": ("Hrs", 0.05)}, "NAT Gateway"),
            product(f"{prefix}NatGateway-Bytes", {"0": ("GB", 0.048)}, "NAT Gateway"),
            product(f"{prefix}EBS:VolumeUsage.gp3", {"0": ("GB-Mo", 0.088)}, "Storage", volumeApiName="gp3"),
            product(f"{prefix}EBS:VolumeUsage.gp2", {"0": ("GB-Mo", 0.11)}, "Storage", volumeApiName="gp2"),
            product(f"{prefix}EBS:VolumeP-IOPS.gp3", {"0": ("IOPS-Mo", 0.0055)}, "System Operation",
                    volumeApiName="gp3"),
            product(f"{prefix}EBS:VolumeP-Throughput.gp3", {"0": ("GiBps-mo", 45.056)}, "Provisioned Throughput",
                    volumeApiName="gp3"),
        ],
        "AmazonVPC": [
            product(f"{prefix}VpcEndpoint-Hours", {"0": ("Hrs", 0.011)}, "VpcEndpoint"),
            product(f"{prefix}VpcEndpoint-GWLBE-Hours", {"0": ("Hrs", 0.012)}, "VpcEndpoint"),
            product(f"{prefix}VpcEndpoint-Bytes", {"0": ("GB", 0.01), "1048576": ("GB", 0.006)}, "VpcEndpoint"),
        ],
        "AWSELB": [
            product(f"{prefix}LoadBalancerUsage", {"0": ("Hrs", 0.0252)}, "Load Balancer-Application"),
            product(f"{prefix}TS-LoadBalancerUsage", {"0": ("Hrs", 0.0063)}, "Load Balancer-Application"),
            product(f"{prefix}LCUUsage", {"0": ("LCU-Hrs", 0.008)}, "Load Balancer-Application"),
            product(f"{prefix}LoadBalancerUsage", {"0": ("Hrs", 0.0252)}, "Load Balancer-Network"),
            product(f"{prefix}LoadBalancerUsage", {"0": ("Hrs", 0.03)}, "Load Balancer-Network", operation="Other"),
        ],
        "awskms": [
            product(f"{region}-KMS-Keys", {"0": ("Keys", 1.0)}),
            product(f"{region}-KMS-Requests", {"0": ("Requests", 0.0), "20000": ("Requests", 0.000003)}),
        ],
        "AmazonCloudWatch": [
            product(f"{prefix}DataProcessing-Bytes", {"0": ("GB", 0.57)}),
            product(f"{prefix}DataProcessingIA-Bytes", {"0": ("GB", 0.28)}),
            product(f"{prefix}TimedStorage-ByteHrs", {"0": ("GB-Mo", 0.03)}),
            product(f"{prefix}CW:AlarmMonitorUsage", {"0": ("Alarms", 0.10)}),
            product(f"{prefix}CW:MetricMonitorUsage", {"0": ("Metrics", 0.30), "10000": ("Metrics", 0.10)}),
        ],
        "AmazonS3": [
            product(f"{prefix}TimedStorage-ByteHrs", {"0": ("GB-Mo", 0.023), "51200": ("GB-Mo", 0.022)}, "Storage"),
            product(f"{prefix}TimedStorage-SIA-ByteHrs", {"0": ("GB-Mo", 0.0125)}, "Storage"),
            product(f"{prefix}Requests-Tier1", {"0": ("Requests", 0.000005)}, "API Request"),
        ],
        "AmazonECR": [product(f"{prefix}TimedStorage-ByteHrs", {"0": ("GB-Mo", 0.10)})],
        "AmazonSNS": [
            product(f"{prefix}DeliveryAttempts-SMTP", {"0": ("Notifications", 0.0), "1000": ("Notifications", 0.00002)})
        ],
    }  # fmt: skip
    return lists.get(code, [])


def reserved_terms(usd: float) -> dict[str, tuple[str, str, str, dict[str, float]]]:
    """Reserved terms by offer term code: length, class, option, and USD by unit (Quantity is the upfront fee)."""
    one, three, convertible = usd * 0.63, usd * 0.43, usd * 0.72
    return {
        "4NA7Y494T4": ("1yr", "standard", "No Upfront", {"Hrs": one}),
        "HU7G6KETJZ": ("1yr", "standard", "Partial Upfront", {"Hrs": one * 0.475, "Quantity": one * 0.475 * HOURS}),
        "6QCMYABX3D": ("1yr", "standard", "All Upfront", {"Hrs": 0.0, "Quantity": one * 0.93 * HOURS}),
        "BPH4J8HBKS": ("3yr", "standard", "No Upfront", {"Hrs": three}),
        "38NPMPTW36": (
            "3yr",
            "standard",
            "Partial Upfront",
            {"Hrs": three * 0.46, "Quantity": three * 0.46 * 3 * HOURS},
        ),
        "NQ3QZPMQV9": ("3yr", "standard", "All Upfront", {"Hrs": 0.0, "Quantity": three * 0.87 * 3 * HOURS}),
        "7NE97W5U4E": ("1yr", "convertible", "No Upfront", {"Hrs": convertible}),
        "MZU6U2429S": ("3yr", "convertible", "All Upfront", {"Hrs": 0.0, "Quantity": convertible * 2.2 * HOURS}),
    }


def ml_products(name: str, region: str, usd: float) -> list[dict[str, Any]]:
    """A type's entries in AmazonSageMaker's price list; the name stands in another attribute in some."""
    family = name.partition(".")[0]
    if family.startswith(("p3", "c7i")):
        return []

    def product(use: str, prefix: str, hourly: float, *, place: str = "AWS Region") -> dict[str, Any]:
        sku = f"ML-{name}-{region}-{use}-{place}".upper()
        named = {"instanceName": f"ml.{name}"} if family in ("g5", "p6-b200") else {}
        kind = "NA" if family == "g6" else f"ml.{name}-{use}"
        return {
            "product": {
                "productFamily": "ML Instance",
                "attributes": {
                    **named,
                    "instanceType": kind,
                    "platoinstancetype": use,
                    "component": use,
                    "regionCode": region,
                    "locationType": place,
                    "usagetype": f"USE1-{prefix}:ml.{name}",
                    "operation": "RunInstance",
                },
                "sku": sku,
            },
            "serviceCode": "AmazonSageMaker",
            "terms": {"OnDemand": _term(sku, "JRTCKXETXF", {"Hrs": hourly})},
        }

    return [
        product("Hosting", "Host", usd * 1.4),
        product("Hosting", "Host", usd * 9, place="AWS Outposts"),
        product("Training", "Train", usd * 1.2),
        product("Hosting", "Host", 0.0),
        product("Notebook", "Notebk", usd * 1.3),
    ]


def savings_rates(name: str, region: str, usd: float) -> list[dict[str, Any]]:
    def rate(plan: str, years: int, option: str, value: float, usage: str = "BoxUsage") -> dict[str, Any]:
        return {
            "savingsPlanOffering": {
                "offeringId": "00000000-0000-0000-0000-000000000000",
                "paymentOption": option,
                "planType": plan,
                "durationSeconds": years * 365 * 24 * 3600,
                "currency": "USD",
                "planDescription": f"{years} year {option} {plan} Savings Plan",
            },
            "rate": f"{value:.8f}",
            "unit": "Hrs",
            "productType": "EC2",
            "serviceCode": "AmazonEC2",
            "usageType": f"USW2-{usage}:{name}",
            "operation": "RunInstances",
            "properties": [
                {"name": "region", "value": region},
                {"name": "instanceType", "value": name},
                {"name": "instanceFamily", "value": name.partition(".")[0]},
                {"name": "productDescription", "value": "Linux/UNIX"},
                {"name": "tenancy", "value": "shared"},
            ],
        }

    return [
        rate("EC2Instance", 1, "No Upfront", usd * 0.63),
        rate("EC2Instance", 3, "No Upfront", usd * 0.43),
        rate("EC2Instance", 3, "All Upfront", usd * 0.40),
        rate("Compute", 1, "No Upfront", usd * 0.72),
        rate("Compute", 3, "No Upfront", usd * 0.5),
        rate("EC2Instance", 1, "No Upfront", usd * 0.99, usage="UnusedBox"),
    ]


def _term(sku: str, code: str, usd: dict[str, float], attributes: dict[str, str] | None = None) -> dict[str, Any]:
    return {
        f"{sku}.{code}": {
            "offerTermCode": code,
            "sku": sku,
            "effectiveDate": "2026-11-01T00:00:00Z",
            "termAttributes": attributes or {},
            "priceDimensions": {
                f"{sku}.{code}.{unit}": {
                    "unit": unit,
                    "description": f"$ per {unit}",
                    "rateCode": f"{sku}.{code}.{unit}",
                    "pricePerUnit": {"USD": f"{value:.10f}"},
                }
                for unit, value in usd.items()
            },
        }
    }


def serve(apis: PriceApis) -> ThreadingHTTPServer:
    """Start the server on a free port of 127.0.0.1; `apis.url` is set. Shut it down with `.shutdown()`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # headers and body are two writes; else the second waits for an acknowledgement

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
            pricing = self.headers.get("X-Amz-Target", "") == "AWSPriceListService.GetProducts"
            service = "pricing" if pricing else "savingsplans"
            assert pricing or self.path == "/DescribeSavingsPlansOfferingRates"
            apis.requests.append((service, request))
            injected = apis.before(service, request) if apis.before else None
            status, body = injected or (200, self.answer(service, request))
            if status == 0:  # hang up without an answer
                self.close_connection = True
                return
            content = json.dumps(body).encode()
            self.send_response(status)
            if status >= 400:
                self.send_header("x-amzn-ErrorType", body.get("__type", ""))
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def answer(self, service: str, request: dict[str, Any]) -> dict[str, Any]:
            if service == "pricing":
                start, found = int(request.get("NextToken", 0)), apis.products(request)
                more = {"NextToken": str(start + PAGE)} if start + PAGE < len(found) else {}
                return {
                    "FormatVersion": "aws_v1",
                    "PriceList": [json.dumps(p) for p in found[start : start + PAGE]],
                    **more,
                }
            start, found = int(request.get("nextToken") or 0), apis.rates(request)
            end = start + 10 * PAGE
            return {"searchResults": found[start:end], "nextToken": str(end) if end < len(found) else ""}

        def log_message(self, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *args: Any) -> None:
            if not isinstance(sys.exc_info()[1], ConnectionError):  # a killed client is part of the tests
                super().handle_error(*args)

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    apis.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
