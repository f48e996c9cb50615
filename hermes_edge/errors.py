"""Every error that hermes-edge raises on purpose, and the exit code that the command line gives it.

    HermesEdgeError            1
    ├── SettingsError          2    a flag, environment variable or settings file
    ├── CheckpointError        3    the Hugging Face folder to export
    ├── BundleError            4    manifest, hash, schema or tensor of an exported bundle
    ├── ParityError            5    an exported graph differs from the original model
    ├── EngineError            6    a backend that is missing, unusable, or failed in a call
    ├── BudgetError            7    a memory that cannot be made, or is full
    ├── SourceError            8    a video or frame that cannot be read
    ├── QuestionError          9    a question that cannot be asked now, or at all
    ├── StorageError          10    a disk that is full or not writable
    ├── DependencyError       11    a package of an optional extra is not installed
    └── SnapshotError         12    a saved memory that is damaged, or of something else

Catch the base class to catch them all::

    try:
        runtime = Runtime.load("engines/hermes-tiny")
    except HermesEdgeError as error:
        sys.exit(str(error))
"""

from __future__ import annotations

from typing import ClassVar

from hermes_edge.quoting import without_logins


class HermesEdgeError(Exception):
    """Base of all: says what is wrong, what was required, what was found and what to do."""

    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        problem: str,
        *,
        required: object = None,
        found: object = None,
        fix: str | None = None,
    ) -> None:
        self.problem = problem
        self.required = required
        self.found = found
        self.fix = fix
        # What is quoted may be an address with its password, given in place of a path or a name.
        facts = [] if required is None else [f"required {required}"]
        facts += [] if found is None else [f"found {without_logins(str(found))}"]
        message = without_logins(problem) + (f": {', '.join(facts)}" if facts else "")
        super().__init__(message if fix is None else f"{message}. {fix}")


class SettingsError(HermesEdgeError):
    """A flag, environment variable or settings file is wrong."""

    exit_code = 2


class CheckpointError(HermesEdgeError):
    """The checkpoint folder is missing, damaged, or of a model that cannot be exported."""

    exit_code = 3


class BundleError(HermesEdgeError):
    """The bundle is missing, damaged, of another schema, or does not fit its own contract."""

    exit_code = 4


class ParityError(HermesEdgeError):
    """An exported graph does not compute what the original model computes."""

    exit_code = 5


class EngineError(HermesEdgeError):
    """A backend cannot be used as asked, or a call of it failed."""

    exit_code = 6


class BudgetError(HermesEdgeError):
    """The memory asked for cannot be made, or a memory without eviction is full."""

    exit_code = 7


class SourceError(HermesEdgeError):
    """A video, folder or frame cannot be read."""

    exit_code = 8


class QuestionError(HermesEdgeError):
    """A question cannot be asked: no frame yet, too long, or not text."""

    exit_code = 9


class StorageError(HermesEdgeError):
    """A file cannot be written: disk full, or no permission."""

    exit_code = 10


class DependencyError(HermesEdgeError):
    """A package of an optional extra is needed and not installed."""

    exit_code = 11


class SnapshotError(HermesEdgeError):
    """A saved memory is missing, damaged, of another bundle, or not what it says."""

    exit_code = 12
