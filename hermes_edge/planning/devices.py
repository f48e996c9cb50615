"""Devices to plan for: memory, bandwidth and rate.

Peak figures of the vendor's data sheets; rates are dense fp16 products on the tensor cores with
fp32 accumulation, and bf16's are the same. A Jetson's CPU and GPU share one memory, of which
firmware, system and desktop keep a part; a graphics card loses a CUDA context and a display. What
is kept is an estimate: say ``--reserve`` where yours is known (``free -m`` on a freshly started
board).
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from hermes_edge.errors import SettingsError

_GIB = 1 << 30
_SHARED_RESERVE_BYTES = 2 * _GIB
_CARD_RESERVE_BYTES = _GIB // 2


@dataclass(frozen=True, slots=True)
class Device:
    """One device, or one power mode of it.

    Attributes:
        memory_bytes: of the memory that weights and slabs live in.
        reserve_bytes: of it that is never ours.
        shared: whether the processor's programs live in the same memory.
        gbyte_per_s: bandwidth of that memory.
        tflop_per_s: fp16 or bf16, dense.
    """

    name: str
    memory_bytes: int
    reserve_bytes: int
    shared: bool
    gbyte_per_s: float
    tflop_per_s: float


def _jetson(name: str, gib: int, gbyte_per_s: float, tflop_per_s: float) -> Device:
    return Device(name, gib * _GIB, _SHARED_RESERVE_BYTES, True, gbyte_per_s, tflop_per_s)


def _card(name: str, gib: int, gbyte_per_s: float, tflop_per_s: float) -> Device:
    return Device(name, gib * _GIB, _CARD_RESERVE_BYTES, False, gbyte_per_s, tflop_per_s)


DEVICES: dict[str, Device] = {
    device.name: device
    for device in (
        # Ampere: 2,048 FLOP per clock and SM; 8 SMs at 625, 1,020, 765, 918 and 1,173 MHz.
        _jetson("orin-nano-8gb", 8, 68, 10.2),
        _jetson("orin-nano-8gb-super", 8, 102, 16.7),
        _jetson("orin-nx-8gb", 8, 102, 12.5),
        _jetson("orin-nx-16gb", 16, 102, 15.0),
        _jetson("orin-nx-16gb-super", 16, 102, 19.2),
        _jetson("agx-orin-32gb", 32, 204.8, 26.7),
        _jetson("agx-orin-64gb", 64, 204.8, 42.6),
        _jetson("agx-thor-128gb", 128, 273, 258),
        _card("rtx-3060-12gb", 12, 360, 25.5),
        _card("rtx-3090", 24, 936, 71),
        _card("rtx-4060-8gb", 8, 272, 30.2),
        _card("rtx-4070-12gb", 12, 504, 58.3),
        _card("rtx-4090", 24, 1008, 165),
        _card("rtx-5090", 32, 1792, 209),
        _card("l4", 24, 300, 121),
        _card("a100-80gb", 80, 2039, 312),
        _card("a800-80gb", 80, 2039, 312),
        _card("h100-80gb", 80, 3350, 989),
        _card("h200-141gb", 131, 4800, 989),
    )
}

_OWN = re.compile(r"([0-9.]+)GiB:([0-9.]+)GB/s:([0-9.]+)TFLOPS", re.I)
_OWN_FORM = "8GiB:68GB/s:10TFLOPS"


def find_device(name: str) -> Device:
    """A device by name, or by its figures as ``8GiB:68GB/s:10TFLOPS`` (nothing reserved).

    Raises:
        SettingsError: neither; the nearest name is suggested.
    """
    if name in DEVICES:
        return DEVICES[name]
    match = _OWN.fullmatch(name)
    try:
        memory, bandwidth, rate = map(float, match.groups()) if match else (0.0, 0.0, 0.0)
    except ValueError:
        memory = bandwidth = rate = 0.0
    if min(memory, bandwidth, rate) > 0:
        return Device(name, int(memory * _GIB), 0, False, bandwidth, rate)
    near = difflib.get_close_matches(name.lower(), DEVICES, n=1)
    raise SettingsError(
        f"unknown device {name!r}" + (f" (did you mean {near[0]}?)" if near else ""),
        required=f"{', '.join(DEVICES)}, this, or figures such as {_OWN_FORM}",
    )
