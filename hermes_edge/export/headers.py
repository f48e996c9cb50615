"""A checkpoint by its configuration and the headers of its weights; no weight is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hermes_edge.errors import CheckpointError
from hermes_edge.export.checkpoint import required_tensors
from hermes_edge.export.config import ModelConfig, read_config
from hermes_edge.export.hub import hub_errors, resolve_source
from hermes_edge.export.weights import (
    INDEX_FILE,
    SINGLE_FILE,
    Weights,
    canonical_name,
    check_shapes,
)


@dataclass(frozen=True, slots=True)
class Headers:
    """What the headers were compared with; ``folder`` holds the configuration and no more."""

    folder: Path
    model_id: str
    config: ModelConfig


def read_headers(source: str) -> Headers:
    """Open a folder, whole or with its configuration alone, or a hub id.

    Raises:
        CheckpointError: no such checkpoint, an unsupported model, damaged files, or tensors that
            are missing or of another shape than the configuration says.
    """
    local = Path(source).expanduser().is_dir()
    folder, model_id = resolve_source(source, weights=False)
    config = read_config(folder)
    if not local:
        check_shapes(_hub_shapes(source), required_tensors(config))
    elif any((folder / name).is_file() for name in (SINGLE_FILE, INDEX_FILE)):
        Weights.open(folder).check(required_tensors(config))
    return Headers(folder, model_id, config)


def _hub_shapes(hub_id: str) -> dict[str, tuple[int, ...]]:
    """Shapes by canonical name, from the first bytes of each file."""
    from huggingface_hub import get_safetensors_metadata
    from huggingface_hub.errors import NotASafetensorsRepoError, SafetensorsParsingError

    with hub_errors(hub_id):
        try:
            files = get_safetensors_metadata(hub_id).files_metadata.values()
        except (NotASafetensorsRepoError, SafetensorsParsingError) as error:
            raise CheckpointError(
                f"the hub's checkpoint {hub_id} has no weights that can be read",
                required=f"{SINGLE_FILE} or {INDEX_FILE}",
                found=str(error).partition("\n")[0],
            ) from None
    return {
        canonical_name(name): tuple(tensor.shape)
        for file in files
        for name, tensor in file.tensors.items()
    }
