"""Bundles and the engines in them: one protocol, several backends."""

from hermes_edge.engines.base import Engine
from hermes_edge.engines.bundle import Bundle, EmbeddingTable
from hermes_edge.engines.views import CpuDevice, Device, View, host_array, host_view

__all__ = [
    "Bundle",
    "CpuDevice",
    "Device",
    "EmbeddingTable",
    "Engine",
    "View",
    "host_array",
    "host_view",
]
