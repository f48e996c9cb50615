"""``hermes-edge recall``, from streams to tables and a document."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

Cli = Callable[..., tuple[int, str, str]]


def test_tables_document_and_word_of_how_far_it_is(cli: Cli, tmp_path: Path) -> None:
    target = tmp_path / "recall.json"
    memories = ("--policy", "full", "--policy", "window", "--budget", 32)
    code, stdout, stderr = cli("recall", *memories, "--streams", "8x6x3", "--json", target)
    assert code == 0
    assert "accuracy on streams of 8 frames (6 streams, " in stdout
    document = json.loads(target.read_text())
    assert document["settings"]["groups"] == [{"frames": 8, "streams": 6, "questions": 3}]
    assert stderr == "0 of 6 streams\n5 of 6 streams\n"


def test_a_file_that_could_not_be_written_is_refused_at_once(cli: Cli, tmp_path: Path) -> None:
    target = tmp_path / "nowhere" / "recall.json"
    code, stdout, stderr = cli("recall", "--json", target)
    assert (code, stdout) == (10, "")
    assert stderr == f"error: cannot write {target}: found no such folder {target.parent}\n"


def test_unknown_memory(cli: Cli) -> None:
    code, stdout, stderr = cli("recall", "--policy", "perfect")
    assert (code, stdout) == (2, "")
    assert stderr.startswith("error: unknown policy: required full, window, ")
    assert stderr.endswith("found 'perfect'\n")
