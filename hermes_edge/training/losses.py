"""What each stage minimises. B streams, T rows, M visual tokens, F frames, N tokens a frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from hermes_edge.synthetic.questions import LETTERS
from hermes_edge.synthetic.world import COLOURS, THINGS
from hermes_edge.training.batches import Batch
from hermes_edge.training.frames import IGNORED, TARGETS
from hermes_edge.training.model import WORDS, token_id, visual_tokens

# The layer whose visual rows must know what came before and how often they have come, and whose
# rows of a question that name a thing must have looked it up. Without the latter the answers' loss
# stood at 0.45 after 500 steps; with it, 0.24 after 280 more (docs/log.md, 2026-11-25).
_HINT_LAYER = 5
# The layer whose row before an answer must know its word where a letter is asked for, and whose
# options must know their letters: what is left is to find the one by the other.
_CHOICE_LAYER = 7
_COUNTS = 5


@dataclass(frozen=True, slots=True)
class HintWeights:
    """Of what rows must know on the way, beside the answers' loss of weight 1.

    Attributes:
        visual: what came before, and how often; of visual rows.
        words: colour, count and forerunner; of rows that name a thing.
        choice: letters of options, and the right option's word before its letter.
    """

    visual: float
    words: float
    choice: float


class Hints(nn.Module):
    """Linear readers of a middle layer, for training alone; they are not part of the model."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.before = nn.Linear(width, len(THINGS) + 1)
        self.counts = nn.Linear(width, _COUNTS)
        self.word_facts = nn.ModuleList(
            nn.Linear(width, size) for size in (len(COLOURS) + 2, _COUNTS, len(THINGS))
        )
        self.letters = nn.Linear(width, len(LETTERS))
        self.choices = nn.Linear(width, len(WORDS))


def word_rows(tokenizer: Tokenizer) -> Tensor:
    """int64 [2, words]: embedding rows of every target, at a text's beginning and within it."""
    return torch.tensor(
        [[token_id(tokenizer, space + word) for word in TARGETS] for space in ("", "\u0120")]
    )


def tower_loss(
    model: Any, frames: Tensor, things: Tensor, colours: Tensor, words: Tensor
) -> tuple[Tensor, dict[str, float]]:
    """Each visual token shall lie near the words for what it shows.

    So the embeddings of words and pictures are aligned before the decoder learns anything.
    """
    tokens = visual_tokens(model, frames).flatten(0, 1)
    normed = F.rms_norm(tokens, tokens.shape[-1:])
    table = model.get_input_embeddings().weight
    loss = tokens.square().mean() * 0.01
    figures = {}
    count = len(THINGS)
    for name, targets, allowed in (
        ("thing", things.flatten(), [*range(count), len(TARGETS) - 1]),
        ("colour", colours.flatten(), [*range(count, len(TARGETS))]),
    ):
        shown = targets != IGNORED
        place = torch.full((len(TARGETS),), IGNORED)
        place[allowed] = torch.arange(len(allowed))
        wanted = place[targets[shown]]
        for rows in words:
            logits = normed[shown] @ table[rows[allowed]].T
            loss = loss + F.cross_entropy(logits, wanted)
        something = wanted != place[-1]
        right = logits.argmax(-1) == wanted
        figures[name] = float(right[something].float().mean())
    return loss, figures


def decoder_loss(
    model: Any, hints: Hints, batch: Batch, weights: HintWeights
) -> tuple[Tensor, dict[str, float]]:
    """Cross-entropy of the answers' tokens, and of the hints."""
    with torch.no_grad():
        seen = visual_tokens(model, batch.frames).flatten(0, 1)[batch.kept]
    embeds = model.get_input_embeddings()(batch.ids).flatten(0, 1)
    embeds = embeds.index_copy(0, batch.kept_rows, seen).view(*batch.ids.shape, -1)
    outputs = model.model.language_model(
        inputs_embeds=embeds,
        position_ids=batch.positions,
        attention_mask=batch.mask,
        use_cache=False,
        output_hidden_states=True,
    )
    rows = outputs.last_hidden_state.flatten(0, 1)[batch.answer_rows]
    logits = rows @ model.get_input_embeddings().weight.T
    answer = F.cross_entropy(logits, batch.answers)
    visual = outputs.hidden_states[_HINT_LAYER].flatten(0, 1)[batch.kept_rows]
    before = F.cross_entropy(hints.before(visual), batch.before)
    counts = F.cross_entropy(hints.counts(visual), batch.counts, ignore_index=IGNORED)
    words = outputs.hidden_states[_HINT_LAYER].flatten(0, 1)[batch.word_rows]
    facts = torch.zeros(())
    for reader, wanted in zip(hints.word_facts, batch.word_facts, strict=True):
        if bool((wanted != IGNORED).any()):
            facts = facts + F.cross_entropy(reader(words), wanted, ignore_index=IGNORED)
    choice = torch.zeros(())
    for reader, (places, wanted) in (
        (hints.letters, batch.options),
        (hints.choices, batch.choices),
    ):
        if len(places):
            chosen = outputs.hidden_states[_CHOICE_LAYER].flatten(0, 1)[places]
            choice = choice + F.cross_entropy(reader(chosen), wanted)
    figures = {
        "answer": float(answer.detach()),
        "before": float(before.detach()),
        "counts": float(counts.detach()),
        "facts": float(facts.detach()),
        "choice": float(choice.detach()),
        "right": float((logits.argmax(-1) == batch.answers).float().mean()),
    }
    loss = answer + weights.visual * (before + counts)
    return loss + weights.words * facts + weights.choice * choice, figures
