"""Learns a direction: trains a LoRA adapter of the denoiser with CLIP's directional loss.

The loss is -log((1 + cos) / 2) or 1 - cos, with cos between the changes of picture and text in CLIP's space, plus an L1
and total variation of the change. There are two recipes:

* quick and reusable: the loss of the clean picture that is predicted from one noise level (Starodubcev et al. 2023,
  "Towards real-time text-driven image manipulation with unconditional diffusion models").
* paper (Kim et al. 2022): inversion in 40 steps, sampling in 6, and an update after each of them on the predicted clean
  picture; or, with `backprop_through_chain`, one update through all six.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipelines.clip.cutouts import views_alike
from pipelines.clip.losses import directional_loss, directional_similarity, magnitude_loss, preservation_loss
from pipelines.core.journal import Snapshot
from pipelines.edit.ddim import Trajectory, add_noise, alphas_at, time_grid
from pipelines.edit.directions import AdaptedUnet
from pipelines.edit.settings import EditSettings
from pipelines.errors import Message
from pipelines.models.base import Clip, Denoiser
from pipelines.models.ddim import ddim_step, predict_x0
from pipelines.models.sampling import generator_of
from pipelines.models.typed import integers

PAPER_UP, PAPER_DOWN = 40, 6
VIEWS = 4  # of each picture
BATCH = 4  # noise levels of the one picture, or pictures
JUDGE_EVERY = 5
MAGNITUDE_WEIGHT = 2.0  # weight of the length of the change beside its direction


@dataclass(frozen=True)
class TargetDirection:
    """A direction as vectors (d,): in CLIP's space, which gives the gradient, and in the critic's, for figures only."""

    clip: Tensor
    critic: Tensor


class AdapterTraining:
    """The training of one adapter, and its state.

    `training_images` are x (n, c, h, w) of the pictures to learn from, as `unet.encode` gives them, and `inversions`
    their inversions where the recipe needs them. `unet` is under the source's text.
    """

    def __init__(
        self,
        unet: Denoiser,
        clip: Clip,
        critic: Clip,
        settings: EditSettings,
        return_step: int,
        target_direction: TargetDirection,
        training_images: Tensor,
        inversions: Trajectory | None,
    ):
        self.clip, self.critic, self.settings, self.target_direction = (
            clip,
            critic,
            settings,
            target_direction,
        )
        self.return_step, self.training_images, self.inversions = return_step, training_images, inversions
        self.unet, self.alphas = unet, unet.alphas_cumprod
        self.adapted_unet = AdaptedUnet(unet)
        self.parameters = self.adapted_unet.new_adapter(settings.rank, settings.seed)
        self.optimizer: torch.optim.Optimizer = torch.optim.Adam(self.parameters, lr=settings.step_size)
        self.step = 0
        self.loss = math.nan
        self.curves: list[list[float]] = []  # [update, CLIP's directional similarity, the critic's]
        self.shown = training_images[:1]  # (n, c, h, w), after an update what the model makes of its pictures

    # ------------------------------------------------------------------------------------------------- the algorithm

    def advance(self) -> Message | None:
        """Make one update, or in the paper's recipe the updates of one picture.

        Returns None, or why the loss or the weights are not finite; the adapter before it is then kept.
        """
        good = [parameter.detach().clone() for parameter in self.parameters]
        generator = generator_of(self.settings.seed, self.step)
        recipe = self._paper if self.settings.mode == "paper" else self._one_step
        before, after, loss = recipe(generator)
        finite = torch.stack([parameter.isfinite().all() for parameter in self.parameters]).all()
        if not (math.isfinite(loss) and finite):
            for parameter, value in zip(self.parameters, good, strict=True):
                parameter.data.copy_(value)
            return Message("edit.loss_broke", {"loss": f"{loss:.3g}", "update": self.step + 1})
        self.loss, self.shown = loss, after
        self.step += 1
        if self.step % JUDGE_EVERY == 0 or self.step == 1:
            self._judge(before, after)
        return None

    def _one_step(self, generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
        """One update by the clean x predicted with and without the adapter: (before, after, loss)."""
        noisy, noise, times = (
            self._inverted(generator) if self.inversions is not None else self._with_noise(generator)
        )
        alpha = self.alphas[times][:, None, None, None]
        before = predict_x0(noisy, noise, alpha)
        self.adapted_unet.set_strengths([torch.ones(len(noisy), device=noisy.device)])
        with torch.enable_grad():
            after = predict_x0(noisy, self.adapted_unet.unet(noisy, times), alpha)
            loss = self._loss(before, after, generator)
            self._update(loss)
        return before, after.detach(), loss.item()

    def _inverted(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """The picture at the return step and at random steps below, from its inversion: noisy, noise, steps (n,)."""
        assert self.inversions is not None
        steps = len(self.inversions.noises)
        lower = integers(torch.randint(steps // 2, steps, (BATCH - 1,), generator=generator))
        chosen = [steps - 1, *lower]
        noisy = torch.cat([self.inversions.states[k + 1] for k in chosen])
        noise = torch.cat([self.inversions.noises[k] for k in chosen])
        return noisy, noise, torch.tensor([self.inversions.grid[k + 1] for k in chosen], device=noisy.device)

    def _with_noise(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """The next lessons with new noise below the return step: noisy, the noise predicted in them, steps (n,)."""
        first = self.step * BATCH
        rows = [self._training_image(k) for k in range(first, first + BATCH)]
        x = self.training_images[rows]
        times = torch.randint(self.return_step // 2, self.return_step, (BATCH,), generator=generator).to(
            x.device
        )
        noisy = add_noise(x, self.alphas[times][:, None, None, None], generator)
        return noisy, self.unet(noisy, times), times

    def _training_image(self, k: int) -> int:
        """The row of the k-th lesson; every epoch is a new permutation, drawn from the seed."""
        turn, place = divmod(k, len(self.training_images))
        order = generator_of(self.settings.seed, turn)
        return int(torch.randperm(len(self.training_images), generator=order)[place])

    def _paper(self, generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
        """Sample one picture in PAPER_DOWN steps, with an update after each, or one through all: (before, after, loss)."""
        assert self.inversions is not None
        row = self.step % len(self.training_images)
        before = self.training_images[row : row + 1]
        grid = time_grid(self.return_step, PAPER_DOWN)
        alphas = alphas_at(self.alphas, grid)
        self.adapted_unet.set_strengths([torch.ones(1, device=before.device)])
        x, after, total = self.inversions.states[-1][row : row + 1], before, 0.0
        with torch.enable_grad():
            for k in reversed(range(len(grid) - 1)):
                noise = self.adapted_unet.noise_of(x, grid[k + 1])
                after = predict_x0(x, noise, alphas[k + 1])
                x = ddim_step(x, noise, alphas[k + 1], alphas[k])
                if not self.settings.backprop_through_chain:
                    loss = self._loss(before, after, generator)
                    self._update(loss)
                    x, total = x.detach(), total + loss.item() / (len(grid) - 1)
            if self.settings.backprop_through_chain:
                after = x
                loss = self._loss(before, x, generator)
                self._update(loss)
                total = loss.item()
        return before, after.detach(), total

    def _loss(self, before: Tensor, after: Tensor, generator: torch.Generator) -> Tensor:
        """The loss, a scalar, of x (n, c, h, w) decoded: directional over paired views, L1 and smoothness."""
        with torch.no_grad():
            before = self.unet.decode(before)
        after = self.unet.decode(after)
        size = self.clip.config.small_size
        seen = views_alike(torch.cat([before, after]), VIEWS, size, generator).flatten(0, 1)
        with torch.no_grad():
            vectors = self.clip.encode_image(seen[: VIEWS * len(before)])
        changed = self.clip.encode_image(seen[VIEWS * len(before) :])
        loss = directional_loss(vectors, changed, self.target_direction.clip, self.settings.loss).mean()
        if self.settings.mode != "paper":
            loss = (
                loss + MAGNITUDE_WEIGHT * magnitude_loss(vectors, changed, self.target_direction.clip).mean()
            )
        return (
            loss + preservation_loss(before, after, self.settings.l1_weight, self.settings.tv_weight).mean()
        )

    def _update(self, loss: Tensor) -> None:
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()

    # ---------------------------------------------------------------------------------------------------- the state

    def _judge(self, before: Tensor, after: Tensor) -> None:
        """Append CLIP's and the critic's directional similarity of the last batch, in whole pictures, to the curves."""
        row: list[float] = [self.step]
        pictures = [self.unet.decode(x).clamp(-1, 1) for x in (before, after)]
        for judge, direction in (
            (self.clip, self.target_direction.clip),
            (self.critic, self.target_direction.critic),
        ):
            vectors = [judge.encode_image(images) for images in pictures]
            row.append(round(directional_similarity(vectors[0], vectors[1], direction).mean().item(), 4))
        self.curves.append(row)

    def metrics(self) -> dict[str, float]:
        """The metrics of a Step: loss and, once judged, the directional similarities of CLIP and of the critic."""
        values = {"loss": self.loss}
        if self.curves:
            values |= {"clip": self.curves[-1][1], "critic": self.curves[-1][2]}
        return values

    def snapshot(self) -> Snapshot:
        """The adapter, the optimizer's state, the curves and the loss."""
        tensors = {f"adapter/{name}": tensor for name, tensor in self.adapted_unet.tensors().items()}
        for k, parameter in enumerate(self.parameters):
            memory: dict[str, Any] = self.optimizer.state.get(parameter, {})
            tensors |= {f"adam/{k}/{name}": value for name, value in memory.items()}
        return Snapshot(
            self.step,
            tensors,
            {"curves": [list(row) for row in self.curves], "loss": self.loss if self.step else None},
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Set the state to that of a snapshot. BadInput when its adapter does not fit the denoiser."""
        self.adapted_unet.set_weights(adapter_of(snapshot))
        for k, parameter in enumerate(self.parameters):
            memory = {
                name: snapshot.tensors.get(f"adam/{k}/{name}") for name in ("step", "exp_avg", "exp_avg_sq")
            }
            if all(value is not None for value in memory.values()):
                self.optimizer.state[parameter] = {
                    name: value.clone().to("cpu" if name == "step" else parameter.device)  # type: ignore[union-attr]
                    for name, value in memory.items()
                }
        self.step, self.curves = snapshot.step, [list(row) for row in snapshot.facts["curves"]]
        self.loss = math.nan if snapshot.facts["loss"] is None else snapshot.facts["loss"]


def adapter_of(snapshot: Snapshot) -> dict[str, Tensor]:
    """The adapter's weights in a snapshot of an AdapterTraining, by peft's names."""
    return {k.removeprefix("adapter/"): v for k, v in snapshot.tensors.items() if k.startswith("adapter/")}
