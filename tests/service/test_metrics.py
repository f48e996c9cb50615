"""What Prometheus reads, over a real socket."""

from __future__ import annotations

import re
import socket
import urllib.request
from collections.abc import Mapping

import pytest
from prometheus_client.parser import text_string_to_metric_families

from hermes_edge.errors import SettingsError
from hermes_edge.runtime.chunks import StageTimes
from hermes_edge.service.metrics import StreamCollector, serve_metrics
from hermes_edge.service.status import StreamStatus, Times

DOOR = StreamStatus(
    name="door",
    state="running",
    fps_in=9.5,
    frames={"in": 100, "sampled": 20, "used": 15, "dropped": 3, "skipped": 2, "bad": 1},
    reconnects=4,
    age_s=0.25,
    rows_by_band={"sensory": 13, "working": 30, "long-term": 31},
    slab_bytes=4096,
    first_token=Times(2, 500.0, 240.0),
    further_token=Times(10, 1000.0, 90.0),
    stages=StageTimes(10.0, 2000.0, 30.0, 40.0, frames=16, chunks=4, compactions=3),
    save_failures=1,
    save=Times(5, 2500.0),
    pause=Times(5, 100.0),
    restored=True,
)
YARD = StreamStatus(name="yard", state="silent")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _labels(labels: Mapping[str, str]) -> str:
    """The stream first; the parser gives them by name."""
    others = [value for name, value in labels.items() if name != "stream"]
    return ",".join([*filter(None, [labels.get("stream")]), *others])


def _scrape(port: int) -> dict[tuple[str, str], float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    return {
        (sample.name, _labels(sample.labels)): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_everything_of_a_stream_is_served() -> None:
    port = _free_port()
    end = serve_metrics(StreamCollector(lambda: [DOOR, YARD], lambda: 1.5), port, "127.0.0.1")
    found = _scrape(port)
    end()
    resident = found.pop(("hermes_edge_resident_bytes", ""))
    assert resident > 1 << 20
    door = {name: value for name, value in found.items() if "yard" not in name[1]}
    assert door == {
        **{
            ("hermes_edge_frames_total", f"door,{outcome}"): count
            for outcome, count in DOOR.frames.items()
        },
        ("hermes_edge_reconnects_total", "door"): 4,
        ("hermes_edge_restores_total", "door"): 1,
        ("hermes_edge_save_failures_total", "door"): 1,
        ("hermes_edge_stream_running", "door"): 1,
        ("hermes_edge_frame_age_seconds", "door"): 0.25,
        ("hermes_edge_rows", "door,sensory"): 13,
        ("hermes_edge_rows", "door,working"): 30,
        ("hermes_edge_rows", "door,long-term"): 31,
        ("hermes_edge_slab_bytes", "door"): 4096,
        ("hermes_edge_engine_call_seconds", ""): 1.5,
        ("hermes_edge_first_token_seconds_count", "door"): 2,
        ("hermes_edge_first_token_seconds_sum", "door"): 0.5,
        ("hermes_edge_further_token_seconds_count", "door"): 10,
        ("hermes_edge_further_token_seconds_sum", "door"): 1.0,
        ("hermes_edge_save_seconds_count", "door"): 5,
        ("hermes_edge_save_seconds_sum", "door"): 2.5,
        ("hermes_edge_save_pause_seconds_count", "door"): 5,
        ("hermes_edge_save_pause_seconds_sum", "door"): 0.1,
        ("hermes_edge_stage_seconds_count", "door,vision"): 16,
        ("hermes_edge_stage_seconds_sum", "door,vision"): 0.01,
        ("hermes_edge_stage_seconds_count", "door,encode"): 16,
        ("hermes_edge_stage_seconds_sum", "door,encode"): 2.0,
        ("hermes_edge_stage_seconds_count", "door,score"): 4,
        ("hermes_edge_stage_seconds_sum", "door,score"): 0.03,
        ("hermes_edge_stage_seconds_count", "door,compact"): 3,
        ("hermes_edge_stage_seconds_sum", "door,compact"): 0.04,
    }
    assert found["hermes_edge_stream_running", "yard"] == 0
    assert ("hermes_edge_frame_age_seconds", "yard") not in found


def test_a_port_that_is_taken() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        text = (
            f"metrics cannot be served: required a free port of this machine, "
            f"found 127.0.0.1:{port}: Address already in use. "
            "Choose another --metrics-port or --metrics-address"
        )
        with pytest.raises(SettingsError, match=rf"\A{re.escape(text)}\Z"):
            serve_metrics(StreamCollector(list, lambda: 0.0), port, "127.0.0.1")


def test_an_address_of_another_machine() -> None:
    with pytest.raises(SettingsError, match=r"^metrics cannot be served: .*, found 192\.0\.2\.1:"):
        serve_metrics(StreamCollector(list, lambda: 0.0), _free_port(), "192.0.2.1")


def test_a_password_in_place_of_an_address() -> None:
    with pytest.raises(SettingsError) as caught:
        serve_metrics(
            StreamCollector(list, lambda: 0.0), _free_port(), "rtsp://admin:s3cr3t@127.0.0.1:9/x"
        )
    assert ", found rtsp://***@127.0.0.1:9/x:" in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


def test_an_address_that_is_no_name() -> None:
    with pytest.raises(SettingsError, match=r"^metrics cannot be served: .*, found \.\.:\d+: .+"):
        serve_metrics(StreamCollector(list, lambda: 0.0), _free_port(), "..")


def test_a_port_is_free_again_afterwards() -> None:
    port = _free_port()
    for _ in range(2):
        serve_metrics(StreamCollector(list, lambda: 0.0), port, "127.0.0.1")()
