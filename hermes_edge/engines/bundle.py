"""A bundle on disk: opened once, checked whole, then a source of engines and embeddings."""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hermes_edge.contract import (
    GraphName,
    GraphSpec,
    compact_graph,
    decoder_graph,
    embedding_probe_graph,
    score_graph,
    vision_graph,
)
from hermes_edge.engines.base import Engine
from hermes_edge.engines.views import Array
from hermes_edge.errors import BundleError, QuestionError
from hermes_edge.manifest import (
    CHAT_TEMPLATE_NAME,
    EMBEDDINGS_NAME,
    EMBEDDINGS_TENSOR,
    TOKENIZER_NAME,
    FileRecord,
    Manifest,
    read_manifest,
    sha256_of,
)
from hermes_edge.spec import PRECISION_DTYPE

# Names of safetensors.
_STORED = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_MEND = "Copy the bundle again, or export it again with: hermes-edge export CHECKPOINT -o BUNDLE"


class EmbeddingTable:
    """Rows of the token embedding table [V, E], read from a safetensors file as they are asked for.

    Not mapped into memory: Linux 6.18 made 1.5 MB of a mapping resident for every row looked up
    (docs/log.md, 2026-11-24), so that the whole table would creep in over the hours.
    """

    def __init__(self, path: Path, vocabulary: int, width: int, dtype: str) -> None:
        """Open ``path``; it stays open.

        Raises:
            BundleError: the header is damaged, or the tensor has another shape or dtype.
        """
        try:
            with path.open("rb") as file:
                header_bytes = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(min(header_bytes, 1 << 20)))
                entry = header[EMBEDDINGS_TENSOR]
                dtype_name, shape = entry["dtype"], entry["shape"]
                start = 8 + header_bytes + int(entry["data_offsets"][0])
                file_bytes = os.fstat(file.fileno()).st_size
                self._file = os.dup(file.fileno())
            weakref.finalize(self, os.close, self._file)
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise BundleError(
                f"{path} is damaged",
                required=f"a safetensors file with the tensor {EMBEDDINGS_TENSOR!r}",
                found=repr(error),
                fix=_MEND,
            ) from None
        stored = _STORED.get(str(dtype_name), dtype_name)
        found = f"{stored} {shape}"
        required = f"{dtype} {[vocabulary, width]}"
        nbytes = vocabulary * width * np.dtype(dtype).itemsize
        if found != required or start + nbytes > file_bytes:
            raise BundleError(
                f"{path} does not fit the manifest", required=required, found=found, fix=_MEND
            )
        self._path, self._start = path, start
        self._vocabulary, self._width, self._dtype = vocabulary, width, np.dtype(dtype)

    def lookup(self, token_ids: Sequence[int]) -> Array:
        """Embeddings [T, E] of T token ids.

        Raises:
            QuestionError: an id lies outside the vocabulary.
            BundleError: the file has been cut short since it was opened.
        """
        outside = [token for token in token_ids if not 0 <= token < self._vocabulary]
        if outside:
            raise QuestionError(
                "token id outside the vocabulary",
                required=f"0 to {self._vocabulary - 1}",
                found=int(outside[0]),
            )
        ids = np.asarray(token_ids, dtype=np.int64)
        rows = np.empty((len(ids), self._width), self._dtype)
        # As bytes: bfloat16 has no buffer to read into (ml_dtypes 0.6).
        for row, token in zip(rows.view(np.uint8), ids.tolist(), strict=True):
            read = os.preadv(self._file, [row], self._start + token * row.nbytes)
            if read != row.nbytes:
                raise BundleError(
                    f"{self._path} was cut short while it was in use",
                    required=f"{row.nbytes} bytes of token {token}",
                    found=f"{read} bytes",
                    fix=_MEND,
                )
        return rows


class Bundle:
    """An opened bundle; :meth:`open` is the only way to one."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def open(cls, path: str | Path, *, check_hashes: bool = True) -> Bundle:
        """Read the manifest and compare it with the contract and with every file.

        Args:
            path: the bundle's folder.
            check_hashes: also read every file and compare its sha256 (sizes are always compared).

        Raises:
            BundleError: all mismatches at once, each with what was required and found.
        """
        folder = Path(path)
        manifest = read_manifest(folder)
        faults = _file_faults(folder, manifest, check_hashes) + _contract_faults(manifest)
        if faults:
            raise BundleError(f"{folder} cannot be used: {'; '.join(faults)}", fix=_MEND)
        return cls(folder, manifest)

    def graph(self, name: GraphName) -> GraphSpec:
        """The surface that the contract demands of a graph of this model.

        Raises:
            BundleError: the bundle has no such graph.
        """
        if name not in self.manifest.graphs:
            raise BundleError(
                f"{self.path} has no {name} graph",
                found=", ".join(sorted(self.manifest.graphs)),
                fix=_MISSING_GRAPH.get(name, _MEND),
            )
        spec = contract_of(self.manifest, name)
        if spec is None:
            raise BundleError(f"{self.path} has a {name} graph that its model cannot have")
        return spec

    def engine(
        self,
        name: GraphName,
        device: str = "cpu",
        threads: int = 0,
        *,
        stream: int | None = None,
        exact: bool = False,
    ) -> Engine:
        """One graph in ONNX Runtime.

        Args:
            name: of the graph.
            device: ``cpu``, ``cuda`` or ``cuda:N``.
            threads: 0 lets ONNX Runtime choose.
            stream: address of the CUDA stream to compute on, or one of its own.
            exact: multiply integer weights in the graph's precision (slow).

        Raises:
            BundleError: no such graph, or a graph whose tensors differ from the contract.
            EngineError: the device's backend cannot be used.
            DependencyError: the backend's package is not installed.
        """
        from hermes_edge.engines.ort import OrtEngine

        spec, record = self.graph(name), self.manifest.graphs[name]
        return OrtEngine(
            self.path / record.file,
            spec,
            device,
            threads,
            stream,
            quantized=record.quantization is not None,
            exact=exact,
        )

    def embeddings(self) -> EmbeddingTable:
        """The token embedding table."""
        decoder = self.manifest.decoder
        return EmbeddingTable(
            self.path / EMBEDDINGS_NAME,
            decoder.vocabulary,
            decoder.embedding_width,
            PRECISION_DTYPE[self.manifest.precision],
        )


_MISSING_GRAPH: dict[GraphName, str] = {
    "vision": "Give visual tokens with feed_tokens(), or export a checkpoint with a vision tower",
    "embedding_probe": "Export again with: hermes-edge export CHECKPOINT -o BUNDLE "
    "--embedding-probe",
}


def contract_of(manifest: Manifest, name: GraphName) -> GraphSpec | None:
    """What the contract says of a graph of the manifest's model; None for vision without tower."""
    decoder, precision = manifest.decoder, manifest.precision
    if name == "vision":
        if manifest.vision is None:
            return None
        return vision_graph(manifest.vision, decoder.embedding_width, precision)
    if name == "decoder":
        return decoder_graph(decoder, precision, static=manifest.static_decode)
    makers = {
        "score": score_graph,
        "compact": compact_graph,
        "embedding_probe": embedding_probe_graph,
    }
    return makers[name](decoder, precision)


def _file_faults(folder: Path, manifest: Manifest, check_hashes: bool) -> list[str]:
    faults = []
    listed = {record.path for record in manifest.files}
    needed = {EMBEDDINGS_NAME, *(graph.file for graph in manifest.graphs.values())}
    # Not every bundle has them, and what is there is read.
    texts = (TOKENIZER_NAME, CHAT_TEMPLATE_NAME)
    needed |= {name for name in texts if os.path.lexists(folder / name)}
    faults += [
        f"{name}: required in the manifest's files, found none" for name in sorted(needed - listed)
    ]
    for record in manifest.files:
        try:
            fault = _file_fault(folder, record, check_hashes)
        # No permission, or a name longer than names can be.
        except OSError as error:
            fault = f"required a file that can be read, found {error.strerror}"
        if fault is not None:
            faults.append(f"{record.path}: {fault}")
    return faults


def _file_fault(folder: Path, record: FileRecord, check_hashes: bool) -> str | None:
    path = folder / record.path
    if Path(record.path).is_absolute() or ".." in Path(record.path).parts:
        return "required a path inside the bundle"
    if not path.is_file():
        return f"required {record.bytes} bytes, found no file"
    if (size := path.stat().st_size) != record.bytes:
        return f"required {record.bytes} bytes, found {size}"
    if check_hashes and (digest := sha256_of(path)) != record.sha256:
        return f"required sha256 {record.sha256}, found {digest}"
    return None


def _contract_faults(manifest: Manifest) -> list[str]:
    faults = [
        f"{name}: required in the manifest's graphs, found none"
        for name in ("decoder", "score", "compact")
        if name not in manifest.graphs
    ]
    for name, record in manifest.graphs.items():
        spec = contract_of(manifest, name)
        if spec is None:
            faults.append(f"{name}: required a vision geometry in the manifest, found none")
            continue
        required = {t.name: str(t) for t in (*spec.inputs, *spec.outputs)}
        found = {t.name: str(t) for t in (*record.inputs, *record.outputs)}
        faults += [
            f"{name}: required {required.get(tensor, 'no such tensor')}, "
            f"found {found.get(tensor, f'no {tensor}')}"
            for tensor in sorted(required.keys() | found.keys())
            if required.get(tensor) != found.get(tensor)
        ]
    return faults
