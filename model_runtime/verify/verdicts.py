"""What a Measurement says of the choice that was made, in sentences."""

from __future__ import annotations

from typing import Any


def verdicts(document: dict[str, Any]) -> list[str]:
    """What the measurement says of the choice, in sentences."""
    said = []
    settings, largest, memory = document.get("settings"), document.get("largest_batch"), document.get("memory")
    if settings and largest:
        wished, found = settings["batch_size"], largest["batch"]
        if found < wished and found < largest["limit"]:
            said.append(
                f"batch {wished} is set, but {largest['why']}: set a batch of {found}" if found else largest["why"]
            )
        elif found > wished and found < largest["limit"]:
            said.append(f"batch {wished} is set and a batch of {found} fits: {largest['why']}")
    if memory:
        for term in memory["terms"]:
            if (
                term["name"] in ("weights", "driver")
                and term["difference"] is not None
                and abs(term["difference"]) > 0.05
            ):
                said.append(
                    f"{term['name']}: measured {_gib(term['measured_bytes'])}, "
                    f"estimated {_gib(term['estimated_bytes'])} ({term['difference']:+.0%})"
                )
    stack = document.get("stack")
    if stack and stack["estimate"] and (alone := document["sweep"][0]["latency_s_p50"]):
        likely = stack["estimate"]["latency_s"]
        estimated = (
            f"{likely['likely']:.3g} s ({likely['low']:.3g} to {likely['high']:.3g}) for {stack['model']} in "
            f"{stack['dtype']} on {stack['instance_type']}"
        )
        if stack["stand_in"]:
            said.append(
                f"one client: p50 {alone['median']:.3g} s of a stand-in on this machine, which says nothing of the "
                f"estimate of {estimated}"
            )
        else:
            said.append(f"one client: p50 {alone['median']:.3g} s over the network, estimated {estimated}")
    wish = document["workload"]["latency_wish_s"]
    if wish is not None:
        good = [
            s["concurrency"] for s in document["sweep"] if s["latency_s_p90"] and s["latency_s_p90"]["median"] <= wish
        ]
        if good:
            said.append(f"p90 stays within {wish:g} s up to a concurrency of {max(good)}")
        else:
            said.append(f"p90 is over the {wish:g} s wished even for one client at a time")
    failed = sum(s["failed"] for s in document["sweep"])
    if failed:
        said.append(f"{failed} requests failed under load; the statuses stand in the report")
    return said


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**28 else f"{size / 2**20:.2f} MiB"
