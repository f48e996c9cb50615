"""Checkpoint to bundle: every stage of an export, in order."""

from __future__ import annotations

import gc
import math
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from hermes_edge.contract import (
    GraphName,
    GraphSpec,
    compact_graph,
    decoder_graph,
    embedding_probe_graph,
    score_graph,
    vision_graph,
)
from hermes_edge.errors import SettingsError
from hermes_edge.export.bundle import Staging, file_records, folder_bytes, staged
from hermes_edge.export.checkpoint import DTYPES, Checkpoint, required_tensors
from hermes_edge.export.decoder import EMBEDDINGS, Decoder, EmbeddingProbe, decoder_tensors
from hermes_edge.export.memory_graphs import Compact, Score
from hermes_edge.export.parity import compare_export
from hermes_edge.export.progress import NoProgress, Progress, stage
from hermes_edge.export.quantize import OLDEST_OPSET, check_quantization, quantize_graph
from hermes_edge.export.tokenizer import TextFacts, write_text_files
from hermes_edge.export.trace import check_opset, save, trace
from hermes_edge.export.vision import Vision
from hermes_edge.manifest import (
    EMBEDDINGS_NAME,
    EMBEDDINGS_TENSOR,
    MANIFEST_NAME,
    GraphRecord,
    Manifest,
)
from hermes_edge.spec import PRECISION_BYTES, Precision, Quantization


@dataclass(frozen=True, slots=True)
class _Form:
    """How numbers are stored, in which dialect, and whether the decoder is a static one."""

    precision: Precision
    quantization: Quantization | None
    opset: int
    static_decode: bool


_TOOLS = ("hermes_edge", "torch", "transformers", "onnxscript", "onnxruntime")


def export_checkpoint(
    source: str | Path,
    target: Path,
    *,
    precision: Precision = "fp32",
    quantization: Quantization | None = None,
    chunk_frames: int = 16,
    opset: int = 20,
    tokens_per_frame: int | None = None,
    embedding_probe: bool = False,
    static_decode: bool = False,
    overwrite: bool = False,
    verify: bool = True,
    progress: Progress | None = None,
) -> Manifest:
    """Write a bundle from a Hugging Face checkpoint.

    Args:
        source: a folder, or a hub id ``organisation/name``.
        target: the bundle's folder; it appears only when the bundle is complete.
        precision: of weights, caches and embeddings.
        quantization: of the decoder's weight matrices, or none.
        chunk_frames: frames that the runtime encodes at once.
        opset: of all graphs, 20 or 23; a decoder in int4 needs 21 and gets it.
        tokens_per_frame: only for a decoder without a vision tower, and needed there.
        embedding_probe: also write the graph of the released code's probe.
        static_decode: write the decoder for whole slabs, at the cost of a mask over cached rows.
        overwrite: replace an existing bundle.
        verify: compare the graphs with transformers' own model before the bundle appears.
        progress: told of every stage.

    Returns:
        The manifest, with the parity report where ``verify`` is set.

    Raises:
        SettingsError: an option that is out of range or does not fit the model.
        CheckpointError: the checkpoint is missing, damaged or not supported.
        ParityError: an exported graph differs from the original model.
        StorageError: the bundle cannot be written, or something else has its name.
    """
    progress = progress or NoProgress()
    _check_options(precision, chunk_frames, opset)
    with stage(progress, "checkpoint"):
        checkpoint = Checkpoint.open(source)
        tokens_per_frame = _tokens_per_frame(checkpoint, tokens_per_frame)
        if quantization is not None:
            check_quantization(quantization, checkpoint.config.decoder, precision)
    form = _Form(precision, quantization, opset, static_decode)
    with staged(Path(target), _needed_bytes(checkpoint, form), overwrite=overwrite) as staging:
        graphs = _write_graphs(checkpoint, staging, form, embedding_probe, progress)
        with stage(progress, "embeddings") as record:
            facts = _write_text(checkpoint, staging, precision)
            record.nbytes = (staging.folder / EMBEDDINGS_NAME).stat().st_size
        with stage(progress, "hashes"):
            manifest = Manifest(
                model_id=checkpoint.model_id,
                family=checkpoint.config.family,
                precision=precision,
                random_weights=checkpoint.config.random_weights,
                decoder=checkpoint.config.decoder,
                vision=checkpoint.config.vision,
                tokens_per_frame=tokens_per_frame,
                chunk_frames=chunk_frames,
                video_token=facts.video_token,
                eos_token_ids=facts.eos_token_ids,
                graphs=graphs,
                files=file_records(staging.folder),
                parity=None,
                tools={
                    "python": platform.python_version(),
                    **{name: str(import_module(name).__version__) for name in _TOOLS},
                },
            )
        _write_manifest(staging, manifest)
        if verify:
            report = compare_export(staging.folder, checkpoint, progress)
            manifest = manifest.model_copy(update={"parity": report})
            _write_manifest(staging, manifest)
    return manifest


def _check_options(precision: str, chunk_frames: int, opset: int) -> None:
    check_opset(opset)
    if precision not in PRECISION_BYTES:
        raise SettingsError(
            "unsupported precision", required=" or ".join(PRECISION_BYTES), found=precision
        )
    if chunk_frames < 1:
        raise SettingsError("chunk_frames is too small", required="at least 1", found=chunk_frames)


def _tokens_per_frame(checkpoint: Checkpoint, given: int | None) -> int:
    vision = checkpoint.config.vision
    if vision is None:
        if given is None or given < 1:
            raise SettingsError(
                f"{checkpoint.model_id} has no vision tower to tell the tokens of a frame",
                required="tokens_per_frame of at least 1",
                found="none" if given is None else given,
            )
        return given
    if given is not None and given != vision.tokens_per_frame:
        raise SettingsError(
            "tokens_per_frame does not fit the vision tower",
            required=f"{vision.tokens_per_frame}, or none given",
            found=given,
        )
    return vision.tokens_per_frame


def _needed_bytes(checkpoint: Checkpoint, form: _Form) -> int:
    """The decoder's weights as they will be stored; everything else as it is."""
    decoder, size = checkpoint.config.decoder, PRECISION_BYTES[form.precision]
    own = decoder_tensors(decoder)
    shapes = required_tensors(checkpoint.config)
    others = sum(math.prod(shape) for name, shape in shapes.items() if name not in own)
    table = math.prod(own[EMBEDDINGS])
    return (others + table) * size + decoder.weight_bytes(form.precision, form.quantization)


def _write_graphs(
    checkpoint: Checkpoint,
    staging: Staging,
    form: _Form,
    embedding_probe: bool,
    progress: Progress,
) -> dict[GraphName, GraphRecord]:
    precision = form.precision
    config, weights, dtype = checkpoint.config, checkpoint.weights, DTYPES[precision]
    decoder, vision, variant = config.decoder, config.vision, config.vision_variant
    # Modules are made one at a time: one graph's weights in memory, no more.
    makers: list[tuple[GraphSpec, Callable[[], nn.Module]]] = [
        (
            decoder_graph(decoder, precision, static=form.static_decode),
            lambda: Decoder(decoder, weights, dtype, static=form.static_decode),
        ),
        (score_graph(decoder, precision), Score),
        (compact_graph(decoder, precision), lambda: Compact(decoder)),
    ]
    if vision is not None and variant is not None:
        width = decoder.embedding_width
        graph = vision_graph(vision, width, precision)
        makers.insert(0, (graph, lambda: Vision(vision, width, variant, weights, dtype)))
    if embedding_probe:
        graph = embedding_probe_graph(decoder, precision)
        makers.append((graph, lambda: EmbeddingProbe(decoder, weights, dtype)))
    records: dict[GraphName, GraphRecord] = {}
    for graph, make in makers:
        with stage(progress, graph.name) as record:
            before = folder_bytes(staging.folder)
            file = f"{graph.name}.onnx"
            quantization = form.quantization if graph.name == "decoder" else None
            opset = form.opset
            if quantization is not None:
                opset = max(opset, OLDEST_OPSET[quantization.bits])
            model = trace(make(), graph, opset)
            if quantization is not None:
                quantize_graph(model, quantization, decoder, precision)
            with staging.writing() as folder:
                save(model, folder / file)
            del model
            gc.collect()
            record.nbytes = folder_bytes(staging.folder) - before
        records[graph.name] = GraphRecord(
            file=file,
            opset=opset,
            precision=precision,
            quantization=quantization,
            inputs=graph.inputs,
            outputs=graph.outputs,
        )
    return records


def _write_text(checkpoint: Checkpoint, staging: Staging, precision: Precision) -> TextFacts:
    table: torch.Tensor = checkpoint.weights.load(EMBEDDINGS, DTYPES[precision])
    with staging.writing() as folder:
        save_file({EMBEDDINGS_TENSOR: table.contiguous()}, folder / EMBEDDINGS_NAME)
        return write_text_files(checkpoint, folder)


def _write_manifest(staging: Staging, manifest: Manifest) -> None:
    with staging.writing() as folder:
        (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
