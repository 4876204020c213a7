"""How fast a model answers: a roofline per GPU, per engine, and what load a host carries within a latency."""

from sizing.throughput.capacity import Capacity, Load, capacity_for, hosts_needed
from sizing.throughput.device import Device, device_of
from sizing.throughput.ranges import Range
from sizing.throughput.roofline import RequestSpeed, Speed, request_speed

__all__ = [
    "Capacity",
    "Device",
    "Load",
    "Range",
    "RequestSpeed",
    "Speed",
    "capacity_for",
    "device_of",
    "hosts_needed",
    "request_speed",
]
