"""Where a checkpoint comes from: a local folder, or a repository of the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hermes_edge.errors import CheckpointError

# Weights in safetensors, configuration, tokenizer; not the other formats of the same weights.
_PATTERNS = ("*.json", "*.safetensors", "*.jinja", "merges.txt")
# Not the tokenizer, which is megabytes.
_CONFIGURATION = ("*config.json",)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def resolve_source(source: str | Path, *, weights: bool = True) -> tuple[Path, str]:
    """The local folder of a checkpoint and the name to record for it.

    A path that exists is always local. A text of the form ``organisation/name`` that is no path is
    fetched from the hub (into its own cache, once).

    Args:
        source: a path or a hub id.
        weights: whether the weights are fetched too.

    Returns:
        The folder, and the hub id or the folder's name.

    Raises:
        CheckpointError: no such folder, no such repository, or the hub cannot be reached.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return path, path.resolve().name
    if path.exists():
        raise CheckpointError(
            f"{path} is not a checkpoint folder", required="a folder", found="a file"
        )
    if isinstance(source, Path) or not _HUB_ID.fullmatch(source):
        raise CheckpointError(
            f"there is no folder {path}",
            required="a checkpoint folder, or a hub id such as organisation/name",
        )
    with hub_errors(source):
        return _download(source, _PATTERNS if weights else _CONFIGURATION), source


def _download(hub_id: str, patterns: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    bars_were_disabled = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        return Path(snapshot_download(hub_id, allow_patterns=list(patterns)))
    finally:
        if not bars_were_disabled:
            enable_progress_bars()


@contextmanager
def hub_errors(hub_id: str) -> Iterator[None]:
    """What the hub's client raises becomes a CheckpointError that says what to do."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    wanted = f"the hub's checkpoint {hub_id}"
    try:
        yield
    except GatedRepoError:
        raise CheckpointError(
            f"{wanted} is gated",
            fix="Accept its licence on the hub, then log in with: hf auth login",
        ) from None
    except RepositoryNotFoundError:
        raise CheckpointError(
            f"{wanted} does not exist or is private, and there is no folder of that name either",
            fix="Check the spelling, or log in with: hf auth login",
        ) from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{wanted} cannot be fetched, and there is no folder of that name",
            found=reason,
            fix="Check the network, or download it elsewhere and give the folder.",
        ) from None
