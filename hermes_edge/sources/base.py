"""What a source is: frames that are grabbed one by one, and converted where they are wanted.

image     uint8 [height, width, 3], RGB, of any size
time_s    seconds of the stream, from 0 or the container's first time; strictly growing
wall_s    Unix time at which the frame reached this machine; for a file, when it was read
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from hermes_edge.errors import SourceError
from hermes_edge.sources.sampler import Sampler

Image = npt.NDArray[np.uint8]
_S = TypeVar("_S", bound="Source")


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


class Source(Protocol):
    """One stream of frames. A class that inherits from it writes ``grabs`` and ``close``."""

    name: str
    """For people: no password, no token."""
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
    SourceError: ``fps`` is not None, and not between one frame in 11 days and 1,000 a second.
    """
    # Below, times and frame numbers are no numbers any more; above, no live frame is young enough.
    if fps is not None and not 1e-6 <= fps < 1000:
        raise SourceError("fps is out of range", required="from 1e-06, below 1000", found=fps)
