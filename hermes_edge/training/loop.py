"""Two stages: the tower on single frames, then the decoder on streams, the tower frozen.

Batches depend on the step alone, so an interrupted training goes on as if nothing had happened.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from hermes_edge.errors import SettingsError
from hermes_edge.runtime.text import TextCodec
from hermes_edge.synthetic.world import SPLITS
from hermes_edge.training.batches import Packer
from hermes_edge.training.frames import frame_batch
from hermes_edge.training.losses import Hints, decoder_loss, tower_loss, word_rows
from hermes_edge.training.model import make_model, make_tokenizer, save_checkpoint, token_id
from hermes_edge.training.schedule import RECIPES, Recipe, cosine
from hermes_edge.training.state import (
    STATE_NAME,
    append_log,
    load_state,
    restoring,
    save_state,
    writing,
)

Report = Callable[[int, int, str], None]
"""Steps done, steps in all, figures in words."""

# Seeds of streams that a training has for itself.
_SEEDS_EACH = 10_000_000
_MOST_SEED = len(SPLITS["train"]) // _SEEDS_EACH - 1
_WARM_UP_STEPS = 100
_BETAS, _WEIGHT_DECAY, _CLIP = (0.9, 0.98), 0.02, 1.0


class Training:
    """A model on its way; :meth:`run` trains to the end of the recipe."""

    def __init__(self, folder: Path, recipe: str, seed: int) -> None:
        """Begin, or go on where the folder's last save is.

        Raises:
            SettingsError: an unknown recipe, a seed whose streams leave the training split, or
                the folder holds another training.
            StorageError: its state is damaged, or it cannot be written.
        """
        if recipe not in RECIPES:
            raise SettingsError("unknown recipe", required=", ".join(RECIPES), found=repr(recipe))
        if not 0 <= seed <= _MOST_SEED:
            raise SettingsError("seed is out of range", required=f"0 to {_MOST_SEED}", found=seed)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.name, self.seed = folder, recipe, seed
        self.recipe: Recipe = RECIPES[recipe]
        self.tokenizer = make_tokenizer()
        model: Any = make_model(self.tokenizer, seed)
        self.model = model
        self.hints = Hints(model.config.text_config.hidden_size)
        self.words = word_rows(self.tokenizer)
        self.step = 0
        self._optimizer: torch.optim.Optimizer | None = None
        self._figures: list[dict[str, float]] = []
        state = load_state(folder, recipe, seed)
        if state is not None:
            with restoring(folder / STATE_NAME):
                self._restore(state)
        # The packer needs prefix and questions as the runtime makes them.
        save_checkpoint(self.checkpoint, self.model, self.tokenizer)
        codec = TextCodec.open(self.checkpoint, "<video>")
        self._packer = Packer(codec, token_id(self.tokenizer, "<|im_end|>"))

    @property
    def checkpoint(self) -> Path:
        """The folder of the model in transformers' format."""
        return self.folder / "checkpoint"

    def run(self, report: Report) -> None:
        """Train until the recipe ends, saving on the way.

        Raises:
            StorageError: a save failed; the one before is still there.
        """
        began = time.monotonic()
        while self.step < self.recipe.steps:
            if self.step == self.recipe.tower_steps:
                self._optimizer = None  # other weights are trained from here on
            optimizer = self._optimizer = self._optimizer or self._new_optimizer()
            rate = self._rate()
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss, figures = self._loss()
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            weights = [w for group in optimizer.param_groups for w in group["params"]]
            torch.nn.utils.clip_grad_norm_(weights, _CLIP)
            optimizer.step()
            self.step += 1
            self._figures.append(figures)
            if self.step % self.recipe.log_every == 0 or self.step == self.recipe.steps:
                record = {"step": self.step, "rate": rate, "s": time.monotonic() - began}
                keys = self._figures[-1]
                record |= {k: fmean([f[k] for f in self._figures if k in f]) for k in keys}
                self._figures = []
                append_log(self.folder, record)
                words = " ".join(f"{k} {record[k]:.3f}" for k in keys)
                report(self.step, self.recipe.steps, words)
            if self.step % self.recipe.save_every == 0:
                self.save()
        self.save()
        save_checkpoint(self.checkpoint, self.model, self.tokenizer)

    def save(self) -> None:
        """Write the state; raises StorageError and leaves the old one where that fails."""
        optimizer = self._optimizer.state_dict() if self._optimizer is not None else None
        save_state(
            self.folder,
            {
                "recipe": self.name,
                "seed": self.seed,
                "step": self.step,
                "model": self.model.state_dict(),
                "hints": self.hints.state_dict(),
                "optimizer": optimizer,
            },
        )

    def _restore(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.hints.load_state_dict(state["hints"])
        if state["optimizer"] is not None:
            self._optimizer = self._new_optimizer()
            self._optimizer.load_state_dict(state["optimizer"])

    @property
    def _in_tower(self) -> bool:
        return self.step < self.recipe.tower_steps

    def _new_optimizer(self) -> torch.optim.Optimizer:
        parts = self.model.model
        table = self.model.get_input_embeddings()
        modules = (
            (parts.vision_tower, parts.multi_modal_projector, table)
            if self._in_tower
            else (parts.language_model, self.hints)
        )
        weights = [weight for module in modules for weight in module.parameters()]
        matrices = [weight for weight in weights if weight.ndim > 1]
        vectors = [weight for weight in weights if weight.ndim <= 1]
        groups = [
            {"params": matrices, "weight_decay": _WEIGHT_DECAY},
            {"params": vectors, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=0.0, betas=_BETAS)

    def _rate(self) -> float:
        tower = self.recipe.tower_steps
        if self._in_tower:
            step = self.step
            rate = cosine(self.recipe.tower_rate, self.recipe.tower_rate / 20, step / tower)
        else:
            step = self.step - tower
            phase, passed = self.recipe.phase_at(step)
            rate = cosine(phase.from_rate, phase.to_rate, passed)
        return rate * min(1.0, (step + 1) / _WARM_UP_STEPS)

    def _loss(self) -> tuple[torch.Tensor, dict[str, float]]:
        # Seeds of single frames and of streams are far apart, and all of the training split.
        first = SPLITS["train"].start + self.seed * _SEEDS_EACH
        if self._in_tower:
            arrays = frame_batch(first + self.step, self.recipe.tower_frames)
            frames, things, colours = map(torch.from_numpy, arrays)
            return tower_loss(self.model, frames, things, colours, self.words)
        step = self.step - self.recipe.tower_steps
        phase, _ = self.recipe.phase_at(step)
        batch = self._packer.batch(first + 1_000_000 + 64 * step, phase.shape)
        return decoder_loss(self.model, self.hints, batch, phase.hints)
