"""What to turn where a plan does not fit."""

from __future__ import annotations

import math
from collections.abc import Iterator

from hermes_edge.planning.plan import Plan, share_out
from hermes_edge.spec import Precision, Quantization

_FORMS: tuple[tuple[str, Precision, Quantization | None], ...] = (
    ("--dtype fp16", "fp16", None),
    ("--dtype int8 --compute fp16", "fp16", Quantization(8, None)),
    ("--dtype int4 --compute fp16", "fp16", Quantization(4, 32)),
)
_PER_STREAM = ("slabs", "spare slabs", "waiting frames")


def memory_knobs(plan: Plan) -> tuple[str, ...]:
    """What makes memory suffice, each alone, the least harm first; none where it does."""
    if plan.left_bytes >= 0:
        return ()
    knobs = (*_frame_size(plan), *_budget(plan), *_export(plan), *_streams(plan), *_reserve(plan))
    return knobs or (_no_knob(plan),)


def time_knob(plan: Plan) -> str | None:
    """What makes time suffice, whatever is done for memory; None where it does."""
    if plan.load <= 1:
        return None
    fps = plan.wish.fps / plan.load
    # Two digits, rounded down: the rate that is told is one that fits.
    unit = 10.0 ** (math.floor(math.log10(fps)) - 1)
    return f"--fps {math.floor(fps / unit) * unit:.2g} at most"


def _bytes_of(plan: Plan, *names: str) -> int:
    return sum(share.nbytes for share in plan.shares if share.name in names)


def _frame_size(plan: Plan) -> Iterator[str]:
    """Of the same shape, and no smaller than what the tower sees."""
    wish, vision = plan.wish, plan.subject.vision
    frames = _bytes_of(plan, "waiting frames")
    if frames + plan.left_bytes <= 0:
        return
    scale = math.sqrt((frames + plan.left_bytes) / frames)
    width, height = int(wish.frame_width * scale), int(wish.frame_height * scale)
    if min(width, height) >= (1 if vision is None else vision.image_size):
        yield f"--frame-size {width}x{height}"


def _budget(plan: Plan) -> Iterator[str]:
    decoder, wish = plan.subject.decoder, plan.wish
    # Slabs and spare of one budget token over all streams.
    token = wish.streams * 2 * (decoder.layers + 1) * decoder.row_bytes(plan.subject.precision)
    budget = wish.budget_tokens + plan.left_bytes // token
    if budget >= plan.memory.chunk_rows:
        yield f"--budget {budget}"


def _export(plan: Plan) -> Iterator[str]:
    """The largest export that would fit."""
    for options, precision, quantization in _FORMS:
        if quantization is not None and not quantization.divides(plan.subject.decoder):
            continue
        subject = plan.subject.exported_as(precision, quantization)
        shares = share_out(subject, plan.device, plan.wish)
        if sum(share.nbytes for share in shares) <= plan.device.memory_bytes:
            yield f"an export with {options}"
            return


def _streams(plan: Plan) -> Iterator[str]:
    each = _bytes_of(plan, *_PER_STREAM) // plan.wish.streams
    others = plan.needed_bytes - plan.wish.streams * each
    streams = (plan.device.memory_bytes - others) // each
    if 0 < streams < plan.wish.streams:
        yield f"--streams {streams}"


def _reserve(plan: Plan) -> Iterator[str]:
    """Only of a reserve that can be no system's: more than half of the memory."""
    reserve = plan.device.reserve_bytes
    if 2 * reserve > plan.device.memory_bytes and reserve + plan.left_bytes >= 0:
        yield f"--reserve {(reserve + plan.left_bytes) >> 20}MiB"


def _no_knob(plan: Plan) -> str:
    subject = plan.subject
    forms = [
        subject.exported_as(precision, quantization)
        for _, precision, quantization in _FORMS
        if quantization is None or quantization.divides(subject.decoder)
    ]
    weights = min(form.decoder_bytes + form.vision_bytes for form in (subject, *forms))
    if weights + _bytes_of(plan, "process", "reserve") > plan.device.memory_bytes:
        return "a smaller model or a larger device: weights, process and reserve alone are too much"
    return "--budget, --frame-size, --streams and the export together: none alone is enough"
