"""Both stages learn a batch by heart, and each leaves the other's weights alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from hermes_edge.runtime.text import TextCodec
from hermes_edge.training.batches import Packer, Shape
from hermes_edge.training.frames import frame_batch
from hermes_edge.training.loop import Training
from hermes_edge.training.losses import Hints, HintWeights, decoder_loss, tower_loss, word_rows
from hermes_edge.training.model import make_model, token_id
from hermes_edge.training.schedule import QUICK

Weights = dict[str, Tensor]


@pytest.fixture
def untrained(tokenizer: Tokenizer) -> Any:
    """hermes-tiny before its first step."""
    return make_model(tokenizer, seed=0)


def learn(loss: Any, modules: list[nn.Module], steps: int, rate: float) -> list[dict[str, float]]:
    """Figures and loss of every step, and of one more without a step."""
    weights = [weight for module in modules for weight in module.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=rate, betas=(0.9, 0.98))
    told = []
    for _ in range(steps + 1):
        value, figures = loss()
        told.append({**figures, "loss": float(value.detach())})
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
    return told


def test_the_tower_learns_a_batch_by_heart(untrained: Any, tokenizer: Tokenizer) -> None:
    frames, things, colours = map(torch.from_numpy, frame_batch(0, 2))
    words = word_rows(tokenizer)
    parts = untrained.model
    modules = [parts.vision_tower, parts.multi_modal_projector, untrained.get_input_embeddings()]
    told = learn(lambda: tower_loss(untrained, frames, things, colours, words), modules, 80, 2e-3)
    # Four times the cross-entropy of a guess, 19 things and 9 colours with nothing, at first.
    assert told[0]["loss"] == pytest.approx(10.3, abs=1.5)
    assert told[-1]["loss"] < 1.0
    assert told[-1]["thing"] == told[-1]["colour"] == 1.0


def test_the_decoder_learns_a_batch_by_heart(
    untrained: Any, tokenizer: Tokenizer, codec: TextCodec
) -> None:
    batch = Packer(codec, token_id(tokenizer, "<|im_end|>")).batch(0, Shape(1, 4, 1, 4, 0.5))
    torch.manual_seed(0)
    hints = Hints(untrained.config.text_config.hidden_size)
    modules = [untrained.model.language_model, hints]
    told = learn(
        lambda: decoder_loss(untrained, hints, batch, HintWeights(0.3, 0.5, 0.5)), modules, 36, 2e-3
    )
    assert told[0]["answer"] > 5.0
    assert told[-1]["answer"] < 0.5
    assert told[-1]["right"] > 0.9
    for hint in ("before", "counts", "facts", "choice"):
        assert told[-1][hint] < 0.2 * told[0][hint]


class Stopped(Exception):
    """Enough has been seen."""


def test_a_stage_leaves_the_weights_of_the_other_alone(untrained: Any, tmp_path: Path) -> None:
    def copy(model: Any) -> Weights:
        return {name: weight.clone() for name, weight in model.state_dict().items()}

    training, seen = Training(tmp_path, "quick", 0), {0: copy(untrained)}
    for name, weight in copy(training.model).items():
        assert torch.equal(weight, seen[0][name])

    def report(step: int, steps: int, figures: str) -> None:
        seen[step] = copy(training.model)
        if step == 8:
            raise Stopped

    with pytest.raises(Stopped):
        training.run(report)

    # Reports come every two steps; the tower's stage has three.
    assert QUICK.tower_steps == 3 and [*seen] == [0, 2, 4, 6, 8]
    table = "model.language_model.embed_tokens.weight"
    ours = {
        # LLaVA-OneVision takes what comes before the tower's last norm.
        "tower": [
            n
            for n in seen[0]
            if ("vision_tower" in n or "multi_modal_projector" in n) and "post_layernorm" not in n
        ],
        "decoder": [
            n for n in seen[0] if "language_model" in n and n not in (table, "lm_head.weight")
        ],
    }
    assert len(ours["tower"]) > 60 and len(ours["decoder"]) > 100
    for stage, first, last in (("tower", 4, 8), ("decoder", 0, 2)):
        for name in ours[stage]:
            assert torch.equal(seen[first][name], seen[last][name]), name
    for stage, first, last in (("tower", 0, 2), ("decoder", 4, 8)):
        same = [n for n in ours[stage] if torch.equal(seen[first][n], seen[last][n])]
        assert not same
    # Words are learnt with what is seen, and then with what is said.
    for first, last in ((0, 2), (4, 8)):
        assert not torch.equal(seen[first][table], seen[last][table])
