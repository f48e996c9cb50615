"""``hermes-edge run`` on the bundle in the box."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from hermes_edge.synthetic import make_stream, write_video

Cli = Callable[..., tuple[int, str, str]]

NOISE = "warning: the weights of this bundle are random, so the answers are noise\n"


def documents(stdout: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in stdout.splitlines()]


def test_answers_come_at_their_times_with_their_figures(run: Cli) -> None:
    code, stdout, stderr = run("--ask", "end What was it?", "--ask", "0:06 What is it?")
    assert (code, stderr) == (0, NOISE)
    headers = re.findall(r"^\[(\S+)\] (.+)$", stdout, re.M)
    assert headers == [("0:06", "What is it?"), ("0:18", "What was it?")]
    figures = re.findall(
        r"^    TTFT \S+ ms, \S+ ms per further token, (\d+) rows, seen up to (\S+)$", stdout, re.M
    )
    assert [seen for _, seen in figures] == ["0:06", "0:18"]
    assert re.search(
        r"^10 frames up to 0:18; \d+ of \d+ rows \(budget \d+\), slabs \S+ MiB, "
        r"resident \S+ [MG]iB$",
        stdout,
        re.M,
    )


def test_json_is_one_document_per_line_and_nothing_else(run: Cli) -> None:
    code, stdout, _ = run("--ask", "0:06 A?", "--ask", "end B?", "--json", "--budget", 256)
    assert code == 0
    first, last, summary = documents(stdout)
    assert [first["type"], last["type"], summary["type"]] == ["answer", "answer", "summary"]
    assert (first["question"], first["asked_at_s"], first["video_time_s"]) == ("A?", 6.0, 6.0)
    assert (last["asked_at_s"], last["late"], last["video_time_s"]) == (None, False, 18.0)
    assert isinstance(first["token_ids"], list)
    assert 1 <= len(first["token_ids"]) <= 4
    assert summary["ended_early"] is None
    memory = summary["memory"]
    assert isinstance(memory, dict)
    assert (memory["budget_rows"], memory["frames_seen"]) == (256, 10)
    assert memory["slab_bytes"] > memory["spare_bytes"] > 0


def test_streamed_text_is_the_text_of_the_document(run: Cli) -> None:
    _, stdout, _ = run("--ask", "0:06 A?", "--json")
    _, streamed, _ = run("--ask", "0:06 A?")
    text = documents(stdout)[0]["text"]
    assert isinstance(text, str)
    between = streamed.partition("[0:06] A?\n")[2].partition("\n    TTFT")[0]
    assert between == text.translate({code: None for code in (*range(9), *range(11, 32), 127)})


def test_question_beyond_the_end_is_asked_at_the_end_and_says_so(run: Cli) -> None:
    code, stdout, stderr = run("--ask", "5:00 What is it?")
    assert code == 0
    assert stdout.startswith("[0:18] What is it?\n")
    late = "warning: the video ends at 0:18: the question for 5:00 is asked there\n"
    assert stderr == late + NOISE
    _, stdout, _ = run("--ask", "5:00 What is it?", "--json")
    assert documents(stdout)[0]["late"] is True


def test_video_that_breaks_off_answers_what_was_seen_and_says_so(
    random_bundle: Path, cli: Cli, tmp_path: Path
) -> None:
    whole, broken = tmp_path / "whole.avi", tmp_path / "broken.avi"
    write_video(whole, make_stream(0, 40), fps=2)
    data = whole.read_bytes()
    broken.write_bytes(data[: len(data) // 2])
    args = ("run", broken, "--bundle", random_bundle, "--ask", "end A?", "--max-tokens", 2)
    code, stdout, stderr = cli(*args)
    assert code == 0
    assert "TTFT" in stdout
    assert re.search(r"^warning: \S+broken\.avi broke off after \S+ of 20\.0 s$", stderr, re.M)
    _, stdout, _ = cli(*args, "--json")
    assert "broke off after" in str(documents(stdout)[-1]["ended_early"])


def test_folder_of_images(random_bundle: Path, cli: Cli, tmp_path: Path) -> None:
    for index in range(3):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.full((40, 60, 3), 80 * index, np.uint8))
    code, stdout, _ = cli(
        *("run", tmp_path, "--bundle", random_bundle, "--ask", "1 A?", "--json"),
        *("--fps", 1, "--max-tokens", 2),
    )
    assert code == 0
    assert documents(stdout)[0]["video_time_s"] == 1.0


def test_settings_come_from_file_and_environment(
    random_bundle: Path, cli: Cli, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hermes-edge.toml").write_text(
        f'bundle = "{random_bundle}"\nbudget = 300\nchunk_frames = 4\nmax_tokens = 2\n'
    )
    monkeypatch.setenv("HERMES_EDGE_POLICY", "window")
    code, stdout, _ = cli("run", video, "--ask", "0:02 A?", "--json", "--budget", 280)
    assert code == 0
    memory = documents(stdout)[-1]["memory"]
    assert isinstance(memory, dict)
    assert (memory["policy"], memory["budget_rows"]) == ("window", 280)


def test_budget_in_bytes(run: Cli) -> None:
    code, stdout, _ = run("--ask", "0:02 A?", "--json", "--budget", "1MiB")
    assert code == 0
    memory = documents(stdout)[-1]["memory"]
    assert isinstance(memory, dict)
    # Ten layers, two heads of 16 in fp32, keys and values: 2,560 bytes a token.
    assert memory["budget_rows"] == (1 << 20) // 2560


def test_equal_seeds_sample_equal_answers(run: Cli) -> None:
    sampled = ("--ask", "0:02 A?", "--json", "--temperature", 2, "--top-p", 0.9)
    texts = [documents(run(*sampled, "--seed", seed)[1])[0]["token_ids"] for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_stop_text_ends_the_answer(run: Cli) -> None:
    whole = documents(run("--ask", "0:02 A?", "--json", "--max-tokens", 12)[1])[0]
    text = str(whole["text"])
    middle = text[len(text) // 2]
    cut = documents(run("--ask", "0:02 A?", "--json", "--max-tokens", 12, "--stop", middle)[1])[0]
    assert (cut["text"], cut["finish_reason"]) == (text.partition(middle)[0], "stop")
