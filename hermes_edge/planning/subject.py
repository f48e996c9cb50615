"""What is planned: a bundle's or a checkpoint's geometry, and the bytes of its weights.

Of a checkpoint only the configuration and the headers of its safetensors are read; from the hub
only these are fetched: small files, and the first 100 kB of each weight file (huggingface_hub 2.4).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from hermes_edge.errors import BundleError, CheckpointError, DependencyError, SettingsError
from hermes_edge.manifest import MANIFEST_NAME, TOKENIZER_NAME, Manifest, read_manifest
from hermes_edge.runtime.text import TextCodec
from hermes_edge.spec import PRECISION_BYTES, DecoderSpec, Precision, Quantization, VisionSpec

if TYPE_CHECKING:
    from hermes_edge.export.headers import Headers

_DEFAULT_CHUNK_FRAMES = 16
# Of LLaVA-OneVision's template with its default system text, where no tokenizer tells.
_DEFAULT_PREFIX_TOKENS = 14


@dataclass(frozen=True, slots=True)
class Frames:
    """Tokens of a frame, and frames of a chunk unless told otherwise."""

    tokens: int
    chunk: int


@dataclass(frozen=True, slots=True)
class Subject:
    """A model in a precision.

    Attributes:
        quantization: of the decoder's matrices.
        prefix_tokens: of the system text, which every memory keeps.
        prefix_assumed: whether no tokenizer told them.
        vision_bytes: of the tower's and the projector's weights; 0 for a model that cannot see.
        table_bytes: of the embedding table, which is read row by row from its file.
        static_decode: whether a further token reads whole slabs.
    """

    name: str
    decoder: DecoderSpec
    vision: VisionSpec | None
    precision: Precision
    quantization: Quantization | None
    frames: Frames
    prefix_tokens: int
    decoder_bytes: int
    vision_bytes: int
    table_bytes: int
    prefix_assumed: bool = False
    static_decode: bool = False

    @property
    def form(self) -> str:
        """How its numbers are stored, in words."""
        return _name(self.precision, self.quantization)

    def exported_as(self, precision: Precision, quantization: Quantization | None) -> Subject:
        """The same model in another form."""
        after, before = PRECISION_BYTES[precision], PRECISION_BYTES[self.precision]
        return replace(
            self,
            precision=precision,
            quantization=quantization,
            decoder_bytes=self.decoder.weight_bytes(precision, quantization),
            vision_bytes=self.vision_bytes * after // before,
            table_bytes=self.table_bytes * after // before,
        )


def open_subject(
    source: str,
    precision: Precision | None = None,
    tokens_per_frame: int | None = None,
    quantization: Quantization | None = None,
) -> Subject:
    """A bundle's folder, a checkpoint's folder, or a hub id.

    Args:
        source: where the model is.
        precision: of the export to come, fp16 by default; a bundle has its own.
        tokens_per_frame: of a checkpoint without vision tower.
        quantization: of the export to come; a bundle has its own.

    Raises:
        BundleError, CheckpointError: it is damaged, or a model that cannot be exported.
        SettingsError: a precision that a bundle does not have, or ``tokens_per_frame`` that is
            missing or not the model's.
        DependencyError: a checkpoint, without the packages of the export.
    """
    folder = Path(source).expanduser()
    if (folder / MANIFEST_NAME).is_file():
        manifest = read_manifest(folder)
        _check_tokens(manifest.model_id, tokens_per_frame, manifest.tokens_per_frame)
        return _of_bundle(folder, manifest, precision, quantization)
    if find_spec("transformers") is None:
        raise DependencyError(
            "a checkpoint's configuration is read with transformers",
            required="the extra export, or an exported bundle",
            found=f"no {MANIFEST_NAME} in {folder}",
            fix="pip install 'hermes-edge[export]'",
        )
    return _of_checkpoint(source, precision or "fp16", tokens_per_frame, quantization)


def _of_bundle(
    folder: Path,
    manifest: Manifest,
    precision: Precision | None,
    quantization: Quantization | None,
) -> Subject:
    own = (manifest.precision, manifest.quantization)
    if precision is not None and (precision, quantization) != own:
        raise SettingsError(
            f"{folder} is exported already",
            required=_name(*own),
            found=_name(precision, quantization),
            fix="Leave --dtype out, or plan its checkpoint",
        )
    subject = _subject(
        manifest.model_id,
        manifest.decoder,
        manifest.vision,
        manifest.precision,
        manifest.quantization,
        Frames(manifest.tokens_per_frame, manifest.chunk_frames),
        _prefix_tokens(folder, manifest.video_token),
    )
    return replace(subject, static_decode=manifest.static_decode)


def _check_tokens(name: str, given: int | None, own: int) -> None:
    if given is not None and given != own:
        raise SettingsError(
            f"--tokens-per-frame does not fit {name}", required=f"{own}, or none given", found=given
        )


def _prefix_tokens(folder: Path, video_token: str | None) -> int | None:
    """As of a session's default system text; None where a bundle's folder has no tokenizer."""
    if not (folder / TOKENIZER_NAME).is_file():
        return None
    return len(TextCodec.open(folder, video_token).prefix_ids(None))


def _exported_prefix_tokens(headers: Headers) -> int | None:
    """The same of a checkpoint, by the files that an export would write."""
    from hermes_edge.export.tokenizer import write_text_files

    with TemporaryDirectory(prefix="hermes-edge-") as folder:
        facts = write_text_files(headers, Path(folder))
        try:
            return _prefix_tokens(Path(folder), facts.video_token)
        except BundleError as error:
            raise CheckpointError(
                f"the text files of {headers.model_id} cannot be used",
                required="a tokenizer, and a chat template with one video",
                found=error.problem if error.found is None else error.found,
            ) from None


def _name(precision: Precision, quantization: Quantization | None) -> str:
    return precision if quantization is None else f"{quantization}, {precision} beside it"


def _of_checkpoint(
    source: str,
    precision: Precision,
    tokens_per_frame: int | None,
    quantization: Quantization | None,
) -> Subject:
    from hermes_edge.export.headers import read_headers
    from hermes_edge.export.quantize import check_quantization

    headers = read_headers(source)
    if quantization is not None:
        check_quantization(quantization, headers.config.decoder, precision)
    vision = headers.config.vision
    if vision is not None:
        _check_tokens(headers.model_id, tokens_per_frame, vision.tokens_per_frame)
    tokens = vision.tokens_per_frame if vision is not None else tokens_per_frame
    if tokens is None or tokens < 1:
        raise SettingsError(
            f"{headers.model_id} has no vision tower",
            required="--tokens-per-frame, at least 1",
            found=tokens,
        )
    return _subject(
        headers.model_id,
        headers.config.decoder,
        vision,
        precision,
        quantization,
        Frames(tokens, _DEFAULT_CHUNK_FRAMES),
        _exported_prefix_tokens(headers),
    )


def _subject(
    name: str,
    decoder: DecoderSpec,
    vision: VisionSpec | None,
    precision: Precision,
    quantization: Quantization | None,
    frames: Frames,
    prefix_tokens: int | None,
) -> Subject:
    size, width = PRECISION_BYTES[precision], decoder.embedding_width
    weights = 0
    if vision is not None:
        projector = vision.width * width + width + width * width + width
        weights = (vision.weight_count() + projector) * size
    return Subject(
        name=name,
        decoder=decoder,
        vision=vision,
        precision=precision,
        quantization=quantization,
        frames=frames,
        prefix_tokens=_DEFAULT_PREFIX_TOKENS if prefix_tokens is None else prefix_tokens,
        prefix_assumed=prefix_tokens is None,
        decoder_bytes=decoder.weight_bytes(precision, quantization),
        vision_bytes=weights,
        table_bytes=decoder.vocabulary * width * size,
    )
