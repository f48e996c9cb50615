"""What a source is: frames that are grabbed one by one, and converted where they are wanted.

image     uint8 [height, width, 3], RGB, of any size
time_s    seconds of the stream, from 0 or the container's first time; strictly growing
wall_s    Unix time at which the frame reached this machine; for a file, when it was read
"""

from __future__ import annotations

import logging
import reprlib
import time
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from hermes_edge.arguments import real
from hermes_edge.errors import SettingsError, SourceError
from hermes_edge.sources.sampler import Sampler

Image = npt.NDArray[np.uint8]
_S = TypeVar("_S", bound="Source")

log = logging.getLogger("hermes_edge.sources")


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture, uint8 RGB [height, width, 3], at ``time_s`` seconds of the stream.

    ``captured_s`` is ``time.monotonic()`` when it was taken over: what ages are counted from.
    """

    image: Image
    time_s: float
    wall_s: float
    captured_s: float = field(default_factory=time.monotonic)


class GrabbedFrame(NamedTuple):
    """A frame that the source has given and nobody has looked at yet."""

    time_s: float
    wall_s: float
    retrieve: Callable[[], Image | None]
    """The picture, or None for a bad frame, which the source counts; until the next one."""


@dataclass(slots=True)
class SourceCounts:
    """What has happened to a source since it was made."""

    frames_read: int = 0
    bad_frames: int = 0
    """Frames without a picture: corrupt, empty, or of a form that is no picture."""
    time_corrections: int = 0
    """Timestamps that were missing, stood still or went back, and were put one step on."""
    reconnects: int = 0
    lost_s: float = 0.0
    """Seconds between the last frame before a loss and the first one after it, summed up."""


@runtime_checkable
class Source(Protocol):
    """One stream of frames. A class that inherits from it writes ``grabs`` and ``close``."""

    name: str
    """For people: no password, no token."""
    stream: str | None = None
    """The name of the stream that it is for, which its log lines begin with; None: its own."""
    fps: float | None
    """Frames per second that an iteration gives; None for every frame."""
    counts: SourceCounts
    ended_early: str | None
    """After an iteration: what is missing at the end, in one sentence, or None."""

    @property
    @abstractmethod
    def live(self) -> bool:
        """Whether frames come at their own pace and are gone if nobody takes them."""

    @abstractmethod
    def grabs(self) -> Generator[GrabbedFrame, None, None]:
        """Every frame that the source gives, in order.

        Raises:
            SourceError: it cannot be opened or read.
        """

    @abstractmethod
    def close(self) -> None:
        """End an iteration that is under way, at its next frame; safe from another thread."""

    @property
    def label(self) -> str:
        """What log lines begin with."""
        return self.name if self.stream is None else self.stream

    def tell(self, level: int, text: str, *args: object) -> None:
        """Log it: as a line that begins with the label, as a document with the stream's name."""
        figures = {} if self.stream is None else {"stream": self.stream}
        log.log(level, f"%s: {text}", self.label, *args, extra={"figures": figures}, stacklevel=2)

    def __enter__(self: _S) -> _S:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        """The first frame at or after every k/fps seconds."""
        sampler = Sampler(self.fps)
        for grabbed in self.grabs():
            frame = sampled(grabbed, sampler)
            if frame is not None:
                yield frame


def sampled(grabbed: GrabbedFrame, sampler: Sampler) -> Frame | None:
    """The frame, if the sampler wants it; a bad one leaves its turn to the next."""
    if not sampler.due(grabbed.time_s):
        return None
    image = grabbed.retrieve()
    if image is None:
        return None
    sampler.take(grabbed.time_s)
    return Frame(image, grabbed.time_s, grabbed.wall_s)


def check_fps(fps: float | None) -> None:
    """Raises:
    SettingsError: ``fps`` is neither None nor a number.
    SourceError: it is not between one frame in 11 days and 1,000 a second.
    """
    if fps is None:
        return
    number = real(fps)
    if number is None:
        found = reprlib.repr(fps)
        required = "a number, from 1e-06, below 1000, or None"
        raise SettingsError("fps is not a number", required=required, found=found)
    # Below, times and frame numbers are no numbers any more; above, no live frame is young enough.
    if not 1e-6 <= number < 1000:
        raise SourceError("fps is out of range", required="from 1e-06, below 1000", found=fps)
