"""This machine's processor as a device to plan for, by measurement."""

from __future__ import annotations

from hermes_edge.bench.machine import describe_machine, measure_rates
from hermes_edge.planning.devices import Device


def measured_device() -> Device:
    """Rates of fp32 products in numpy; all memory that the system has, nothing reserved."""
    rates = measure_rates()
    machine = describe_machine()
    return Device(
        name=machine.processor,
        memory_bytes=machine.memory_bytes,
        reserve_bytes=0,
        shared=True,
        gbyte_per_s=rates.read_gbyte_per_s,
        tflop_per_s=rates.sgemm_gflop_per_s / 1000,
    )
