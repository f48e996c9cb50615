"""What is trained can be exported and run: the way from the recipe to an answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlavaOnevisionForConditionalGeneration

from hermes_edge.export import export_checkpoint
from hermes_edge.runtime import Runtime, SamplingParams
from hermes_edge.runtime.resize import FrameResizer, UInt8Array
from hermes_edge.runtime.text import TextCodec
from hermes_edge.synthetic import draw_stream, make_stream
from hermes_edge.training.model import visual_tokens

FRAMES = 12
ASKED = "What colour was the ring?"


@pytest.fixture(scope="session")
def bundle(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exported with every graph, and compared with the original model."""
    target = tmp_path_factory.mktemp("bundle") / "quick"
    export_checkpoint(trained / "checkpoint", target, embedding_probe=True)
    return target


@torch.no_grad()
def greedy(folder: Path, frames: list[UInt8Array], most: int) -> list[int]:
    """The answer by transformers, the end of turn included."""
    model: Any = LlavaOnevisionForConditionalGeneration.from_pretrained(folder)
    codec, table = TextCodec.open(folder, "<video>"), model.get_input_embeddings()
    seen = visual_tokens(model, torch.from_numpy(np.stack(frames))).flatten(0, 1)
    ids: list[int] = []
    while len(ids) < most and ids[-1:] != [model.config.eos_token_id]:
        texts = (codec.prefix_ids(None), codec.question_ids(ASKED) + ids)
        prefix, question = (table(torch.tensor(text)) for text in texts)
        embeds = torch.cat([prefix, seen, question])[None]
        hidden = model.model.language_model(inputs_embeds=embeds).last_hidden_state[0, -1]
        ids.append(int(model.lm_head(hidden).argmax()))
    return ids


@pytest.mark.slow
def test_a_trained_checkpoint_passes_its_parity_checks_and_answers(
    bundle: Path, trained: Path
) -> None:
    runtime = Runtime.load(bundle, threads=1)
    manifest = runtime.manifest
    assert set(manifest.graphs) == {"vision", "decoder", "score", "compact", "embedding_probe"}
    assert (manifest.random_weights, manifest.tokens_per_frame) == (False, 16)
    assert manifest.parity is not None and len(manifest.parity.checks) >= 15
    assert all(check.measured <= check.tolerance for check in manifest.parity.checks)

    frames = [*draw_stream(make_stream(1, FRAMES))]
    with runtime.session(budget_tokens=400) as session:
        for second, frame in enumerate(frames):
            session.feed(frame, at=float(second))
        answer = session.ask(ASKED, SamplingParams(max_new_tokens=4))
    resizer = FrameResizer(64)
    expected = greedy(trained / "checkpoint", [resizer.resize(frame) for frame in frames], 4)
    ended = expected[-1] in manifest.eos_token_ids
    assert [*answer.token_ids] == (expected[:-1] if ended else expected)
    assert answer.finish_reason == ("end" if ended else "length")
    assert answer.memory_rows == 13 + FRAMES * 16
