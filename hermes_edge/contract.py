"""The tensors of every engine: names, axes, dtypes. Exporter and runtime both import this file.

    vision           in   frames uint8 [F, height, width, 3], already resized
                     out  visual_tokens [F*N, E]
    decoder          in   inputs_embeds [T, E]; position_ids int64 [L, T]; segment_ids int64 [T];
                          logit_rows int64 [R]; probe_rows int64 [P]; past_visible bool [1];
                          past_key_values.{i}.key/.value [S_i, Hkv, D];
                          for static decoding past_rows int64 [L] in place of past_visible
                     out  logits float32 [R, V]; probe_queries [L, P, Hq, D];
                          present.{i}.key/.value [T, Hkv, D], the new rows only
    score            in   queries [P, Hq, D]; keys [S, Hkv, D]; probe_keys [P, Hkv, D];
                          visible bool [P, P]
                     out  scores float32 [S]
    compact          in   keys, values [S, Hkv, D]; keep, keep_delta int64 [K];
                          fold, fold_delta int64 [R]; fold_weight float32 [R]
                     out  new_keys, new_values [K+1, Hkv, D]
    embedding_probe  in   inputs_embeds [P, E]; position_ids int64 [L, P]
                     out  probe_queries [L, P, Hq, D]; probe_keys [L, P, Hkv, D]

Where no dtype is named it is the bundle's precision. Keys and queries are rotated already.

*Segments.* Rows of segment 0 are the stream: every later row sees them. Rows of another segment
(a probe) are seen by their own segment only. So probes ride behind a chunk's last rows in one
pass, and scoring reads no weights a second time. Within what it may see, attention is causal.

*Row selections.* ``logit_rows`` and ``probe_rows`` index the T new rows; only these rows pay for
the output head or hand out their queries. Both may be empty.

*An empty memory.* No S_i is ever 0: backends disagree on tensors without rows (ONNX Runtime before
1.32 ends the process on some). While the memory is empty, one row of any finite content is bound
as the past and ``past_visible`` is false, so that nobody sees it.

*Static decoding.* A decoder with ``past_rows`` sees the first ``past_rows[i]`` of the S_i rows that
are bound to layer i, none of them where that is 0; the others may hold any finite content. So whole
slabs can be bound, and shapes and addresses stay the same from token to token.

*Compaction.* Row K of the output is the summary: the weighted sum of the folded rows, keys rotated
by ``fold_delta`` first. With nothing to fold it is zero, and the caller does not commit it.

*Zero copy.* ``present.{i}`` may be bound to the address of row S_i of the slab whose first S_i rows
are bound to ``past_key_values.{i}``: the engine then appends in place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from hermes_edge.spec import PRECISION_DTYPE, DecoderSpec, Precision, VisionSpec

DType = Literal["float32", "float16", "bfloat16", "int64", "bool", "uint8"]
Axis = int | str
GraphName = Literal["vision", "decoder", "score", "compact", "embedding_probe"]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor of a graph; an axis is a fixed length or the name of a dynamic one."""

    name: str
    dtype: DType
    axes: tuple[Axis, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} [{', '.join(map(str, self.axes))}]"


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """The complete surface of one graph."""

    name: GraphName
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def tensors(self) -> Mapping[str, TensorSpec]:
        """Inputs and outputs by name."""
        return {tensor.name: tensor for tensor in (*self.inputs, *self.outputs)}


def is_static(inputs: Iterable[TensorSpec]) -> bool:
    """Whether a decoder with these inputs is told how many of the bound rows each layer sees."""
    return any(tensor.name == "past_rows" for tensor in inputs)


def past_key(layer: int) -> str:
    """Name of a layer's cached keys, as ONNX Runtime and Optimum name them."""
    return f"past_key_values.{layer}.key"


def past_value(layer: int) -> str:
    """Name of a layer's cached values."""
    return f"past_key_values.{layer}.value"


def present_key(layer: int) -> str:
    """Name of a layer's new keys."""
    return f"present.{layer}.key"


def present_value(layer: int) -> str:
    """Name of a layer's new values."""
    return f"present.{layer}.value"


def vision_graph(vision: VisionSpec, embedding_width: int, precision: Precision) -> GraphSpec:
    """Frames, already resized, to visual tokens; channel order and normalisation are inside."""
    side = vision.image_size
    return GraphSpec(
        "vision",
        (TensorSpec("frames", "uint8", ("F", side, side, 3)),),
        (TensorSpec("visual_tokens", PRECISION_DTYPE[precision], ("F*N", embedding_width)),),
    )


def decoder_graph(decoder: DecoderSpec, precision: Precision, *, static: bool = False) -> GraphSpec:
    """All layers with explicit caches; ``static`` has ``past_rows`` for ``past_visible``."""
    dtype = PRECISION_DTYPE[precision]
    head = (decoder.kv_heads, decoder.head_size)
    inputs = [
        TensorSpec("inputs_embeds", dtype, ("T", decoder.embedding_width)),
        TensorSpec("position_ids", "int64", (decoder.layers, "T")),
        TensorSpec("segment_ids", "int64", ("T",)),
        TensorSpec("logit_rows", "int64", ("R",)),
        TensorSpec("probe_rows", "int64", ("P",)),
        TensorSpec("past_rows", "int64", (decoder.layers,))
        if static
        else TensorSpec("past_visible", "bool", (1,)),
    ]
    outputs = [
        TensorSpec("logits", "float32", ("R", decoder.vocabulary)),
        TensorSpec(
            "probe_queries",
            dtype,
            (decoder.layers, "P", decoder.query_heads, decoder.head_size),
        ),
    ]
    for layer in range(decoder.layers):
        rows = f"S{layer}"
        inputs += [
            TensorSpec(past_key(layer), dtype, (rows, *head)),
            TensorSpec(past_value(layer), dtype, (rows, *head)),
        ]
        outputs += [
            TensorSpec(present_key(layer), dtype, ("T", *head)),
            TensorSpec(present_value(layer), dtype, ("T", *head)),
        ]
    return GraphSpec("decoder", tuple(inputs), tuple(outputs))


def score_graph(decoder: DecoderSpec, precision: Precision) -> GraphSpec:
    """Attention of a probe to a layer's rows, softmax in fp32, mean over heads and probe rows."""
    dtype = PRECISION_DTYPE[precision]
    head = (decoder.kv_heads, decoder.head_size)
    return GraphSpec(
        "score",
        (
            TensorSpec("queries", dtype, ("P", decoder.query_heads, decoder.head_size)),
            TensorSpec("keys", dtype, ("S", *head)),
            TensorSpec("probe_keys", dtype, ("P", *head)),
            TensorSpec("visible", "bool", ("P", "P")),
        ),
        (TensorSpec("scores", "float32", ("S",)),),
    )


def compact_graph(decoder: DecoderSpec, precision: Precision) -> GraphSpec:
    """Rows to keep and rows to fold into one summary, with key rotation by position deltas."""
    dtype = PRECISION_DTYPE[precision]
    head = (decoder.kv_heads, decoder.head_size)
    return GraphSpec(
        "compact",
        (
            TensorSpec("keys", dtype, ("S", *head)),
            TensorSpec("values", dtype, ("S", *head)),
            TensorSpec("keep", "int64", ("K",)),
            TensorSpec("keep_delta", "int64", ("K",)),
            TensorSpec("fold", "int64", ("R",)),
            TensorSpec("fold_delta", "int64", ("R",)),
            TensorSpec("fold_weight", "float32", ("R",)),
        ),
        (
            TensorSpec("new_keys", dtype, ("K+1", *head)),
            TensorSpec("new_values", dtype, ("K+1", *head)),
        ),
    )


def embedding_probe_graph(decoder: DecoderSpec, precision: Precision) -> GraphSpec:
    """Queries and keys of raw token embeddings, layer by layer: the released code's shortcut."""
    dtype = PRECISION_DTYPE[precision]
    return GraphSpec(
        "embedding_probe",
        (
            TensorSpec("inputs_embeds", dtype, ("P", decoder.embedding_width)),
            TensorSpec("position_ids", "int64", (decoder.layers, "P")),
        ),
        (
            TensorSpec(
                "probe_queries",
                dtype,
                (decoder.layers, "P", decoder.query_heads, decoder.head_size),
            ),
            TensorSpec(
                "probe_keys", dtype, (decoder.layers, "P", decoder.kv_heads, decoder.head_size)
            ),
        ),
    )
