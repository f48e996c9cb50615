"""The document: what is written can be read, and a disk that is full loses nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hermes_edge.errors import SettingsError, StorageError
from hermes_edge.recall.document import from_document, to_document, write_document
from hermes_edge.recall.records import CellKey, Result


def test_a_document_holds_the_whole_result(made_up: Result, parts: dict[str, Any]) -> None:
    text = to_document(made_up)
    assert from_document(text) == made_up
    turned = {name: dict(reversed(parts[name].items())) for name in ("settings", "cells")}
    backwards = Result(**{**parts, **turned})
    assert backwards == made_up
    assert to_document(backwards) == text


def test_answers_are_one_letter_each(made_up: Result) -> None:
    document = json.loads(to_document(made_up))
    assert len(document["cells"]) == len(made_up.cells)
    for cell in document["cells"]:
        answers = made_up.cells[CellKey(cell["policy"], cell["budget_tokens"])]
        assert cell["answers"].count("1") == sum(answer is True for answer in answers)
        assert cell["answers"].count("-") == sum(answer is None for answer in answers)
        assert len(cell["answers"]) == len(made_up.asked)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda d: d.pop("asked"), "asked: Field required"),
        (
            lambda d: d["cells"][0].update(answers="1"),
            "1 answers of full at 0 tokens to 240 questions",
        ),
        (
            lambda d: d["cells"][0].update(answers="2" * 240),
            "cells.0.answers: String should match pattern '^[01-]*$'",
        ),
        (lambda d: d["asked"][0].update(mood="good"), "asked.0.mood: Unexpected keyword argument"),
        (
            lambda d: d["asked"][5].update(age_frames="old"),
            "asked.5.age_frames: Input should be a valid integer",
        ),
        (lambda d: d["cells"].append(d["cells"][0]), "two cells of full at 0 tokens"),
        (
            lambda d: d["settings"].pop("training_frames"),
            "settings.training_frames: Field required",
        ),
        (
            lambda d: [asked.pop("kind") for asked in d["asked"]],
            "asked.0.kind: Field required; asked.1.kind: Field required; "
            "asked.2.kind: Field required; and 237 more",
        ),
    ],
)
def test_a_damaged_document_is_refused(made_up: Result, change: Any, found: str) -> None:
    document = json.loads(to_document(made_up))
    change(document)
    text = f"not a recall document: required what hermes-edge recall --json writes, found {found}"
    with pytest.raises(SettingsError, match=rf"\A{re.escape(text)}\Z"):
        from_document(json.dumps(document))


@pytest.mark.parametrize("text", ["", "[1]", "nonsense", "{}", "null", "[" * 10**5, b"\xff"])
def test_what_is_no_document_is_refused(text: str | bytes) -> None:
    with pytest.raises(SettingsError, match=r"\Anot a recall document: required what hermes-edge"):
        from_document(text)


def test_another_version_is_refused(made_up: Result) -> None:
    document = {**json.loads(to_document(made_up)), "schema_version": 9}
    text = "a recall document of another version: required 1, found 9"
    with pytest.raises(SettingsError, match=rf"\A{re.escape(text)}\Z"):
        from_document(json.dumps(document))


def test_a_folder_that_is_missing_is_said(made_up: Result, tmp_path: Path) -> None:
    path = tmp_path / "missing" / "r.json"
    text = (
        f"cannot write {path}: found No such file or directory. "
        "Make room, or name another file with --json"
    )
    with pytest.raises(StorageError, match=rf"\A{re.escape(text)}\Z"):
        write_document(path, made_up)


FILL = """
import resource, signal, sys
from pathlib import Path
from hermes_edge.errors import StorageError
from hermes_edge.recall.document import from_document, write_document
path = Path(sys.argv[1])
result = from_document(path.read_text())
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_document(path, result)
except StorageError as error:
    print(error)
"""


def test_a_full_disk_leaves_the_old_document(made_up: Result, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    write_document(path, made_up)
    before = path.read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", FILL, str(path)], capture_output=True, text=True, check=True
    )
    text = f"cannot write {path}: found File too large. Make room, or name another file with --json"
    assert done.stdout.strip() == text
    assert path.read_bytes() == before
    assert [*tmp_path.iterdir()] == [path]


def test_a_folder_that_is_a_file_is_said(made_up: Result, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "r.json"
    with pytest.raises(
        StorageError, match=re.escape(f"cannot write {path}: found Not a directory")
    ):
        write_document(path, made_up)


def test_a_folder_without_permission_is_said(made_up: Result, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    write_document(path, made_up)
    before = path.read_bytes()
    tmp_path.chmod(0o555)
    try:
        done = subprocess.run(
            [sys.executable, "-c", UNPRIVILEGED, str(path)],
            input=before,
            capture_output=True,
            check=True,
        )
    finally:
        tmp_path.chmod(0o755)
    text = (
        f"cannot write {path}: found Permission denied. Make room, or name another file with --json"
    )
    assert done.stdout.decode().strip() == text
    assert path.read_bytes() == before
    assert [*tmp_path.iterdir()] == [path]


UNPRIVILEGED = """
import os, sys
from pathlib import Path
from hermes_edge.errors import StorageError
from hermes_edge.recall.document import from_document, write_document
result = from_document(sys.stdin.read())
if os.geteuid() == 0:
    # Permissions do not bind root.
    os.setuid(65534)
try:
    write_document(Path(sys.argv[1]), result)
except StorageError as error:
    print(error)
"""


def test_what_is_no_regular_file_is_never_replaced(made_up: Result, tmp_path: Path) -> None:
    """Renaming over a device would break the machine of whoever names one as root."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    text = f"cannot write {path}: found no regular file there"
    with pytest.raises(StorageError, match=rf"\A{re.escape(text)}\Z"):
        write_document(path, made_up)
    assert path.is_fifo()
    assert [*tmp_path.iterdir()] == [path]


def test_a_link_is_written_through(made_up: Result, tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("old")
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "real.json")
    write_document(link, made_up)
    assert link.is_symlink()
    assert (tmp_path / "real.json").read_text() == to_document(made_up)
