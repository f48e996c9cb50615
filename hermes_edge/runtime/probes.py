"""Where a stream's probes come from: the guidance texts, or the caller."""

from __future__ import annotations

from collections.abc import Callable

from hermes_edge.arguments import check_kind, token_ids
from hermes_edge.errors import SettingsError
from hermes_edge.memory import History, probe_texts
from hermes_edge.runtime.scoring import ProbeTokens
from hermes_edge.runtime.text import TextCodec

ProbeSource = Callable[[History | None], ProbeTokens]
"""Token ids of the two probes, given the last question and its answer."""

# Of one guidance text with history; bounds the score engine's workspace of Hq * P * (S + P).
_MOST_GUIDANCE_ROWS = 128


def most_probe_rows(reserve_rows: int, *, given: bool) -> tuple[int, int]:
    """Most rows of one probe and of both: a caller's own may fill the reserve."""
    if given:
        return reserve_rows, reserve_rows
    one = min(_MOST_GUIDANCE_ROWS, reserve_rows // 2)
    return one, 2 * one


def guidance_source(codec: TextCodec | None, policy: str | None, rows: int) -> ProbeSource:
    """The guidance texts as token ids, ``rows`` of each at most.

    Args:
        codec: the bundle's tokenizer.
        policy: name of the policy that needs them, None where nothing scores.
        rows: the guidance stands at the end of a probe, so a history too long loses its beginning.
    """

    def source(history: History | None) -> ProbeTokens:
        if codec is not None:
            working, long_term = (codec.encode(text)[-rows:] for text in probe_texts(history))
            return ProbeTokens(tuple(working), tuple(long_term))
        if policy is None:
            return ProbeTokens((), ())
        raise SettingsError(
            f"the policy {policy} scores with probes and this bundle has no tokenizer",
            required="the argument probes",
            found="none given",
            fix="Give probes, or choose the policy window or uniform",
        )

    source(None)
    return source


def bounded(probes: ProbeTokens, rows: int) -> ProbeTokens:
    """The same probes.

    Raises:
        SettingsError: one is empty or no token ids, or they do not fit ``rows`` rows together.
    """
    check_kind("what probes() gives", probes, ProbeTokens)
    token_ids("the working probe's tokens", probes.working)
    token_ids("the long-term probe's tokens", probes.long_term)
    if not (probes.working and probes.long_term and len(probes) <= rows):
        raise SettingsError(
            "the probes do not fit the reserve",
            required=f"two probes of 1 to {rows} tokens together",
            found=f"{len(probes.working)} and {len(probes.long_term)}",
            fix="Shorten them or raise reserve_tokens",
        )
    return probes
