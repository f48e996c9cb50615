"""The same memory and question in transformers: its language model with a DynamicCache.

The only module of the benchmark that needs torch; imported when the comparison is asked for.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AutoConfig, DynamicCache, Qwen2ForCausalLM

from hermes_edge.bench.figures import AgainstFigures, spread
from hermes_edge.bench.inside import cached_layers, first_logits
from hermes_edge.bench.measure import Repeats
from hermes_edge.engines import Bundle
from hermes_edge.engines.views import Array
from hermes_edge.errors import CheckpointError
from hermes_edge.export.checkpoint import DTYPES, Checkpoint
from hermes_edge.export.decoder import EMBEDDINGS, decoder_tensors
from hermes_edge.export.progress import quiet_transformers
from hermes_edge.export.reference import cache_argument
from hermes_edge.runtime import SamplingParams, Session
from hermes_edge.spec import DecoderSpec

# Worker threads of ONNX Runtime and of torch spin for a while when a call has ended.
_SETTLE_S = 0.1
_SAMPLED_ROWS = 64


@dataclass(frozen=True, slots=True)
class Reference:
    """A checkpoint that is known to be the one that the bundle was exported from."""

    checkpoint: Checkpoint
    bundle: Bundle

    @classmethod
    def open(cls, folder: Path, bundle: Bundle) -> Reference:
        """Compare geometry and a sample of the embedding table; loads no other weights.

        Raises:
            CheckpointError: it cannot be read, or is of another model.
        """
        checkpoint = Checkpoint.open(folder)
        required, found = bundle.manifest.decoder, checkpoint.config.decoder
        if required != found:
            raise _another_model(folder, bundle, *_differences(required, found))
        dtype = DTYPES[bundle.manifest.precision]
        ids = np.linspace(0, required.vocabulary - 1, _SAMPLED_ROWS).astype(np.int64)
        ours = bundle.embeddings().lookup(ids.tolist())
        # In fp32 on both sides, which every precision fits into: torch and numpy share no bf16.
        ours = ours.astype(np.float32)
        theirs = checkpoint.weights.load(EMBEDDINGS, dtype)[torch.from_numpy(ids)].float().numpy()
        if not np.array_equal(ours, theirs):
            rows = int((ours != theirs).any(axis=1).sum())
            raise _another_model(
                folder, bundle, "its embedding table", f"{rows} of {len(ids)} rows differ"
            )
        return cls(checkpoint, bundle)

    def load(self, threads: int, device: str = "cpu") -> LanguageModel:
        """The language model in the bundle's precision, on as many threads as the bundle."""
        torch.set_num_threads(threads)
        dtype = DTYPES[self.bundle.manifest.precision]
        config = AutoConfig.from_pretrained(self.checkpoint.folder).get_text_config()
        spec = self.bundle.manifest.decoder
        config.tie_word_embeddings = spec.tied_embeddings
        config.dtype = dtype
        weights = self.checkpoint.weights
        state = {
            name.replace("language_model.", "model.", 1): weights.load(name, dtype)
            for name in decoder_tensors(spec)
        }
        with quiet_transformers():
            model: Any = Qwen2ForCausalLM.from_pretrained(
                None, config=config, state_dict=state, dtype=dtype
            )
        return LanguageModel(model.to(device), self.bundle.manifest.model_id, device)


@dataclass(slots=True)
class _Side:
    """Samples of one of the two sides."""

    ttft_ms: list[float] = field(default_factory=list)
    per_token_ms: list[float] = field(default_factory=list)
    token_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """transformers' decoder."""

    model: Any
    model_id: str
    device: str = "cpu"

    @torch.inference_mode()
    def compare(
        self, session: Session, ids: Sequence[int], answer_tokens: int, repeats: Repeats
    ) -> AgainstFigures:
        """Ask both sides in turns.

        Args:
            session: its layers must agree on the positions of their rows.
            ids: the question.
            answer_tokens: greedy tokens of every answer.
            repeats: of the question on each side.
        """
        rows = session.rows()[0]
        cache = self._cache(session)
        first_position = rows.next_position
        theirs_first = self._forward(ids, first_position, cache)
        cache.crop(-len(ids))
        ours_first = first_logits(session, ids)
        ours, theirs = _Side(), _Side()
        for turn in range(repeats.warmup + repeats.questions):
            if turn == repeats.warmup:
                ours, theirs = _Side(), _Side()
            time.sleep(_SETTLE_S)
            answer = session.ask(ids, SamplingParams(max_new_tokens=answer_tokens))
            ours.ttft_ms.append(answer.ttft_ms)
            ours.per_token_ms.append(answer.per_token_ms)
            ours.token_ids = answer.token_ids
            time.sleep(_SETTLE_S)
            self._ask(ids, first_position, cache, answer_tokens, theirs)
        return _figures(
            f"{self.model_id}, transformers {transformers.__version__}, DynamicCache",
            len(rows),
            (ours, theirs),
            (ours_first, theirs_first),
        )

    def _cache(self, session: Session) -> DynamicCache:
        """The session's rows, copied: [S, Hkv, D] to [1, Hkv, S, D]."""
        cache = DynamicCache(config=self.model.config)
        for index, layer in enumerate(cached_layers(session)):
            keys, values = (
                torch.from_numpy(np.array(rows, np.float32))
                .to(self.device, self.model.dtype)
                .transpose(0, 1)[None]
                .contiguous()
                for rows in (layer.keys, layer.values)
            )
            cache.update(keys, values, index)
        return cache

    def _forward(self, ids: Sequence[int], position: int, cache: DynamicCache) -> Array:
        """Logits float32 [V] of the last token; the cache grows by the tokens."""
        output = self.model(
            input_ids=torch.tensor([[*ids]], device=self.device),
            position_ids=torch.arange(position, position + len(ids), device=self.device)[None],
            use_cache=True,
            logits_to_keep=1,
            **cache_argument(self.model, cache),
        )
        logits: Array = output.logits[0, -1].float().cpu().numpy()
        return logits

    def _ask(
        self, ids: Sequence[int], position: int, cache: DynamicCache, tokens: int, side: _Side
    ) -> None:
        began = time.perf_counter()
        answer = [int(self._forward(ids, position, cache).argmax())]
        answered = time.perf_counter()
        for step in range(tokens - 1):
            logits = self._forward(answer[-1:], position + len(ids) + step, cache)
            answer.append(int(logits.argmax()))
        side.ttft_ms.append((answered - began) * 1e3)
        side.per_token_ms.append((time.perf_counter() - answered) * 1e3 / (tokens - 1))
        side.token_ids = tuple(answer)
        # The last token was never put in.
        cache.crop(-(len(ids) + tokens - 1))


def _figures(
    model: str, memory_rows: int, sides: tuple[_Side, _Side], first: tuple[Array, Array]
) -> AgainstFigures:
    ours, theirs = sides
    ttft_ms, their_ttft_ms = spread(ours.ttft_ms), spread(theirs.ttft_ms)
    per_token_ms, their_per_token_ms = spread(ours.per_token_ms), spread(theirs.per_token_ms)
    agree = [a == b for a, b in zip(ours.token_ids, theirs.token_ids, strict=True)]
    return AgainstFigures(
        model=model,
        memory_rows=memory_rows,
        ttft_ms=ttft_ms,
        their_ttft_ms=their_ttft_ms,
        ttft_ratio=their_ttft_ms.median / ttft_ms.median,
        per_token_ms=per_token_ms,
        their_per_token_ms=their_per_token_ms,
        per_token_ratio=their_per_token_ms.median / per_token_ms.median,
        first_logits_difference=float(np.abs(first[0] - first[1]).max()),
        first_logits_largest=float(np.abs(first[1]).max()),
        equal_greedy_tokens=(*agree, False).index(False),
    )


def _differences(required: DecoderSpec, found: DecoderSpec) -> tuple[str, str]:
    """The fields that differ, as the one has them and as the other."""
    names = [
        entry.name
        for entry in fields(required)
        if getattr(required, entry.name) != getattr(found, entry.name)
    ]
    required_text, found_text = (
        ", ".join(f"{name} {getattr(spec, name)}" for name in names) for spec in (required, found)
    )
    return required_text, found_text


def _another_model(folder: Path, bundle: Bundle, required: str, found: str) -> CheckpointError:
    return CheckpointError(
        f"{folder} is not the checkpoint that {bundle.path} was exported from",
        required=required,
        found=found,
        fix="Give the checkpoint of this bundle, or export this one",
    )
