"""What a session is made of; :meth:`SessionFactory.parts` puts it together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hermes_edge.engines import EmbeddingTable
from hermes_edge.manifest import Manifest
from hermes_edge.memory import History
from hermes_edge.memory.base import Policy
from hermes_edge.runtime.chunks import ChunkEncoder
from hermes_edge.runtime.decoding import DecoderRunner, OwnTurn
from hermes_edge.runtime.exclusive import Exclusive
from hermes_edge.runtime.frames import FrameEncoder
from hermes_edge.runtime.shapes import ChunkShape
from hermes_edge.runtime.store import KVStore
from hermes_edge.runtime.text import TextCodec
from hermes_edge.runtime.turns import Claim, Turns
from hermes_edge.snapshots import StreamOptions


@dataclass(slots=True)
class HistoryCell:
    """The last question and its answer: written by the session, read when probes are made."""

    last: History | None = None


@dataclass(frozen=True, slots=True)
class SessionParts:
    """A stream's memory, and everything that works on it.

    ``release`` counts its slabs out of what the device's streams hold; more than once is fine.
    ``turn`` holds the engines for a call of the stream's own, and lends the session to a question
    until they are free: to be called where scratch rows are. ``frame_turn`` does so too, or raises
    :class:`GivenUp` where the session encodes no more.
    """

    manifest: Manifest
    options: StreamOptions
    release: Callable[[], object]
    use: Exclusive
    turn: OwnTurn
    frame_turn: OwnTurn
    turns: Turns
    claim: Claim
    store: KVStore
    policy: Policy
    runner: DecoderRunner
    encoder: ChunkEncoder
    frames: FrameEncoder | None
    table: EmbeddingTable
    codec: TextCodec | None
    shape: ChunkShape
    history: HistoryCell
    eos_token_ids: tuple[int, ...]
    width: int
    bytes_per_row: int
