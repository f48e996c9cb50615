"""Prometheus metrics, made from the streams' status when they are asked for.

Nothing is counted a second time: what a scrape shows is what the streams say of themselves then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from hermes_edge.errors import SettingsError
from hermes_edge.process import resident_bytes
from hermes_edge.service.status import StreamStatus, Times
from hermes_edge.sources.redact import redacted_text

Statuses = Callable[[], Sequence[StreamStatus]]


class StreamCollector(Collector):
    """All metrics of a service; times in seconds, as Prometheus asks."""

    def __init__(self, statuses: Statuses, in_flight_s: Callable[[], float]) -> None:
        """``in_flight_s``: how long the present engine call has taken."""
        self._statuses, self._in_flight_s = statuses, in_flight_s

    def collect(self) -> Iterator[Metric]:
        """One family after the other."""
        streams = self._statuses()
        yield from self._counters(streams)
        yield from self._gauges(streams)
        yield from self._summaries(streams)

    def _counters(self, streams: Sequence[StreamStatus]) -> Iterator[Metric]:
        frames = CounterMetricFamily(
            "hermes_edge_frames", "Frames by what became of them", labels=["stream", "outcome"]
        )
        reconnects = CounterMetricFamily(
            "hermes_edge_reconnects", "Times that a lost source came back", labels=["stream"]
        )
        restores = CounterMetricFamily(
            "hermes_edge_restores", "Memories that came from a snapshot", labels=["stream"]
        )
        failures = CounterMetricFamily(
            "hermes_edge_save_failures", "Snapshots that could not be written", labels=["stream"]
        )
        for stream in streams:
            for outcome, count in stream.frames.items():
                frames.add_metric([stream.name, outcome], count)
            reconnects.add_metric([stream.name], stream.reconnects)
            restores.add_metric([stream.name], int(stream.restored))
            failures.add_metric([stream.name], stream.save_failures)
        yield from (frames, reconnects, restores, failures)

    def _gauges(self, streams: Sequence[StreamStatus]) -> Iterator[Metric]:
        up = GaugeMetricFamily(
            "hermes_edge_stream_running", "1 where frames come", labels=["stream"]
        )
        age = GaugeMetricFamily(
            "hermes_edge_frame_age_seconds",
            "Since the newest encoded frame was captured",
            labels=["stream"],
        )
        rows = GaugeMetricFamily(
            "hermes_edge_rows", "Rows of a band's largest layer", labels=["stream", "band"]
        )
        slabs = GaugeMetricFamily(
            "hermes_edge_slab_bytes", "Slabs, spare pair included", labels=["stream"]
        )
        for stream in streams:
            up.add_metric([stream.name], int(stream.state == "running"))
            if stream.age_s is not None:
                age.add_metric([stream.name], stream.age_s)
            for band, count in stream.rows_by_band.items():
                rows.add_metric([stream.name, band], count)
            slabs.add_metric([stream.name], stream.slab_bytes)
        yield from (up, age, rows, slabs)
        yield GaugeMetricFamily(
            "hermes_edge_resident_bytes", "Resident memory of the process", value=resident_bytes()
        )
        yield GaugeMetricFamily(
            "hermes_edge_engine_call_seconds",
            "How long the present engine call has taken",
            value=self._in_flight_s(),
        )

    def _summaries(self, streams: Sequence[StreamStatus]) -> Iterator[Metric]:
        first = _summary("hermes_edge_first_token_seconds", "From question to first token")
        further = _summary("hermes_edge_further_token_seconds", "Tokens after the first")
        save = _summary("hermes_edge_save_seconds", "Snapshots until they were in place")
        pause = _summary("hermes_edge_save_pause_seconds", "Waits of a stream for its snapshot")
        stages = SummaryMetricFamily(
            "hermes_edge_stage_seconds",
            "Encoding by stage; vision and encode count frames, the others chunks",
            labels=["stream", "stage"],
        )
        for stream in streams:
            done = stream.stages
            for family, times in (
                (first, stream.first_token),
                (further, stream.further_token),
                (save, stream.save),
                (pause, stream.pause),
            ):
                _add(family, [stream.name], times)
            for stage, count, sum_ms in (
                ("vision", done.frames, done.vision_ms),
                ("encode", done.frames, done.encode_ms),
                ("score", done.chunks, done.score_ms),
                ("compact", done.compactions, done.compact_ms),
            ):
                _add(stages, [stream.name, stage], Times(count, sum_ms))
        yield from (first, further, save, pause, stages)


def serve_metrics(collector: StreamCollector, port: int, address: str) -> Callable[[], None]:
    """Serve ``/metrics`` from a thread.

    Returns:
        What ends it.

    Raises:
        SettingsError: the port is taken, or the address is none of this machine.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    try:
        server, thread = start_http_server(port, address, registry)
    except (OSError, UnicodeError) as error:  # the second for a name such as ".."
        raise SettingsError(
            "metrics cannot be served",
            required="a free port of this machine",
            found=f"{redacted_text(address)}:{port}: {getattr(error, 'strerror', None) or error}",
            fix="Choose another --metrics-port or --metrics-address",
        ) from None

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return end


def _summary(name: str, help_text: str) -> SummaryMetricFamily:
    return SummaryMetricFamily(name, help_text, labels=["stream"])


def _add(family: SummaryMetricFamily, labels: list[str], times: Times) -> None:
    family.add_metric(labels, count_value=times.count, sum_value=times.sum_ms / 1e3)
