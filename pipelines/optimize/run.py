"""How Optimize paints: the algorithm of VQGAN-CLIP step by step, and the state that it keeps between steps."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pipelines.clip.cutouts import cutouts, whole_view
from pipelines.clip.losses import great_circle
from pipelines.clip.ranking import text_vector
from pipelines.core.journal import Journal, Snapshot
from pipelines.core.pipeline import Picture
from pipelines.errors import BadInput
from pipelines.io.images import open_picture, to_pil, to_tensor
from pipelines.io.video import Frame
from pipelines.models.clip.network import Clip
from pipelines.models.device import precision_on
from pipelines.models.vqgan.network import Vqgan
from pipelines.optimize.canvas import (
    canvas_size,
    clamp_with_gradient,
    colourfulness,
    eight_bits,
    only_inside,
    parse_palette,
    side_region,
    straight_through,
    token_grid,
)
from pipelines.optimize.prompts import SIDES, parse_regions, parse_story, parse_targets
from pipelines.optimize.settings import OPTIMIZERS, OptimizeSettings

JUDGE_EVERY = 5  # steps
TILES = 4096  # the most image tokens that are told of a picture
STARTS = 32  # made by chance, of which CLIP picks one
SPLASH = 0.6  # radius of a splash; 1 reaches the edges


@dataclass(frozen=True)
class Aim:
    """One target in CLIP's space: a unit vector, a signed weight, where it stops, and the part of the canvas it is for."""

    vector: Tensor  # (d,)
    critic: Tensor | None  # (d',), None for what only CLIP knows, such as noise
    weight: float
    stop: float | None = None
    region: Tensor | None = None  # (1, 1, h, w) in [0, 1]


@dataclass
class State:
    """What a run is between two steps."""

    z: Tensor  # (1, c, h / factor, w / factor), continuous
    optimizer: torch.optim.Optimizer
    average: Tensor  # of z, what is shown
    step: int = 0
    base: Tensor | None = None  # (1, 3, h, w) in [-1, 1]: what a mask keeps
    best: tuple[float, int, Tensor] | None = None  # the critic's score, the step and its tokens
    curve: list[tuple[int, float, float]] = field(default_factory=list)  # step, CLIP's and the critic's score
    frames: list[tuple[int, Tensor]] = field(default_factory=list)  # step and tokens, since the last snapshot


@dataclass(frozen=True)
class Film:
    """The pictures of a run one by one, how many they are, and the texts of its scenes."""

    frames: Iterator[Frame]
    count: int
    scenes: list[str]


class Painting:
    """One run: the algorithm, and the state it keeps."""

    def __init__(self, vqgan: Vqgan, clip: Clip, critic: Clip, settings: OptimizeSettings):
        self.clip, self.critic, self.settings = clip, critic, settings
        self.vqgan = vqgan.seamless() if settings.tile else vqgan
        self.device = vqgan.codes.device
        self.halves = precision_on(self.device, settings.precision) == "bfloat16"
        self.width, self.height = canvas_size(settings.size, settings.init, vqgan)
        self.rows, self.columns = token_grid(self.width, self.height, vqgan)
        self.timeline = settings.timeline()
        self._aims: dict[tuple[str, ...], list[Aim]] = {}
        self.given = self._on_canvas(to_tensor([open_picture(settings.init)])) if settings.init else None
        self.low = self.vqgan.codes.min(0).values[:, None, None]
        self.high = self.vqgan.codes.max(0).values[:, None, None]
        self.home = self._home()
        self.state: State  # from `begin` or `restore` on
        self.shown: Tensor | None = None  # (1, 3, h, w) the last step's picture
        self.loss = math.nan

    def begin(self) -> None:
        """Be at step 0."""
        z = self._start()
        self.state = State(z, self._optimizer(z), z.clone())
        if self.now.mask:
            self.state.base = eight_bits(self._picture(z) if self.home is None else self.home)

    # ------------------------------------------------------------------------------------------------- the algorithm

    def advance(self) -> str:
        """One step. Returns a sentence, and changes nothing, when the numbers broke down."""
        state = self.state
        self._begin_step()
        now, generator = self.now, _generator(self.settings.seed, state.step, "step")
        loss, gradient, picture = self._gradient(now, generator)
        if not (torch.isfinite(loss) and torch.isfinite(gradient).all()):
            return (
                f"the loss became {loss.item():.3g} at step {state.step + 1}; "
                "the picture before it was kept, try a smaller step_size"
            )
        if now.average:
            picture = self._picture(state.average)
        state.frames.append((state.step, self._shown_tokens()))
        self.shown, self.loss = picture, loss.item()
        if state.step % JUDGE_EVERY == 0:
            self._judge(picture)
        for group in state.optimizer.param_groups:
            group["lr"] = now.step_size
        state.z.grad = gradient
        state.optimizer.step()
        state.z.copy_(state.z.clamp(self.low, self.high))
        state.average.lerp_(state.z, 1 - now.average)
        state.step += 1
        return ""

    @torch.enable_grad()
    def _gradient(self, now: OptimizeSettings, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """The loss at z, its gradient, and the picture it was computed on."""
        z, aims = self.state.z.detach().requires_grad_(), self._aims_now()
        picture = self._composite(self._decode(straight_through(z, self.vqgan)))
        seen = picture
        if self.settings.tile:  # a view may lie across the edges
            shift = torch.randint(10**6, (2,), generator=generator).tolist()
            seen = seen.roll((shift[0] % seen.shape[2], shift[1] % seen.shape[3]), (2, 3))
        count = self._cutout_count(now)
        config = self.clip.config
        size = config.small_size if now.views == "small" else config.image_size
        parts = [cutouts(seen, count, size, generator, now.scheme, now.closest)]
        regional = [one for one in aims if one.region is not None]
        for one in regional:
            part = only_inside(picture, one.region)
            parts.append(cutouts(part, max(4, count // 2), size, generator, now.scheme, now.closest))
        lengths = [len(part) for part in parts]
        vectors = self.clip.encode_image(clamp_with_gradient(torch.cat(parts), -1.0, 1.0))
        whole, *inside = vectors.split(lengths)
        of_regions = iter(inside)  # in the order of the aims
        loss = self._regularizers(now, picture)
        total = sum(abs(one.weight) for one in aims)
        for one in aims:
            views = whole if one.region is None else next(of_regions)
            distance = great_circle(views, one.vector)
            if one.stop is not None:  # near enough (or, pushed away, far enough): no gradient any more
                distance = distance.clamp(min=one.stop) if one.weight > 0 else distance.clamp(max=one.stop)
            loss = loss + one.weight / total * distance.mean()
        (gradient,) = torch.autograd.grad(loss, z)
        return loss.detach(), gradient, picture.detach()

    def _regularizers(self, now: OptimizeSettings, picture: Tensor) -> Tensor:
        loss = torch.zeros((), device=self.device)
        if now.pull and self.home is not None and not now.animate:
            apart = (picture - _resized(self.home, picture.shape[-2:])).square().sum(1)
            loss = loss + now.pull * 0.3 * (apart / (apart + 0.04)).mean()  # Geman and McClure 1987
        if now.smooth:
            across, down = picture.diff(dim=3), picture.diff(dim=2)
            loss = loss + now.smooth * (across.square().mean() + down.square().mean())
        if now.colour:
            loss = loss - now.colour * 0.1 * colourfulness(picture)
        if now.palette:
            colours = torch.tensor(parse_palette(now.palette), device=self.device)  # (k, 3)
            apart = (picture[:, None] - colours[None, :, :, None, None]).square().sum(2)  # (1, k, h, w)
            loss = loss + apart.amin(1).mean()
        if now.symmetry:
            loss = loss + now.symmetry * (picture - picture.flip(3)).square().mean()
        return loss

    # ---------------------------------------------------------------------------------------------- before every step

    @property
    def now(self) -> OptimizeSettings:
        """The settings in force at this step."""
        return self._settings_at(self.state.step)

    def _settings_at(self, step: int) -> OptimizeSettings:
        return next(one for begin, one in reversed(self.timeline) if begin <= step)

    def last_step(self) -> int:
        """Where the run ends, as things stand."""
        return min(self.now.steps, self.settings.until or self.now.steps)

    def turns(self) -> bool:
        """Whether the run ends here, or is about to change its course."""
        return self.state.step == self.last_step() or self.state.step in dict(self.timeline)

    def _begin_step(self) -> None:
        """What the timeline has for this step: a new scene or change, a larger canvas, a move of the canvas."""
        step, state = self.state.step, self.state
        if step and (step in dict(self.timeline) or step in dict(self._story())):
            state.best = None  # another question: the critic begins anew
            before = next(one for when, one in reversed(self.timeline) if when < step)
            if self.now.mask and self.now.mask != before.mask:
                state.base = eight_bits(self._composite_with(before.mask, self._picture(state.average)))
        rows, columns = self._grid_at(self.state.step)
        if state.z.shape[-2:] != (rows, columns):
            self._transform(lambda x: F.interpolate(x, (rows, columns), mode="bilinear", align_corners=False))
            state.best = None
        if self.now.animate and step and step % self.now.animate == 0:
            self._move()

    def _grid_at(self, step: int) -> tuple[int, int]:
        """Rows and columns of z at a step: halved for every doubling that is still to come."""
        stages = self.settings.coarse + 1
        passed = min(step * stages // self._settings_at(step).steps, self.settings.coarse)
        shrink = 2 ** (self.settings.coarse - passed)
        return -(-self.rows // shrink), -(-self.columns // shrink)

    def _transform(self, change: Callable[[Tensor], Tensor], z: Tensor | None = None) -> None:
        """Put another z in place, carrying the optimizer's memory of every cell along."""
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
        old.average = change(old.average) if z is None else fresh.clone()
        old.z, old.optimizer = fresh, optimizer

    def _move(self) -> None:
        """Zoom, pan and rotate the picture; z is read from the moved picture, the optimizer's memory moves with it."""
        now = self.now
        picture = self._picture(self.state.average)
        height, width = picture.shape[-2:]
        angle = math.radians(now.rotate)
        cos, sin = math.cos(angle) / now.zoom, math.sin(angle) / now.zoom
        dx, dy = 2 * now.pan_x / width, 2 * now.pan_y / height
        theta = torch.tensor(
            [[[cos, -sin * height / width, -dx], [sin * width / height, cos, -dy]]], device=self.device
        )

        def warp(x: Tensor) -> Tensor:
            grid = F.affine_grid(theta, list(x.shape), align_corners=False)
            return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)

        self._transform(warp, self._encode(warp(picture)))

    def _optimizer(self, z: Tensor) -> torch.optim.Optimizer:
        return OPTIMIZERS[self.settings.optimizer]([z], lr=self.settings.step_size, foreach=False)

    def _cutout_count(self, now: OptimizeSettings) -> int:
        """From `cutouts` to `cutouts_end` over the run."""
        end = now.cutouts_end or now.cutouts
        share = self.state.step / max(now.steps - 1, 1)
        return max(1, round(now.cutouts + (end - now.cutouts) * min(share, 1.0)))

    # -------------------------------------------------------------------------------------------------------- targets

    def _story(self) -> list[tuple[int, str]]:
        return parse_story(self.now.prompt, self.now.steps)

    def scene(self) -> str:
        """The prompt that is followed at this step."""
        return next(words for begin, words in reversed(self._story()) if begin <= self.state.step)

    def _aims_now(self) -> list[Aim]:
        now = self.now
        size = self._canvas_size()
        key = (self.scene(), now.regions, now.image_prompts, now.noise_prompts, str(size))
        if key not in self._aims:
            self._aims = {key: self._read_aims(now, self.scene(), size)}
        return self._aims[key]

    @torch.no_grad()
    def _read_aims(self, now: OptimizeSettings, scene: str, size: tuple[int, int]) -> list[Aim]:
        clip, critic = self.clip, self.critic
        aims = [
            Aim(text_vector(clip, one.text), text_vector(critic, one.text), one.weight, one.stop)
            for one in parse_targets(scene)
        ]
        for one in parse_regions(now.regions):
            target = one.target
            region = side_region(one.where, size) if one.where in SIDES else self._mask(one.where, size)
            aims.append(
                Aim(text_vector(clip, target.text), None, target.weight, target.stop, region.to(self.device))
            )
        for one in parse_targets(now.image_prompts):
            picture = to_tensor([open_picture(one.text)]).to(self.device)
            vectors = [m.encode_image(whole_view(picture, m.config.image_size))[0] for m in (clip, critic)]
            aims.append(Aim(vectors[0], vectors[1], one.weight, one.stop))
        for one in parse_targets(now.noise_prompts):
            vector = torch.randn(
                clip.config.embedding_size, generator=torch.Generator().manual_seed(int(one.text))
            )
            aims.append(Aim(F.normalize(vector, dim=0).to(self.device), None, one.weight))
        return aims

    # ------------------------------------------------------------------------------------------------------- pictures

    def _canvas_size(self) -> tuple[int, int]:
        """Height and width of what is decoded at this step, edges that will be cropped included."""
        return self._pixels(self._grid_at(self.state.step))

    def _pixels(self, grid: tuple[int, int]) -> tuple[int, int]:
        """Height and width of so many rows and columns of tokens."""
        return grid[0] * self.vqgan.config.factor, grid[1] * self.vqgan.config.factor

    @property
    def _full_size(self) -> tuple[int, int]:
        """Height and width of the canvas when it is no longer coarse, edges that will be cropped included."""
        return self._pixels((self.rows, self.columns))

    def _start(self) -> Tensor:
        """z at step 0. Drawn on the CPU from the seed alone, so it is the same on every device."""
        generator = _generator(self.settings.seed, 0, "start")
        rows, columns = self._grid_at(0)
        size = self._pixels((rows, columns))
        if self.settings.tokens:
            z = self.vqgan.embed(read_tokens(self.settings, self.vqgan))
            return _resized(z, (rows, columns))
        if self.given is not None:
            return self._encode(F.interpolate(self.given, size, mode="area"))
        start = self.settings.start
        white = torch.ones(1, 3, *size, device=self.device)
        if start == "white":
            return self._encode(white)
        if start in ("splash", "codes"):
            tokens = torch.randint(len(self.vqgan.codes), (STARTS, rows, columns), generator=generator)
            starts = self.vqgan.embed(tokens.to(self.device))
            if start == "splash":
                starts = torch.where(_disc(rows, columns).to(self.device), starts, self._encode(white))
        else:
            side = size if start == "noise" else (2, 2)
            pictures = torch.rand(STARTS, 3, *side, generator=generator) * 2 - 1
            pictures = F.interpolate(pictures, size, mode="bilinear", align_corners=True)
            starts = torch.cat([self._encode(one) for one in pictures.to(self.device).split(1)])
        return self._nearest_start(starts, size)

    def _nearest_start(self, starts: Tensor, canvas: tuple[int, int]) -> Tensor:
        """Of z made by chance, (n, c, h, w), the one (1, c, h, w) whose picture CLIP finds nearest to the targets."""
        now, size = self.timeline[0][1], self.clip.config.image_size
        scene = parse_story(now.prompt, now.steps)[0][1]
        aims = [one for one in self._read_aims(now, scene, canvas) if one.region is None]
        target = torch.stack([one.weight * one.vector for one in aims]).sum(0)
        scores = []
        for some in starts.split(max(1, 8 * 128**2 // math.prod(canvas))):
            pictures = self._decode(self.vqgan.embed(self.vqgan.nearest(some)))
            scores.append(self.clip.encode_image(whole_view(pictures, size)) @ target)
        best = int(torch.cat(scores).argmax())
        return starts[best : best + 1].clone()

    def _encode(self, picture: Tensor) -> Tensor:
        return self.vqgan.encode(picture).float().contiguous()

    def _decode(self, codes: Tensor) -> Tensor:
        """Codes -> pictures in float32; only the decoder itself may compute in bfloat16.

        Everything that is compared with what a step decodes comes from here too: `pull` feels the rounding of one that
        does not, and the optimizer steps as far for it as for CLIP.
        """
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.halves):
            picture = self.vqgan.decode(codes)
        return clamp_with_gradient(picture.float(), -1.0, 1.0)

    def _home(self) -> Tensor | None:
        """(1, 3, h, w): what `pull` pulls to, the given picture, the draft or white; nothing where all is chance."""
        if self.given is not None:
            return self.given
        if self.settings.tokens:
            with torch.no_grad():
                return self._decode(self.vqgan.embed(read_tokens(self.settings, self.vqgan)))
        if self.settings.start in ("splash", "white"):
            return torch.ones(1, 3, *self._full_size, device=self.device)
        return None

    def _picture(self, z: Tensor) -> Tensor:
        """(1, 3, h, w) in [-1, 1]: what z, or an average of it, looks like under the mask of now."""
        return self.render(self.vqgan.nearest(z))

    def render(self, tokens: Tensor) -> Tensor:
        """(1, h, w) tokens -> (1, 3, h, w) in [-1, 1] under the mask of now."""
        with torch.no_grad():
            return self._composite(self._decode(self.vqgan.embed(tokens)))

    def _composite(self, picture: Tensor) -> Tensor:
        return self._composite_with(self.now.mask, picture)

    def _composite_with(self, source: str, picture: Tensor) -> Tensor:
        """The base outside the mask, to the bit; the picture inside; between them where the mask is grey."""
        base = self.state.base
        if not source or base is None:
            return picture
        mask = self._mask(source, (picture.shape[2], picture.shape[3])).to(self.device)
        if base.shape != picture.shape:
            base = F.interpolate(base, picture.shape[-2:], mode="area")
        return torch.where(mask > 0, base + mask * (picture - base), base)

    def _mask(self, source: str, size: tuple[int, int]) -> Tensor:
        """(1, 1, h, w) in [0, 1] from a mask picture in the settings."""
        if (source, size) not in self._masks:
            image = open_picture(source).convert("L")
            levels = to_tensor([image.convert("RGB")])[:, :1].add(1).div(2)
            levels = self._on_canvas(levels)
            if levels.shape[-2:] != size:
                levels = F.interpolate(levels, size, mode="area")
            self._masks[source, size] = levels
        return self._masks[source, size]

    @cached_property
    def _masks(self) -> dict[tuple[str, tuple[int, int]], Tensor]:
        return {}

    def _on_canvas(self, picture: Tensor) -> Tensor:
        """The picture with its edges repeated on the right and below until tokens cover it."""
        height, width = self._full_size
        edges = (0, width - picture.shape[-1], 0, height - picture.shape[-2])
        return F.pad(picture, edges, mode="replicate").to(self.device)

    def _shown_tokens(self) -> Tensor:
        return self.vqgan.nearest(self.state.average if self.now.average else self.state.z)[0].int().cpu()

    def draw(self) -> Tensor:
        """(1, 3, height, width): the picture of the last step, which is there already."""
        assert self.shown is not None
        return self._cropped(self.shown)

    def _cropped(self, picture: Tensor) -> Tensor:
        if picture.shape[-2:] != self._full_size:
            return picture  # still coarse
        return picture[..., : self.height, : self.width]

    # -------------------------------------------------------------------------------------------------------- judging

    def _scores(self, picture: Tensor) -> tuple[float, float]:
        """CLIP's and the critic's weighted cosine with the targets, of the whole picture."""
        aims = [one for one in self._aims_now() if one.region is None and one.critic is not None]
        total = sum(abs(one.weight) for one in aims)
        scores = []
        for model, name in ((self.clip, "vector"), (self.critic, "critic")):
            seen = model.encode_image(whole_view(self._cropped(picture), model.config.image_size))[0]
            scores.append(sum(one.weight / total * (seen @ getattr(one, name)).item() for one in aims))
        return scores[0], scores[1]

    def _judge(self, picture: Tensor) -> None:
        state = self.state
        clip, critic = self._scores(picture)
        state.curve.append((state.step, clip, critic))
        full = state.z.shape[-2:] == (self.rows, self.columns)
        if full and (state.best is None or critic > state.best[0]):
            state.best = (critic, state.step, state.frames[-1][1].clone())

    def metrics(self) -> dict[str, float]:
        """What a Step tells of the run."""
        told = {"loss": self.loss}
        if self.state.curve:
            _, told["clip"], told["critic"] = self.state.curve[-1]
        return told | {"drift": float(drifting(self.state.curve))}

    def pictures(self, settings: OptimizeSettings, ended: str) -> list[Picture]:
        """The last picture, and before it the critic's best when that is another one."""
        state = self.state
        last = self._shown_tokens()
        picture = self._picture(state.average if self.now.average else state.z)
        clip, critic = self._scores(picture)
        curve = [*state.curve, (state.step, clip, critic)]
        thin = -(-len(curve) // 100)
        shared = {
            "steps": state.step,
            "curve": [[step, round(a, 4), round(b, 4)] for step, a, b in curve[::-1][::thin][::-1]],
            "drift": drifting(curve),
        }
        if ended:
            shared["ended"] = ended

        def made(tokens: Tensor, shown: Tensor, step: int, clip: float, critic: float) -> Picture:
            facts: dict[str, Any] = {"step": step, "clip": clip, **shared}
            if tokens.numel() <= TILES:
                facts["tokens"] = tokens.flatten().tolist()
            image = to_pil(self._cropped(shown))[0]
            return Picture(image, settings.seed, critic, facts, settings)

        pictures = [made(last, picture, state.step, clip, critic)]
        if state.best is not None and state.best[0] > critic:
            score, step, tokens = state.best
            shown = self.render(tokens[None].to(self.device).long())
            pictures.insert(0, made(tokens, shown, step, self._scores(shown)[0], score))
        return pictures

    # ------------------------------------------------------------------------------------------------------ snapshots

    def snapshot(self) -> Snapshot:
        """Everything that the next step depends on, and the pictures since the snapshot before."""
        state = self.state
        tensors = {"z": state.z, "average": state.average}
        for key, value in state.optimizer.state[state.z].items():
            tensors[f"optimizer/{key}"] = torch.as_tensor(value)
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
        """Be where the snapshot was taken."""
        tensors, facts = snapshot.tensors, snapshot.facts
        z = tensors["z"].to(self.device).clone()
        optimizer = self._optimizer(z)
        memory = {k.removeprefix("optimizer/"): v for k, v in tensors.items() if k.startswith("optimizer/")}
        if memory:
            optimizer.state[z] = {
                k: v.clone() if v.ndim == 0 else v.to(self.device).clone() for k, v in memory.items()
            }
        base = tensors["base"].to(self.device).float() / 127.5 - 1 if "base" in tensors else None
        best = (facts["best"][0], facts["best"][1], tensors["best"]) if "best" in facts else None
        curve = [(int(step), a, b) for step, a, b in facts["curve"]]
        self.state = State(
            z, optimizer, tensors["average"].to(self.device).clone(), snapshot.step, base, best, curve
        )

    def picture_now(self) -> Image.Image:
        """What stands on the canvas."""
        return to_pil(self._cropped(self._picture(self.state.average if self.now.average else self.state.z)))[
            0
        ]

    def film(self, journal: Journal) -> Film:
        """The pictures of all steps, or, of a run that moves its canvas, the last one before each move."""
        steps = journal.steps()
        scenes = self._scenes(steps[-1] if steps else 0)
        moves = [one.animate for _, one in self.timeline if one.animate]
        kept = [
            [at for at, *_ in journal.facts(step)["frames"] if not moves or (at + 1) % moves[-1] == 0]
            for step in steps
        ]

        def draw() -> Iterator[Frame]:
            for step, wanted in zip(steps, kept, strict=True):
                snapshot = journal.load(step)
                self.restore(snapshot)
                start = 0
                for at, rows, columns in snapshot.facts["frames"]:
                    tokens = snapshot.tensors["frames"][start : start + rows * columns].view(1, rows, columns)
                    start += rows * columns
                    if at not in wanted:
                        continue
                    self.state.step = at
                    picture = self.render(tokens.to(self.device).long())
                    if picture.shape[-2:] != self._full_size:
                        picture = F.interpolate(picture, self._full_size, mode="nearest")
                    scene = sum(begin <= at for begin, _ in scenes) - 1
                    yield Frame(to_pil(self._cropped(picture))[0], scene)

        return Film(draw(), sum(map(len, kept)), [words for _, words in scenes])

    def _scenes(self, end: int) -> list[tuple[int, str]]:
        """Every prompt that was followed, and since when."""
        scenes: list[tuple[int, str]] = []
        bounds = [*(step for step, _ in self.timeline[1:]), end + 1]
        for (since, settings), until in zip(self.timeline, bounds, strict=True):
            story = parse_story(settings.prompt, settings.steps)
            for k, (begin, words) in enumerate(story):
                ends = story[k + 1][0] if k + 1 < len(story) else until
                if begin < until and ends > since and (not scenes or scenes[-1][1] != words):
                    scenes.append((max(begin, since), words))
        return scenes


def _disc(rows: int, columns: int) -> Tensor:
    """(rows, columns) bool: the cells in the middle of the canvas, at least one."""
    down, across = (torch.arange(n).add(0.5).div(n).mul(2).sub(1).square() for n in (rows, columns))
    distance = (down[:, None] + across[None, :]).sqrt()
    return distance <= max(SPLASH, distance.min().item())


def _resized(z: Tensor, size: tuple[int, ...]) -> Tensor:
    return z if z.shape[-2:] == size else F.interpolate(z, size, mode="area")


def read_tokens(settings: OptimizeSettings, vqgan: Vqgan) -> Tensor:
    """(1, h, w) tokens named in the settings; BadInput when they do not fit the canvas or the codebook."""
    tokens = torch.tensor([int(one) for one in settings.tokens.split()])
    width, height = canvas_size(settings.size, settings.init, vqgan)
    rows, columns = token_grid(width, height, vqgan)
    if len(tokens) != rows * columns:
        raise BadInput(f"tokens has {len(tokens)} numbers; a canvas of {width}x{height} has {rows * columns}")
    if int(tokens.max()) >= len(vqgan.codes):
        raise BadInput(f"tokens has {int(tokens.max())}; the largest is {len(vqgan.codes) - 1}")
    return tokens.view(1, rows, columns).to(vqgan.codes.device)


def drifting(curve: list[tuple[int, float, float]], window: int = 8) -> bool:
    """Whether over the last `window` judgements CLIP's score climbed while the critic's fell.

    `curve` holds (step, CLIP, critic). Both trends are least-squares lines; a fall below 0.01 in all is no fall.
    """
    if len(curve) < window:
        return False
    rows = torch.tensor([(clip, critic) for _, clip, critic in curve[-window:]], dtype=torch.float64)
    time = torch.linspace(-0.5, 0.5, window, dtype=torch.float64)
    rise = (time[:, None] * (rows - rows.mean(0))).sum(0) / time.square().sum()
    return bool(rise[0] > 0.005 and rise[1] < -0.01)


def _generator(seed: int, step: int, purpose: str) -> torch.Generator:
    """Chance of its own for every step, so that a resumed run needs no memory of the chance before it."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{step}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
