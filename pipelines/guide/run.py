"""The algorithm of Guide (Crowson 2021; Disco Diffusion 5.7): its steps and frames."""

from __future__ import annotations

import math
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from pipelines.clip.judges import JUDGE_EVERY, curve_facts, judge, metrics
from pipelines.clip.targets import EncodedTarget
from pipelines.core.candidates import generator_at
from pipelines.core.journal import Snapshot
from pipelines.core.pipeline import Picture
from pipelines.errors import Message
from pipelines.guide.cutouts import guide_cutouts
from pipelines.guide.gradient import Loss, Prediction, clamped, guidance_gradient
from pipelines.guide.losses import regularizers
from pipelines.guide.scenes import Scenes
from pipelines.guide.settings import GuideSettings
from pipelines.guide.start import start_picture
from pipelines.guide.state import State
from pipelines.guide.symmetry import is_mirrored, mirrored_walk
from pipelines.io.images import round_to_uint8, to_pil
from pipelines.io.moves import move_matrix, moved
from pipelines.models.base import Clip, Denoiser, PixelDenoiser
from pipelines.models.ddim import CLEAN, predict_x0, stochastic_ddim_step
from pipelines.models.typed import floats, integers


class GuideRun:
    """One run of Guide on prepared settings. `begin` or `restore` sets the state, `step` makes one step.

    `size` is (width, height) in pixels.
    """

    def __init__(
        self, unet: Denoiser, clip: Clip, critic: Clip, settings: GuideSettings, size: tuple[int, int]
    ):
        self.unet, self.clip, self.critic, self.settings = unet, clip, critic, settings
        self.size = size[1], size[0]
        self.device, self.scenes = clip.device, Scenes(unet, clip, critic)
        self.timeline = settings.timeline()
        self.alphas = floats(unet.alphas_cumprod)
        count = len(self.alphas)
        grid = torch.linspace(CLEAN, count - 1, settings.steps + 1, dtype=torch.float64).round().int()
        self.grid = integers(grid)[::-1]  # from noise to CLEAN
        self.state: State  # from `begin` or `restore` on
        self.guess: Tensor | None = None  # (1, c, h, w) the clean x that the last step shows
        self.picture: Tensor | None = None  # the same decoded, where that is done
        self.loss = math.nan

    def begin(self) -> None:
        """Set the state of step 0."""
        base = start_picture(self.settings, self.size, self.device)
        self.state = State(self._noised(base, self.settings.first_skip, 0), base)

    # ------------------------------------------------------------------------------------------------- the algorithm

    def step(self) -> Message | None:
        """Make one step. Returns None, or why loss or gradient is not finite; the state is then unchanged."""
        position, current = self.state.position, self.current
        frame, k = self.settings.place(position)
        x, base = self.state.x, self.state.base
        if frame and k == self.settings.frame_skip:
            base = self._next_base(frame)
            x = self._noised(base, k, position)
        cuts, fresh = (generator_at(self.settings.seed, position, purpose) for purpose in ("cuts", "noise"))
        alpha, next_alpha = self._alpha(k), self._alpha(k + 1)
        seen = self._look(current, x, k, frame, base, cuts)
        if not torch.isfinite(torch.cat([seen.loss.view(1), seen.gradient.flatten()])).all():
            return Message("guide.loss_broke", {"loss": f"{seen.loss.item():.3g}", "step": position + 1})
        noise = seen.noise + (1 - alpha) ** 0.5 * clamped(seen.gradient, current.clamp_max)
        guess = predict_x0(x, noise, alpha)
        x = stochastic_ddim_step(x, noise, alpha, next_alpha, current.eta, fresh)
        if is_mirrored(self.settings, k):
            x = mirrored_walk(self.unet, self.settings.symmetry, x, guess, next_alpha)
        state = self.state
        state.x, state.base, self.loss = x.contiguous(), base, seen.loss.item()  # as a snapshot gives it back
        ends = next_alpha == 1
        self.guess, self.picture = (state.x, None) if ends else (seen.guess, seen.picture)
        if position % JUDGE_EVERY == 0 and not ends:
            state.curve.append(
                (position, *judge(self.clip, self.critic, self.draw(), self.current_targets()))
            )
        state.frames.append((position, self._kept(self.guess)))
        state.position += 1
        return None

    def _look(
        self,
        current: GuideSettings,
        x: Tensor,
        k: int,
        frame: int,
        base: Tensor | None,
        generator: torch.Generator,
    ) -> Prediction:
        """The prediction at x and its gradient, which is zero where CLIP has no say."""
        alpha, progress = self._alpha(k), self._progress(k)
        predict = self.scenes.predictor(current, self.state.position)
        scale = current.schedule("clip_guidance_scale").at(progress)
        if not scale:
            noise = predict(x, torch.full((1,), self.grid[k], device=self.device))
            guess = predict_x0(x, noise, alpha)
            return Prediction(noise, guess, None, torch.zeros(()), torch.zeros_like(x))
        likeness = current.frames_scale if frame else current.init_scale * bool(current.image)
        losses: list[Loss] = [
            lambda picture: (
                self._clip_loss(current, picture, progress, generator) * (scale / current.cutn_batches)
            )
        ] * current.cutn_batches
        losses.append(lambda picture: regularizers(current, picture, base, likeness))
        return guidance_gradient(
            predict, self.unet.decode, x, self.grid[k], alpha, losses, whole=current.whole_gradient
        )

    def _clip_loss(
        self, current: GuideSettings, picture: Tensor, progress: float, generator: torch.Generator
    ) -> Tensor:
        """The weighted mean great-circle distance of cuts of a picture from the targets, a scalar."""
        config = self.clip.config
        size = config.small_size if current.cutout_size == "small" else config.image_size
        overview, inner = (
            round(current.schedule(name).at(progress)) for name in ("cut_overview", "cut_innercut")
        )
        power, grey = (current.schedule(name).at(progress) for name in ("cut_ic_pow", "cut_icgray_p"))
        views = guide_cutouts(
            picture, overview if overview + inner else 1, inner, size, generator, power, grey
        )
        vectors = self.clip.encode_image(views)
        targets = self.current_targets()
        total = sum(abs(target.weight) for target in targets)
        parts = [target.weight / total * target.distance(vectors).mean() for target in targets]
        return torch.stack(parts).sum()

    # ------------------------------------------------------------------------------------------------------- frames

    def _noised(self, base: Tensor | None, k: int, position: int) -> Tensor:
        """x before step k of a frame: noise, or a picture (1, 3, h, w) with as much noise as belongs there."""
        generator, alpha = generator_at(self.settings.seed, position, "start"), self._alpha(k)
        x = self.unet.encode(torch.zeros(1, 3, *self.size, device=self.device) if base is None else base)
        noise = torch.randn(x.shape, generator=generator).to(self.device)
        return noise if base is None else alpha**0.5 * x + (1 - alpha) ** 0.5 * noise

    def _next_base(self, frame: int) -> Tensor:
        """The end of the frame before, moved as the keyframes of this one say."""
        zoom, pan_x, pan_y, rotate = (
            self.current.keyframes(name).at(frame) for name in ("zoom", "pan_x", "pan_y", "rotate")
        )
        picture = self.unet.decode(self.state.x).clamp(-1, 1)
        return round_to_uint8(moved(picture, move_matrix(self.size, zoom, pan_x, pan_y, rotate)))

    # ---------------------------------------------------------------------------------------------- before every step

    @property
    def position(self) -> int:
        """How many steps are made."""
        return self.state.position

    @property
    def current(self) -> GuideSettings:
        """The settings in force at the current step."""
        return next(settings for begin, settings in reversed(self.timeline) if begin <= self.state.position)

    def total(self) -> int:
        """How many steps the run has."""
        return self.settings.length()

    def last_step(self) -> int:
        """The step at which the run ends."""
        return min(self.total(), self.settings.until or self.total())

    def at_boundary(self) -> bool:
        """Whether the run ends, a frame ends, or the settings change, at the current step."""
        position = self.state.position
        frame, k = self.settings.place(position)
        starts = frame > 0 and k == self.settings.frame_skip
        return starts or position == self.last_step() or position in dict(self.timeline)

    def _alpha(self, k: int) -> float:
        """alphas_cumprod before step k of a frame, 1 at the end."""
        return 1.0 if self.grid[k] == CLEAN else self.alphas[self.grid[k]]

    def _progress(self, k: int) -> float:
        """The share of the way down the noise before step k, in [0, 1)."""
        return k / self.settings.steps

    # ------------------------------------------------------------------------------------------------ what there is to see

    def current_targets(self) -> list[EncodedTarget]:
        """The targets at this step."""
        return self.scenes.targets(self.current, self.state.position)

    def draw(self) -> Tensor:
        """(1, 3, h, w) in [-1, 1]: what the last step shows, the clean guess or the end of a frame."""
        assert self.guess is not None
        if self.picture is None:
            self.picture = self.unet.decode(self.guess)
        return self.picture

    def current_picture(self) -> Tensor:
        """(1, 3, h, w) in [-1, 1]: the picture of the current state, which is a guess where a frame is not over."""
        frame, k = self.settings.place(self.state.position)
        is_over = self.state.position and (frame > 0 and k == self.settings.frame_skip)
        if is_over or self.state.position == self.total():
            return self.unet.decode(self.state.x)
        times = torch.full((1,), self.grid[k], device=self.device)
        noise = self.scenes.predictor(self.current, self.state.position)(self.state.x, times)
        return self.unet.decode(predict_x0(self.state.x, noise, self._alpha(k)))

    def metrics(self) -> dict[str, float]:
        """The metrics of a Step, as `judges.metrics`."""
        return metrics(self.state.curve, self.loss)

    def pictures(self, settings: GuideSettings, ended: Message | None) -> list[Picture]:
        """The picture of the current state, with the scores of the run. `settings` are those that are recorded."""
        picture = self.current_picture()
        clip, critic = judge(self.clip, self.critic, picture, self.current_targets())
        curve = [*self.state.curve, (self.state.position, clip, critic)]
        facts: dict[str, Any] = {"step": self.state.position, "clip": clip, "steps": self.state.position}
        facts |= curve_facts(curve)
        if ended:
            facts |= {"ended": str(ended), "ended_by": ended.to_json()}
        return [Picture(to_pil(picture)[0], settings.seed, critic, facts, settings)]

    # ------------------------------------------------------------------------------------------------------ snapshots

    def _kept(self, guess: Tensor) -> Tensor:
        """A clean x as it is kept for films, without its first dimension: latents as they are, pixels in 8 bits."""
        if isinstance(self.unet, PixelDenoiser):
            return ((guess[0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu()
        return guess[0].cpu()

    def image_of(self, kept: Tensor) -> Image.Image:
        """The picture of what `_kept` gave."""
        x = kept[None].to(self.device)
        return to_pil(self.unet.decode(x.float() / 127.5 - 1 if x.dtype == torch.uint8 else x))[0]

    def snapshot(self) -> Snapshot:
        """The state that the next step depends on, and what the steps since the last snapshot showed."""
        return self.state.snapshot()

    def restore(self, snapshot: Snapshot) -> None:
        """Set the state to that of a snapshot."""
        self.state = State.restored(snapshot, self.device)
