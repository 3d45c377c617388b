"""The algorithm of Optimize (VQGAN-CLIP, Crowson et al. 2022): its steps, and snapshots of its state."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pipelines.clip.cutouts import cutouts
from pipelines.clip.judges import JUDGE_EVERY, metrics
from pipelines.clip.targets import EncodedTarget
from pipelines.core.candidates import generator_at
from pipelines.core.journal import Snapshot
from pipelines.core.pipeline import Picture
from pipelines.errors import Message
from pipelines.io.images import round_to_uint8, to_pil
from pipelines.io.moves import move_matrix, moved
from pipelines.models.base import Clip, Codec
from pipelines.models.device import precision_on
from pipelines.models.latent_diffusion import LatentDiffusion
from pipelines.models.typed import integers
from pipelines.optimize.canvas import (
    Canvas,
    canvas_size,
    clamp_with_gradient,
    crop_to_region,
    proposed_coarse,
    straight_through,
)
from pipelines.optimize.pull import EVERY, Pull, apart
from pipelines.optimize.regularizers import regularizers
from pipelines.optimize.scores import Judges
from pipelines.optimize.settings import OPTIMIZERS, OptimizeSettings
from pipelines.optimize.start import anchor_of, given_picture, start_of
from pipelines.optimize.state import State
from pipelines.optimize.targets import Targets


class OptimizeRun:
    """One run of Optimize. `begin` or `restore` sets the state, `step` makes one step.

    BadInput when the settings do not fit the codec.
    """

    def __init__(
        self,
        vqgan: Codec,
        clip: Clip,
        critic: Clip,
        settings: OptimizeSettings,
        diffusion: LatentDiffusion | None = None,
    ):
        self.clip, self.settings = clip, settings
        self.pull = None if diffusion is None else Pull(diffusion, settings)
        size = canvas_size(settings.size, settings.image, vqgan)
        halves = precision_on(vqgan.codes.device, settings.precision) == "bfloat16"
        self.canvas = Canvas(size, vqgan.seamless() if settings.tile else vqgan, halves=halves)
        self.coarse = proposed_coarse(settings, vqgan) if settings.coarse is None else settings.coarse
        self.targets, self.judges = Targets(clip, critic, self.canvas), Judges(clip, critic, self.canvas)
        self.timeline = settings.timeline()
        self.given = given_picture(settings, self.canvas)
        self.anchor = anchor_of(settings, self.canvas, self.given)
        self.state: State  # from `begin` or `restore` on
        self.shown: Tensor | None = None  # (1, 3, h, w) the last step's picture
        self.loss = math.nan

    def begin(self) -> None:
        """Set the state of step 0."""
        z = start_of(self.settings, self.timeline[0][1], self.targets, self._grid_at(0), self.given)
        self.state = State(z, self._optimizer(z), z.clone())
        if self.current.mask:
            self.state.base = round_to_uint8(self._picture(z) if self.anchor is None else self.anchor)

    # ------------------------------------------------------------------------------------------------- the algorithm

    def step(self) -> Message | None:
        """Make one step. Returns None, or why loss or gradient is not finite; the state is then unchanged."""
        state = self.state
        self._begin_step()
        current, generator = self.current, generator_at(self.settings.seed, state.step, "step")
        loss, gradient, picture = self._gradient(current, generator)
        if not (torch.isfinite(loss) and torch.isfinite(gradient).all()):
            return Message("optimize.loss_broke", {"loss": f"{loss.item():.3g}", "step": state.step + 1})
        if current.ema_decay:
            picture = self._picture(state.ema)
        tokens = self.canvas.codec.quantize(state.shown(current.ema_decay))[0].int().cpu()
        state.frames.append((state.step, tokens))
        self.shown, self.loss = picture, loss.item()
        if state.step % JUDGE_EVERY == 0:
            self.judges.judge(state, picture, self.current_targets())
        for group in state.optimizer.param_groups:
            group["lr"] = current.step_size
        state.z.grad = gradient
        state.optimizer.step()
        state.z.copy_(state.z.clamp(self.canvas.low, self.canvas.high))
        state.ema.lerp_(state.z, 1 - current.ema_decay)
        state.step += 1
        return None

    @torch.enable_grad()
    def _gradient(
        self, current: OptimizeSettings, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The loss at z (a scalar), its gradient (as z), and the picture (1, 3, h, w) it was computed on."""
        z, targets = self.state.z.detach().requires_grad_(), self.current_targets()
        decoded = self.canvas.decode(straight_through(z, self.canvas.codec))
        picture = self.canvas.composite(decoded, current.mask, self.state.base)
        seen = picture
        if self.settings.tile:  # a view may lie across the edges
            shift = integers(torch.randint(10**6, (2,), generator=generator))
            seen = seen.roll((shift[0] % seen.shape[2], shift[1] % seen.shape[3]), (2, 3))
        count = self._cutout_count(current)
        config = self.clip.config
        size = config.small_size if current.cutout_size == "small" else config.image_size
        parts = [cutouts(seen, count, size, generator, current.cutout_scheme, current.min_crop)]
        regional = [target for target in targets if target.region is not None]
        for target in regional:
            part = crop_to_region(picture, target.region)
            parts.append(
                cutouts(part, max(4, count // 2), size, generator, current.cutout_scheme, current.min_crop)
            )
        lengths = [len(part) for part in parts]
        vectors = self.clip.encode_image(clamp_with_gradient(torch.cat(parts), -1.0, 1.0))
        whole, *inside = torch.split(vectors, lengths)
        of_regions = iter(inside)  # in the order of the targets
        loss = regularizers(current, picture, self.anchor) + self._pulled(current, picture)
        total = sum(abs(target.weight) for target in targets)
        for target in targets:
            views = whole if target.region is None else next(of_regions)
            loss = loss + target.weight / total * target.distance(views).mean()
        (gradient,) = torch.autograd.grad(loss, z)
        return loss.detach(), gradient, picture.detach()

    def _pulled(self, current: OptimizeSettings, picture: Tensor) -> Tensor:
        """The weighted distance of a picture (1, 3, h, w) from what the diffusion model takes it for, a scalar."""
        state, none = self.state, torch.zeros((), device=picture.device)
        if not current.diffusion_weight or self.pull is None:
            return none
        if state.guess is None or state.step % EVERY == 0:
            state.guess = self.pull.guess(picture.detach(), current, state.step)
        return current.diffusion_weight * apart(picture, state.guess)

    # ---------------------------------------------------------------------------------------------- before every step

    @property
    def current(self) -> OptimizeSettings:
        """The settings in force at the current step."""
        return self._settings_at(self.state.step)

    def _settings_at(self, step: int) -> OptimizeSettings:
        return next(settings for begin, settings in reversed(self.timeline) if begin <= step)

    @property
    def position(self) -> int:
        """How many steps are made."""
        return self.state.step

    def total(self) -> int:
        """How many steps the run has by the current settings."""
        return self.current.steps

    def last_step(self) -> int:
        """The step at which the run ends by the current settings."""
        return min(self.current.steps, self.settings.until or self.current.steps)

    def at_boundary(self) -> bool:
        """Whether the run ends, or its settings change, at the current step."""
        return self.state.step == self.last_step() or self.state.step in dict(self.timeline)

    def _begin_step(self) -> None:
        """Apply what is due before this step: a new scene or change of settings, a larger canvas, a move of the canvas."""
        step, state = self.state.step, self.state
        if step and (step in dict(self.timeline) or step in dict(self.current.story())):
            state.best = None  # another question: the critic begins anew
            before = next(settings for when, settings in reversed(self.timeline) if when < step)
            if self.current.mask and self.current.mask != before.mask:
                state.base = round_to_uint8(
                    self.canvas.composite(self._picture(state.ema), before.mask, state.base)
                )
        rows, columns = self._grid_at(self.state.step)
        if state.z.shape[-2:] != (rows, columns):
            self._transform(lambda x: F.interpolate(x, (rows, columns), mode="bilinear", align_corners=False))
            state.best = state.guess = None
        if self.current.animate and step and step % self.current.animate == 0:
            self._move()

    def _grid_at(self, step: int) -> tuple[int, int]:
        """Rows and columns of z at a step: the canvas's, halved for every doubling that is still to come."""
        stages = self.coarse + 1
        passed = min(step * stages // self._settings_at(step).steps, self.coarse)
        shrink = 2 ** (self.coarse - passed)
        return -(-self.canvas.rows // shrink), -(-self.canvas.columns // shrink)

    def _transform(self, change: Callable[[Tensor], Tensor], z: Tensor | None = None) -> None:
        """Replace z by `z`, or by `change` of the old z, and apply `change` to the optimizer's state of every cell."""
        old = self.state
        fresh = change(old.z) if z is None else z
        optimizer = self._optimizer(fresh)
        kept = {
            key: change(value) if isinstance(value, Tensor) and value.shape == old.z.shape else value
            for key, value in old.optimizer.state[old.z].items()
        }
        if "exp_avg_sq" in kept:
            kept["exp_avg_sq"] = kept["exp_avg_sq"].clamp(min=0)
        if kept:
            optimizer.state[fresh] = kept
        old.ema = change(old.ema) if z is None else fresh.clone()
        old.z, old.optimizer = fresh, optimizer

    def _move(self) -> None:
        """Zoom, pan and rotate the picture and the optimizer's state; z is encoded from the moved picture."""
        current = self.current
        picture = self._picture(self.state.ema)
        matrix = move_matrix(
            (picture.shape[2], picture.shape[3]), current.zoom, current.pan_x, current.pan_y, current.rotate
        )
        self._transform(lambda x: moved(x, matrix), self.canvas.encode(moved(picture, matrix)))
        self.state.guess = None

    def _optimizer(self, z: Tensor) -> torch.optim.Optimizer:
        return OPTIMIZERS[self.settings.optimizer]([z], lr=self.settings.step_size, foreach=False)

    def _cutout_count(self, current: OptimizeSettings) -> int:
        """The number of cutouts at this step, linear from `cutouts` to `cutouts_end` over the run."""
        end = current.cutouts_end or current.cutouts
        share = self.state.step / max(current.steps - 1, 1)
        return max(1, round(current.cutouts + (end - current.cutouts) * min(share, 1.0)))

    # ------------------------------------------------------------------------------------------------ what there is to see

    def current_targets(self) -> list[EncodedTarget]:
        """The targets at this step, with regions of the size that is decoded at this step."""
        return self.targets.at(
            self.current, self.state.step, self.canvas.pixels(self._grid_at(self.state.step))
        )

    def _picture(self, z: Tensor) -> Tensor:
        """Latents (1, c, rows, columns) -> (1, 3, h, w) in [-1, 1], quantized, decoded, under the current mask."""
        return self.render(self.canvas.codec.quantize(z))

    def render(self, tokens: Tensor) -> Tensor:
        """Tokens (1, rows, columns) -> (1, 3, h, w) in [-1, 1], under the current mask."""
        return self.canvas.render(tokens, self.current.mask, self.state.base)

    def draw(self) -> Tensor:
        """(1, 3, height, width) in [-1, 1]: the picture of the last step, without decoding again."""
        assert self.shown is not None
        return self.canvas.cropped(self.shown)

    def current_picture(self) -> Image.Image:
        """The picture of the current state."""
        return to_pil(self.canvas.cropped(self._picture(self.state.shown(self.current.ema_decay))))[0]

    def metrics(self) -> dict[str, float]:
        """The metrics of a Step, as `judges.metrics`."""
        return metrics(self.state.curve, self.loss)

    def pictures(self, settings: OptimizeSettings, ended: Message | None) -> list[Picture]:
        """The last picture, preceded by the critic's best one if that scored higher, as `Judges.pictures`."""
        return self.judges.pictures(self.state, self.current, self.current_targets(), settings, ended)

    # ------------------------------------------------------------------------------------------------------ snapshots

    def snapshot(self) -> Snapshot:
        """The state that the next step depends on, and the tokens of the steps since the last snapshot."""
        state = self.state
        tensors = {"z": state.z, "average": state.ema}
        for key, value in state.optimizer.state[state.z].items():
            tensors[f"optimizer/{key}"] = torch.as_tensor(value)
        if state.guess is not None:
            tensors["guess"] = state.guess
        if state.base is not None:
            tensors["base"] = ((state.base + 1) * 127.5).round().to(torch.uint8)
        facts: dict[str, Any] = {"curve": state.curve}
        if state.best is not None:
            tensors["best"] = state.best[2]
            facts["best"] = state.best[:2]
        facts["frames"] = [(step, *tokens.shape) for step, tokens in state.frames]
        if state.frames:
            tensors["frames"] = torch.cat([tokens.flatten() for _, tokens in state.frames])
        state.frames = []
        return Snapshot(state.step, tensors, facts)

    def restore(self, snapshot: Snapshot) -> None:
        """Set the state to that of a snapshot."""
        tensors, facts = snapshot.tensors, snapshot.facts
        z = tensors["z"].to(self.canvas.device).clone()
        optimizer = self._optimizer(z)
        memory = {k.removeprefix("optimizer/"): v for k, v in tensors.items() if k.startswith("optimizer/")}
        if memory:
            optimizer.state[z] = {
                k: v.clone() if v.ndim == 0 else v.to(self.canvas.device).clone() for k, v in memory.items()
            }
        base = tensors["base"].to(self.canvas.device).float() / 127.5 - 1 if "base" in tensors else None
        best = (facts["best"][0], facts["best"][1], tensors["best"]) if "best" in facts else None
        curve = [(int(step), a, b) for step, a, b in facts["curve"]]
        guess = tensors["guess"].to(self.canvas.device) if "guess" in tensors else None
        self.state = State(
            z,
            optimizer,
            tensors["average"].to(self.canvas.device).clone(),
            snapshot.step,
            guess,
            base,
            best,
            curve,
        )
