"""The lean runtime: sessions on preallocated memory. Imports no torch, transformers or onnx."""

from hermes_edge.runtime.answers import Answer, AnswerStream
from hermes_edge.runtime.report import BandReport, LayerReport, MemoryReport
from hermes_edge.runtime.runtime import Runtime
from hermes_edge.runtime.sampling import SamplingParams
from hermes_edge.runtime.scoring import ProbeTokens
from hermes_edge.runtime.session import Session
from hermes_edge.sources import Frame, open_source

__all__ = [
    "Answer",
    "AnswerStream",
    "BandReport",
    "Frame",
    "LayerReport",
    "MemoryReport",
    "ProbeTokens",
    "Runtime",
    "SamplingParams",
    "Session",
    "open_source",
]
