"""The arithmetic of a plan: bytes by what holds them, and the least time that each stage takes.

Slabs and weights are exact. The workspace of the engines is an estimate of their largest call.
Times are floors: the device's peak rate or bandwidth, whichever is slower; no engine reaches them.
"""

from __future__ import annotations

from dataclasses import dataclass

from hermes_edge.bench.figures import Floor, RateFigures
from hermes_edge.bench.floors import decoder_floor, vision_floor
from hermes_edge.errors import SettingsError
from hermes_edge.planning.devices import Device
from hermes_edge.planning.subject import Subject
from hermes_edge.runtime.limits import (
    DEFAULT_WORKSPACE_BYTES,
    check_budget,
    check_counts,
)
from hermes_edge.runtime.shapes import slice_rows_for
from hermes_edge.spec import PRECISION_BYTES, MemorySpec

QUESTION_TOKENS = 32
# Python, numpy, OpenCV, tokenizers and ONNX Runtime, less hermes-tiny's weights and slabs:
# `hermes-edge demo` on x86_64 (README.md). A shared memory holds them too.
_PROCESS_BYTES = 136 << 20


@dataclass(frozen=True, slots=True)
class Wish:
    """What shall run.

    Attributes:
        streams: sessions at once, each with its own memory.
        fps: frames per second that each stream uses.
        frame_width, frame_height: of the camera; a chunk of its frames may wait.
        slice_workspace_bytes: for the attention of one pass; sets the slices of a chunk.
    """

    budget_tokens: int
    chunk_frames: int
    reserve_tokens: int
    streams: int
    fps: float
    frame_width: int
    frame_height: int
    slice_workspace_bytes: int = DEFAULT_WORKSPACE_BYTES


@dataclass(frozen=True, slots=True)
class Share:
    """What holds bytes of the device, and why so many."""

    name: str
    nbytes: int
    why: str


@dataclass(frozen=True, slots=True)
class Stage:
    """The least time of one stage."""

    name: str
    floor: Floor


@dataclass(frozen=True, slots=True)
class Plan:
    """All of it.

    Attributes:
        load: share of the device's time that the streams' frames take at best.
    """

    subject: Subject
    device: Device
    wish: Wish
    memory: MemorySpec
    shares: tuple[Share, ...]
    stages: tuple[Stage, ...]
    load: float

    @property
    def needed_bytes(self) -> int:
        """Of all shares."""
        return sum(share.nbytes for share in self.shares)

    @property
    def left_bytes(self) -> int:
        """Negative where it does not fit."""
        return self.device.memory_bytes - self.needed_bytes

    @property
    def fits(self) -> bool:
        """Whether memory and time suffice, at best."""
        return self.left_bytes >= 0 and self.load <= 1


def make_plan(subject: Subject, device: Device, wish: Wish) -> Plan:
    """Add everything up.

    Raises:
        SettingsError: a count that is out of range.
        BudgetError: a budget below one chunk, or above the model's positions.
    """
    _check(subject, wish)
    memory = _memory(subject, wish)
    shares = share_out(subject, device, wish)
    stages, frame_ms = _stages(subject, device, wish, memory)
    load = wish.streams * wish.fps * frame_ms / 1000
    return Plan(subject, device, wish, memory, shares, stages, load)


def _check(subject: Subject, wish: Wish) -> None:
    counts = {"frame width": wish.frame_width, "frame height": wish.frame_height}
    check_counts(
        chunk_frames=wish.chunk_frames,
        reserve_tokens=wish.reserve_tokens,
        streams=wish.streams,
        **counts,
    )
    if not 0 < wish.fps < 1000:
        raise SettingsError("fps is out of range", required="above 0, below 1000", found=wish.fps)
    check_budget(subject.decoder, _memory(subject, wish))


def _memory(subject: Subject, wish: Wish) -> MemorySpec:
    chunk_rows = wish.chunk_frames * subject.frames.tokens
    return MemorySpec(subject.prefix_tokens, wish.budget_tokens, chunk_rows, wish.reserve_tokens)


def _slice_rows(subject: Subject, wish: Wish, memory: MemorySpec) -> int:
    heads = subject.decoder.query_heads
    rows = slice_rows_for(wish.slice_workspace_bytes, heads, memory.capacity_rows)
    return min(rows, memory.chunk_rows)


def share_out(subject: Subject, device: Device, wish: Wish) -> tuple[Share, ...]:
    """What holds bytes of the device; they need not fit."""
    decoder, precision, streams = subject.decoder, subject.precision, wish.streams
    memory = _memory(subject, wish)
    each = "" if streams == 1 else f" x {streams} streams"
    workspace = _workspace(subject, wish, memory)
    rows = f"{memory.capacity_rows:,} rows x {decoder.kv_bytes_per_token(precision):,} B"
    ring = wish.chunk_frames * wish.frame_width * wish.frame_height * 3
    shares = [
        Share("decoder weights", subject.decoder_bytes, subject.form),
        Share("vision weights", subject.vision_bytes, precision),
        Share("engine workspace", workspace, "estimate of the largest call"),
        Share("slabs", streams * memory.slab_bytes(decoder, precision), rows + each),
        Share("spare slabs", streams * memory.spare_bytes(decoder, precision), f"a layer{each}"),
    ]
    if device.shared:
        frames = f"{wish.chunk_frames} of {wish.frame_width} x {wish.frame_height}{each}"
        shares += [
            Share("waiting frames", streams * ring, frames),
            Share("process", _PROCESS_BYTES, "Python and libraries"),
        ]
    shares.append(Share("reserve", device.reserve_bytes, "system, firmware, driver"))
    return tuple(shares)


def _workspace(subject: Subject, wish: Wish, memory: MemorySpec) -> int:
    """Largest call of decoder or tower: engines run one at a time and share it."""
    decoder, size = subject.decoder, PRECISION_BYTES[subject.precision]
    rows = max(_slice_rows(subject, wish, memory), memory.reserve_rows)
    # Scores before and after the softmax; both halves of the gate, their product, two residuals.
    attention = 2 * decoder.query_heads * rows * memory.capacity_rows * size
    decoding = attention + rows * (3 * decoder.mlp_width + 2 * decoder.embedding_width) * size
    vision = subject.vision
    if vision is None:
        return decoding
    frames = max(_slice_rows(subject, wish, memory) // subject.frames.tokens, 1)
    patches = vision.patch_side**2
    scores = 2 * vision.heads * patches**2
    return max(
        decoding, frames * (scores + patches * (2 * vision.mlp_width + 4 * vision.width)) * size
    )


def _stages(
    subject: Subject, device: Device, wish: Wish, memory: MemorySpec
) -> tuple[tuple[Stage, ...], float]:
    """Floors, and the milliseconds of a frame in its chunk."""
    rates = RateFigures(1000 * device.tflop_per_s, device.gbyte_per_s)
    decoder, precision = subject.decoder, subject.precision
    full = memory.prefix_rows + memory.budget_rows

    def forward(new_tokens: int) -> Floor:
        is_step = subject.static_decode and new_tokens == 1
        rows = memory.capacity_rows if is_step else full + new_tokens
        return decoder_floor(decoder, precision, rates, new_tokens, rows, subject.quantization)

    rows = _slice_rows(subject, wish, memory)
    slices, rest = divmod(memory.chunk_rows, rows)
    chunk_ms = slices * forward(rows).ms + (forward(rest).ms if rest else 0.0)
    kind = forward(rows).kind
    if subject.vision is not None:
        chunk_ms += wish.chunk_frames * vision_floor(subject.vision, precision, rates).ms
    stages = (
        Stage(f"encode a chunk of {wish.chunk_frames} frames", Floor(chunk_ms, kind)),
        Stage(f"first token of a {QUESTION_TOKENS}-token question", forward(QUESTION_TOKENS)),
        Stage("each further token", forward(1)),
    )
    return stages, chunk_ms / wish.chunk_frames
