"""``hermes-edge demo``: the model, the video and the truths in the box."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hermes_edge.cli.demo import demo_questions
from hermes_edge.runtime import open_source
from hermes_edge.shipped import DEMO_FRAMES, DEMO_SEED, DEMO_VIDEO, TINY_BUNDLE, TINY_CHECKPOINT
from hermes_edge.synthetic import SPLITS, draw_stream, make_stream

Cli = Callable[..., tuple[int, str, str]]

# What the shipped model says, in the order of the questions.
ANSWERS: tuple[str, ...] = (
    "ring",
    "green",
    "circle",
    "yes",
    "moon",
    "white",
    "cyan",
    "ring",
    "yes",
    "star",
    "green",
    "cyan",
    "circle",
    "yes",
    "star",
    "white",
    "white",
    "triangle",
    "no",
    "three",
)


def test_the_video_in_the_box_is_its_stream() -> None:
    assert DEMO_SEED in SPLITS["held-out"]
    drawn = draw_stream(make_stream(DEMO_SEED, DEMO_FRAMES))
    with open_source(DEMO_VIDEO) as source:
        for index, (frame, picture) in enumerate(zip(source, drawn, strict=True)):
            assert frame.time_s == index
            # What motion JPEG loses on noise and hard edges.
            assert np.abs(frame.image.astype(int) - picture).mean() < 6


def test_the_demo_answers_as_it_did_when_it_was_shipped(cli: Cli, tmp_path: Path) -> None:
    code, stdout, stderr = cli("demo")
    assert (code, stderr) == (0, "")
    truths = demo_questions()
    assert len(truths) >= 12
    lines = [re.split(r"\s{2,}", line.strip()) for line in stdout.splitlines() if " ms " in line]
    assert [line[1] for line in lines] == [truth.text for truth in truths]
    assert tuple(line[2] for line in lines) == ANSWERS
    told = [line[3].removesuffix(" (wrong)") for line in lines]
    assert told == [truth.answer for truth in truths]
    right = sum(a == truth.answer for a, truth in zip(ANSWERS, truths, strict=True))
    assert f"{right} of {len(truths)} right" in stdout
    marked = sum("(wrong)" in line for line in stdout.splitlines())
    assert marked == len(truths) - right
    assert (tmp_path / "hermes-edge-demo.html").stat().st_size > 20_000


def test_the_picture_goes_where_it_is_asked_to(cli: Cli, tmp_path: Path) -> None:
    code, stdout, _ = cli("demo", "--picture", tmp_path / "memory.html")
    assert code == 0
    assert "memory.html" in stdout
    assert [path.name for path in tmp_path.iterdir()] == ["memory.html"]


def test_a_picture_that_cannot_be_written_is_an_error(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "missing" / "memory.html"
    code, stdout, stderr = cli("demo", "--picture", path)
    assert code == 10
    assert " right. Slabs were allocated once" in stdout
    assert stderr == (
        f"error: cannot write the picture {path}: found No such file or directory. "
        "Name another file with --picture\n"
    )


def test_what_ships_stays_small() -> None:
    weights = sum(path.stat().st_size for path in TINY_CHECKPOINT.iterdir())
    assert weights < 10_000_000
    assert sum(path.stat().st_size for path in TINY_BUNDLE.iterdir()) < 24_000_000
    assert DEMO_VIDEO.stat().st_size < 1_500_000
