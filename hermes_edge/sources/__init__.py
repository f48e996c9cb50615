"""Frames with their times, from files, folders, cameras, addresses and pipelines.

    address = parse_address("door=rtsp://user:password@10.0.0.7/stream1")
    with Capture(address.open(fps=0.5), ring_frames=16) as capture:
        for frame in capture:           # Frame(image uint8 [height, width, 3], time_s, wall_s)
            ...

A source is also an iterable of its own, without a thread: ``for frame in source``.
"""

from hermes_edge.sources.address import Address, open_source, parse_address
from hermes_edge.sources.base import Frame, GrabbedFrame, Source, SourceCounts
from hermes_edge.sources.camera import Camera
from hermes_edge.sources.capture import Capture, Counters
from hermes_edge.sources.files import VideoFile
from hermes_edge.sources.folder import ImageFolder
from hermes_edge.sources.live import LiveSource
from hermes_edge.sources.ring import BackPressure
from hermes_edge.sources.streams import Pipeline, UrlStream

__all__ = [
    "Address",
    "BackPressure",
    "Camera",
    "Capture",
    "Counters",
    "Frame",
    "GrabbedFrame",
    "ImageFolder",
    "LiveSource",
    "Pipeline",
    "Source",
    "SourceCounts",
    "UrlStream",
    "VideoFile",
    "open_source",
    "parse_address",
]
