"""The document: what is written can be read, and a disk that is full loses nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hermes_edge.errors import SettingsError, StorageError
from hermes_edge.recall.document import from_document, to_document, write_document
from hermes_edge.recall.records import Result


def test_a_document_holds_the_whole_result(made_up: Result, parts: dict[str, Any]) -> None:
    text = to_document(made_up)
    assert from_document(text) == made_up
    backwards = Result(**{**parts, "settings": dict(reversed(made_up.settings.items()))})
    assert to_document(backwards) == text


def test_answers_are_one_letter_each(made_up: Result) -> None:
    document = json.loads(to_document(made_up))
    for cell, answers in zip(document["cells"], made_up.cells.values(), strict=True):
        assert cell["answers"].count("1") == sum(answer is True for answer in answers)
        assert cell["answers"].count("-") == sum(answer is None for answer in answers)
        assert len(cell["answers"]) == len(made_up.asked)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda d: d.pop("asked"), "KeyError: 'asked'"),
        (lambda d: d["cells"][0].update(answers="1"), "ValueError: a cell with another number"),
        (lambda d: d["cells"][0].update(answers="2" * 240), "KeyError: '2'"),
        (lambda d: d["asked"][0].update(mood="good"), "TypeError:"),
    ],
)
def test_a_damaged_document_is_refused(made_up: Result, change: Any, found: str) -> None:
    document = json.loads(to_document(made_up))
    change(document)
    text = f"not a recall document: required what hermes-edge recall --json writes, found {found}"
    with pytest.raises(SettingsError, match=rf"\A{re.escape(text)}"):
        from_document(json.dumps(document))


@pytest.mark.parametrize("text", ["", "[1]", "nonsense", "{}", "null"])
def test_what_is_no_document_is_refused(text: str) -> None:
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
