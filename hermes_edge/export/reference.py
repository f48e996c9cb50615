"""What the original model computes: transformers' own classes, in fp32, on the same samples."""

from __future__ import annotations

import gc
import inspect
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from transformers import DynamicCache, LlavaOnevisionForConditionalGeneration, Qwen2ForCausalLM
from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

from hermes_edge.engines.views import Array
from hermes_edge.export.checkpoint import DTYPES, Checkpoint
from hermes_edge.export.progress import quiet_transformers
from hermes_edge.export.quantize import dequantize, quantize
from hermes_edge.export.samples import GREEDY_TOKENS, Samples
from hermes_edge.spec import DecoderSpec, Precision, Quantization, VisionSpec


@dataclass(frozen=True, slots=True)
class Reference:
    """Float32 arrays of the original model; T rows are prefix, visual tokens and question.

    Attributes:
        name: what computed it.
        visual_tokens: [F*N, E], None without a vision tower.
        inputs_embeds: [T, E].
        keys, values: [L, T, Hkv, D] of the whole pass, keys rotated.
        logits: [question rows, V].
        greedy_ids: int64 [16], the greedy answer.
        greedy_logits: [16, V], the logits that each of these tokens was picked from.
        probe_queries, probe_keys: [L, P, heads, D] of the question's raw embeddings.
    """

    name: str
    visual_tokens: Array | None
    inputs_embeds: Array
    keys: Array
    values: Array
    logits: Array
    greedy_ids: Array
    greedy_logits: Array
    probe_queries: Array
    probe_keys: Array


def cache_argument(model: Any, cache: DynamicCache) -> dict[str, Any]:
    """The cache under its name: transformers 5.24 calls it ``cache`` and warns of the older one."""
    known = inspect.signature(type(model).forward).parameters
    return {"cache" if "cache" in known else "past_key_values": cache}


@torch.inference_mode()
def run_references(
    checkpoint: Checkpoint,
    samples: Samples,
    quantization: Quantization | None,
    precision: Precision,
) -> tuple[Reference, Reference | None]:
    """Load the original, run it on the samples, and free it again.

    Args:
        checkpoint: of the original.
        samples: what it sees and is asked.
        quantization: of the export, or none.
        precision: of the export.

    Returns:
        The original, and the same with its weights rounded as the export's are; None where the
        export's tolerance is enough for that.
    """
    seeing = checkpoint.config.vision is not None
    model_class: Any = LlavaOnevisionForConditionalGeneration if seeing else Qwen2ForCausalLM
    with quiet_transformers():
        model = model_class.from_pretrained(checkpoint.folder, dtype=torch.float32).eval()
    name = f"transformers {transformers.__version__}, {checkpoint.model_id}, fp32"
    visual = None
    if checkpoint.config.vision is not None and samples.frames is not None:
        visual = _visual_tokens(model, checkpoint.config.vision, samples.frames)
    original = _run(model, checkpoint, samples, visual, name)
    rounded = None
    if quantization is not None:
        _round_matrices(model, quantization, precision)
        name += f", decoder's matrices rounded to {quantization}"
        rounded = _run(model, checkpoint, samples, visual, name)
    elif precision == "bf16":
        _round_to_bf16(model)
        name += ", weights rounded to bf16; the graphs widened to fp32"
        if checkpoint.config.vision is not None and samples.frames is not None:
            visual = _visual_tokens(model, checkpoint.config.vision, samples.frames)
        rounded = _run(model, checkpoint, samples, visual, name)
    del model
    gc.collect()
    return original, rounded


def _run(
    model: Any, checkpoint: Checkpoint, samples: Samples, visual: Tensor | None, name: str
) -> Reference:
    table = model.get_input_embeddings()
    prefix, question = (
        table(torch.from_numpy(ids)) for ids in (samples.prefix_ids, samples.question_ids)
    )
    seen = visual if visual is not None else torch.from_numpy(samples.visual_tokens)
    embeds = torch.cat((prefix, seen, question))
    cache = DynamicCache()
    whole = model(
        inputs_embeds=embeds[None], logits_to_keep=len(question), **cache_argument(model, cache)
    )
    cached: list[Any] = cache.layers
    keys = torch.stack([layer.keys[0] for layer in cached]).transpose(1, 2).clone()
    values = torch.stack([layer.values[0] for layer in cached]).transpose(1, 2).clone()
    logits = whole.logits[0]
    greedy_ids, greedy_logits = _greedy(model, cache, logits[-1])
    text = _text(model)
    queries, probe_keys = _embedding_probe(text, checkpoint.config.decoder, question)
    return Reference(
        name=name,
        visual_tokens=None if visual is None else visual.numpy(),
        inputs_embeds=embeds.numpy(),
        keys=keys.numpy(),
        values=values.numpy(),
        logits=logits.numpy(),
        greedy_ids=greedy_ids,
        greedy_logits=greedy_logits,
        probe_queries=queries.numpy(),
        probe_keys=probe_keys.numpy(),
    )


def _text(model: Any) -> Any:
    """The decoder's layers, beside a tower or alone."""
    return getattr(model.model, "language_model", model.model)


def _round_matrices(model: Any, quantization: Quantization, precision: Precision) -> None:
    """Each linear layer's weight [out, in] as its graph has it; tied embeddings stay whole."""
    linear = [module for module in _text(model).modules() if isinstance(module, nn.Linear)]
    for module in (*linear, model.lm_head):
        matrix = module.weight.detach().to(DTYPES[precision]).T.numpy()
        rounded = dequantize(*quantize(matrix, quantization, precision))
        # Not in place: tied embeddings are the same tensor.
        module.weight = nn.Parameter(torch.from_numpy(rounded.T.copy()), requires_grad=False)


def _round_to_bf16(model: Any) -> None:
    """Linear layers and text embeddings, in place; everything else stays fp32 in the graphs too."""
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    for module in (*linear, model.get_input_embeddings()):
        for parameter in module.parameters():
            parameter.copy_(parameter.to(torch.bfloat16))


def _visual_tokens(model: Any, vision: VisionSpec, frames: Array) -> Tensor:
    """Visual tokens [F*N, E] without the newline that the model's video path appends."""
    scaled = torch.from_numpy(frames).permute(0, 3, 1, 2).double() * vision.rescale_factor
    mean, std = (torch.tensor(x).reshape(3, 1, 1) for x in (vision.image_mean, vision.image_std))
    pixels = ((scaled - mean) / std).float()
    # The newline is appended to the video as its last row.
    features: Tensor = model.model.get_video_features(pixels[None]).pooler_output
    return features.reshape(-1, features.shape[-1])[: len(frames) * vision.tokens_per_frame].clone()


def _greedy(model: Any, cache: DynamicCache, logits: Tensor) -> tuple[Array, Array]:
    ids: list[int] = []
    picked_from = [logits]
    for _ in range(GREEDY_TOKENS):
        ids.append(int(picked_from[-1].argmax()))
        step = model(input_ids=torch.tensor([ids[-1:]]), **cache_argument(model, cache))
        picked_from.append(step.logits[0, -1])
    return np.array(ids), torch.stack(picked_from[:-1]).numpy()


def _embedding_probe(text: Any, spec: DecoderSpec, embeds: Tensor) -> tuple[Tensor, Tensor]:
    """Every layer's rotated queries and keys of the same raw embeddings, positions 0, 1, ..."""
    cos, sin = text.rotary_emb(embeds[None], torch.arange(len(embeds))[None])
    queries, keys = [], []
    for layer in text.layers:
        normed = layer.input_layernorm(embeds)
        q, k = (
            projection(normed).view(1, len(embeds), -1, spec.head_size).transpose(1, 2)
            for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj)
        )
        q, k = apply_rotary_pos_emb(q, k, cos, sin)
        queries.append(q[0].transpose(0, 1))
        keys.append(k[0].transpose(0, 1))
    return torch.stack(queries), torch.stack(keys)
