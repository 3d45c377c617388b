"""Edit (DiffusionCLIP, Kim et al. 2022): a picture changed along a text direction.

Up the noise to the return step, deterministically; then down again by a model that CLIP's directional loss has moved, or
under CLIP's gradient. Strength 0 gives the picture back bit for bit. The critic, a CLIP that steers nothing, has the last
word on whether it worked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pipelines.clip.losses import directional_similarity, text_direction
from pipelines.clip.ranking import text_vector
from pipelines.core.journal import Journal
from pipelines.core.pipeline import Picture, Resumable, Settings, Step
from pipelines.edit.ddim import Trajectory, noised, time_grid, walk_down, walk_up
from pipelines.edit.directions import Direction, Wearing, network_hash, read_direction
from pipelines.edit.framing import LEAST, Framing
from pipelines.edit.guidance import walk_down_guided
from pipelines.edit.settings import EditSettings, split_list
from pipelines.edit.source_images import Examples
from pipelines.edit.tuning import PAPER_DOWN, PAPER_UP, Aim, Tuning, adapter_of
from pipelines.errors import BadInput, Stopped
from pipelines.io.files import home_path
from pipelines.io.images import on_white, open_picture, picture_to_uri, ssim, to_pil
from pipelines.io.masks import read_mask
from pipelines.models.clip.network import Clip
from pipelines.models.unet.network import CLEAN, Unet, walk

ALIKE = 0.985  # cosine of two texts that CLIP takes for one
LARGE = 1_048_576  # pixels; a larger picture is kept in the record reduced to so many
MOST_LISTED = 200  # pictures in a list, folders unfolded
EXAMPLE_CHOICE = 32  # of the pack's pictures, for a run without one


@dataclass(frozen=True)
class Outlook:
    """What can be said before a run. `match`: the share of the pack's pictures that fit the source text less than
    this one, in [0, 1], None without a picture; `alike`: the cosine of the two texts; seconds and
    megabytes are estimates."""

    match: float | None
    alike: float
    return_step: int
    seconds: float
    megabytes: float
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Scene:
    """The picture of a run, its framing, and what the model sees of it."""

    picture: Image.Image
    framing: Framing
    x: Tensor  # (1, 3, s, s)
    mask: Image.Image | None
    small_mask: Tensor | None


@dataclass
class Edit(Resumable[EditSettings]):
    """A picture changed along the direction from one text to another, by a diffusion model that CLIP moves."""

    unet: Unet
    clip: Clip
    critic: Clip
    pictures: Examples = field(default_factory=Examples.none)

    Settings: ClassVar[type[Settings]] = EditSettings

    # ------------------------------------------------------------------------------------------------------ preparing

    def prepare(self, settings: EditSettings) -> EditSettings:
        """Pictures and directions become part of the settings, and what is proposed is written down."""
        fields: dict[str, Any] = {}
        side = self.unet.config.image_size
        size = (side, side)
        if settings.image:
            picture = on_white(open_picture(settings.image))
            size = picture.size
            if size[0] * size[1] <= LARGE:
                fields["image"] = picture_to_uri(picture)
        elif not len(self.pictures):
            raise BadInput("the pack has no pictures of its own to edit; give an image")
        if settings.mode in ("reusable", "paper") and not (
            settings.directions or settings.lessons or len(self.pictures)
        ):
            raise BadInput(
                f"the pack has no pictures of its own, from which the {settings.mode} mode learns; give --lessons, a "
                "folder of at least two, or use the quick mode"
            )
        Framing.of(size, settings.box(), side)
        if settings.mask:
            fields["mask"] = picture_to_uri(read_mask(settings.mask, size, None))
        for name in ("examples", "lessons"):
            sources = [one for part in split_list(getattr(settings, name)) for one in _unfolded(part)]
            if len(sources) > MOST_LISTED:
                raise BadInput(f"{name} are {len(sources)} pictures; the most is {MOST_LISTED}")
            fields[name] = " | ".join(_likeness(one, side) for one in sources)
        if settings.lessons and len(split_list(fields["lessons"])) < 2:
            raise BadInput("lessons are a single picture; give at least two, or use the quick mode")
        if settings.directions:
            settings = settings.map_directions(lambda source: read_direction(source).to_uri())
            worn = Wearing(self.unet)
            directions = [read_direction(one.file) for one in settings.uses()]
            for one in directions:
                worn.wear(one)
            fields["return_step"] = settings.return_step or max(one.return_step for one in directions)
            fields |= {"source": directions[0].facts["source"], "prompt": directions[0].facts["target"]}
        else:
            self._check_texts(settings)
            fields["return_step"] = settings.return_step or self._proposed(settings)
        if settings.mode == "paper" and not settings.directions:
            fields["return_step"] = max(fields["return_step"], PAPER_UP)
        return replace(settings, **fields)

    def check(self, settings: EditSettings) -> Outlook:
        """What to expect of a run, before it. BadInput where the run would refuse."""
        settings = self.prepare(settings)
        alike, match, warnings = 0.0, None, []
        if not settings.directions and not settings.examples:
            alike = self._alike(settings)
            if alike < 0.35:
                warnings.append("far apart")
        if settings.image:
            x = self._scene(settings).x
            with torch.no_grad():
                text = text_vector(self.clip, settings.source)
                own = (self.clip.encode_image(x) @ text).item()
                others = self.pictures.cosines(self.clip, text[None]) if len(self.pictures) else None
            match = None if others is None else (others < own).float().mean().item()
            if match is not None and match < 0.8 and not settings.directions:
                warnings.append("source does not describe it")
        seconds, megabytes = self._cost(settings)
        return Outlook(match, alike, settings.return_step, seconds, megabytes, warnings)

    def _check_texts(self, settings: EditSettings) -> None:
        if not settings.examples and (alike := self._alike(settings)) > ALIKE:
            raise BadInput(
                f"CLIP cannot tell {settings.source[:60]!r} from {settings.prompt[:60]!r} (cosine {alike:.3f}); "
                "say the difference in other words"
            )

    def _alike(self, settings: EditSettings) -> float:
        return (text_vector(self.clip, settings.source) @ text_vector(self.clip, settings.prompt)).item()

    def _proposed(self, settings: EditSettings) -> int:
        """Texts that are farther apart need to return to more noise (after Kwon et al. 2023, Asyrp, section 4.2)."""
        if settings.examples:
            return 500
        return int(min(max(350 + 350 * (1 - self._alike(settings)), 350), 600)) // 10 * 10

    @torch.no_grad()
    def _cost(self, settings: EditSettings) -> tuple[float, float]:
        """Seconds and megabytes that a prepared run will take, from the time of one call of each network here."""
        side = self.unet.config.image_size
        x = torch.zeros(1, 3, side, side, device=self.clip.device)
        times = torch.zeros(1, dtype=torch.long, device=x.device)
        unet, clip = (
            _fastest(call) for call in (lambda: self.unet(x, times), lambda: self.clip.encode_image(x))
        )
        up, down = settings.step_count() * (1 + settings.refine), settings.step_count() * settings.strip
        calls = up + down * (1 if settings.mode == "instant" else 1.5)
        updates, learning = settings.update_count(), 0.0
        if settings.mode == "instant" and not settings.directions:
            calls += down * 8 * clip / unet
        elif updates:
            batch = {"quick": 4 * 3, "reusable": 4 * 4, "paper": 6 * 3}[settings.mode]
            learning = updates * (batch * unet + 16 * clip)
            if settings.mode == "paper":
                learning += min(self._lesson_count(settings), updates) * PAPER_UP * unet
        weights = sum(p.numel() for p in self.unet.parameters()) * 4
        return calls * unet + learning, (weights * 2 + 90e6 * (side / 64) ** 2 * (5 if updates else 1)) / 1e6

    # -------------------------------------------------------------------------------------------------------- running

    @torch.no_grad()
    def __call__(
        self, settings: EditSettings, journal: Journal | None = None
    ) -> Generator[Step, None, list[Picture]]:
        """Learn, walk up, walk down. Stopped, thrown in, ends the learning, and the run with what was learned."""
        journal = journal or Journal()
        journal.begin({"settings": settings.to_dict(), "models": self.fingerprint()})
        stop, trouble = _Stop(), ""
        scene = self._scene(settings)
        x = yield from self._purified(settings, scene.x)
        way: Any = None  # a Trajectory, once the walk up is made
        wearing: Wearing | None = None
        tuning: Tuning | None = None
        learns = settings.update_count() > 0
        if not learns or settings.mode == "quick":
            way = yield from _shown("invert", settings.step_count(), self._up(settings, x), x)
        if settings.directions:
            wearing = Wearing(self.unet)
            for use in settings.uses():
                wearing.wear(read_direction(use.file))
        elif learns:
            lessons, ways = x, way
            if settings.mode != "quick":
                lessons = self._lessons(settings)
                ways = None
            if settings.mode == "paper":
                lessons = lessons[: settings.update_count()]
                ways = yield from _shown("invert", PAPER_UP, self._up(settings, lessons, PAPER_UP), lessons)
            tuning = Tuning(
                self.unet, self.clip, self.critic, settings, settings.return_step, self._aim(settings, x),
                lessons, ways,
            )  # fmt: skip
            trouble = yield from self._learn(settings, tuning, journal, stop)
            if stop.asked or trouble:
                settings = replace(settings, until=tuning.step)
            wearing = Wearing(self.unet)
            learned = self._as_direction(settings, tuning.wearing.tensors(), tuning.step, tuning.curves)
            wearing.wear(learned)
        if way is None:
            way = yield from stop.quietly(_shown("invert", settings.step_count(), self._up(settings, x), x))
        strengths = strip(settings.strength, settings.strip)
        drawn = yield from stop.quietly(self._draw(settings, scene, way, wearing, strengths))
        pictures = self._pictures(settings, scene, x, strengths, drawn)
        if tuning is not None:
            told = {"updates": tuning.step, "curves": tuning.curves, "overshot": overshot(tuning.curves)}
            told |= {"ended": trouble} if trouble else {}
            pictures = [replace(one, facts=one.facts | told) for one in pictures]
        return pictures

    def direction(self, settings: EditSettings, journal: Journal) -> Direction:
        """What a run of these prepared settings has learned, for a file. BadInput when it learned nothing."""
        snapshot = journal.latest()
        if snapshot is None:
            raise BadInput(f"the mode {settings.mode} learned no direction; use quick or reusable, or paper")
        return self._as_direction(settings, adapter_of(snapshot), snapshot.step, snapshot.facts["curves"])

    @torch.no_grad()
    def glimpse(self, settings: EditSettings, journal: Journal, step: int) -> Image.Image:
        """The edit by what had been learned at one snapshot of a journal of these prepared settings, in a few steps."""
        wearing = Wearing(self.unet)
        wearing.wear(self._as_direction(settings, adapter_of(journal.load(step)), step, []))
        scene = self._scene(settings)
        quicker = replace(settings, steps=min(settings.step_count(), 8), refine=0)
        x = _last(self._purified(settings, scene.x))
        way = _last(self._up(quicker, x))
        drawn = _last(self._draw(quicker, scene, way, wearing, [settings.strength]))
        return self._pictures(settings, scene, x, [settings.strength], drawn)[0].image

    @torch.no_grad()
    def round_trip(self, settings: EditSettings, x: Tensor) -> Tensor:
        """(n, 3, s, s) up the noise and down again by the model alone, the errors not added back."""
        way = _last(self._up(settings, x))
        return _last(walk_down(self._noise_of, way, add_back=False)).clamp(-1, 1)

    def fingerprint(self) -> str:
        """A short hash of the networks, so that a journal is not resumed with others."""
        return network_hash(self.unet)[:8] + network_hash(self.clip.image)[:8]

    # ---------------------------------------------------------------------------------------------------------- stages

    def _scene(self, settings: EditSettings) -> _Scene:
        picture = on_white(open_picture(settings.image)) if settings.image else self._example(settings)
        framing = Framing.of(picture.size, settings.box(), self.unet.config.image_size)
        mask = read_mask(settings.mask, picture.size, None) if settings.mask else None
        small = None if mask is None else framing.reduced_mask(mask).to(self.clip.device)
        return _Scene(picture, framing, framing.reduced(picture).to(self.clip.device), mask, small)

    def _example(self, settings: EditSettings) -> Image.Image:
        """One of the pack's pictures that fit the source text, chosen by the seed."""
        rows = self._fitting(settings, EXAMPLE_CHOICE)
        return to_pil(self.pictures.tensor([rows[settings.seed % len(rows)]]))[0]

    def _fitting(self, settings: EditSettings, count: int) -> list[int]:
        """Rows of the pack's pictures that CLIP finds nearest to the source text."""
        text = text_vector(self.clip, settings.source)
        return self.pictures.nearest(self.clip, text[None], min(count, len(self.pictures)))

    def _purified(self, settings: EditSettings, x: Tensor) -> Generator[Step, None, Tensor]:
        """A drawing or a stranger's picture brought into the model's world: to the return step with fresh noise and back
        in six steps, again and again (Kim et al. 2022, section 3.4; Meng et al. 2022, SDEdit)."""
        last = settings.return_step - 1
        for k in range(settings.purify):
            generator = torch.Generator().manual_seed((settings.seed << 20) + k)
            noisy = noised(x, self.unet.alphas_cumprod[last], generator)
            x = walk(self.unet, noisy, last, CLEAN, PAPER_DOWN).clamp(-1, 1)
            yield Step("purify", k + 1, settings.purify, {}, lambda x=x: x)
        return x

    def _lessons(self, settings: EditSettings) -> Tensor:
        """The pictures that a direction learns from: the user's own, or those of the pack that fit the source best."""
        side = self.unet.config.image_size
        if settings.lessons:
            own = [on_white(open_picture(one)) for one in split_list(settings.lessons)]
            return torch.cat([Framing.of(one.size, None, side).reduced(one) for one in own]).to(
                self.clip.device
            )
        return self.pictures.tensor(self._fitting(settings, settings.learn_from)).to(self.clip.device)

    def _lesson_count(self, settings: EditSettings) -> int:
        return len(split_list(settings.lessons)) or min(settings.learn_from, len(self.pictures))

    def _aim(self, settings: EditSettings, x: Tensor) -> Aim:
        """The direction between the texts, or from the source's pictures to the examples (Gal et al. 2022, 4.3)."""
        if not settings.examples:
            return Aim(
                *(text_direction(one, settings.source, settings.prompt) for one in (self.clip, self.critic))
            )
        side = self.unet.config.image_size
        shown = [on_white(open_picture(one)) for one in split_list(settings.examples)]
        after = torch.cat([Framing.of(one.size, None, side).reduced(one) for one in shown]).to(x.device)
        before = x if settings.mode in ("instant", "quick") else self._lessons(settings)
        found = []
        for judge in (self.clip, self.critic):
            change = judge.encode_image(after).mean(0) - judge.encode_image(before).mean(0)
            found.append(F.normalize(change, dim=0))
        return Aim(*found)

    def _learn(
        self, settings: EditSettings, tuning: Tuning, journal: Journal, stop: _Stop
    ) -> Generator[Step, None, str]:
        """All updates that are left; returns a sentence when the numbers broke down."""
        if (snapshot := journal.latest()) is not None:
            tuning.restore(snapshot)
        trouble, saved = "", tuning.step
        count = min(settings.update_count(), settings.until or settings.update_count())
        while tuning.step < count and not stop.asked:
            if trouble := tuning.advance():
                break
            if journal.due(tuning.step) or tuning.step == count:
                journal.save(tuning.snapshot())
                saved = tuning.step
            try:
                yield Step("learn", tuning.step, count, tuning.metrics(), lambda: tuning.shown)  # type: ignore[arg-type, return-value]
            except Stopped:
                stop.asked = True
        if saved != tuning.step:
            journal.save(tuning.snapshot())
        return trouble

    def _up(self, settings: EditSettings, x: Tensor, steps: int = 0) -> Generator[int, None, Trajectory]:
        grid = time_grid(settings.return_step, steps or settings.step_count())
        return walk_up(self._noise_of, self.unet.alphas_cumprod, x, grid, settings.refine)

    def _draw(
        self,
        settings: EditSettings,
        scene: _Scene,
        way: Trajectory,
        wearing: Wearing | None,
        strengths: list[float],
    ) -> Generator[Step, None, Tensor]:
        """The strip: (n, 3, s, s), one picture for each strength: by what is worn, or, without, under CLIP's gradient."""
        device = scene.x.device
        if wearing is not None:
            uses = settings.uses()
            amount = torch.tensor(strengths, device=device)

            def noise_of(x: Tensor, step: int) -> Tensor:
                worn = [amount * use.strength * (use.window[0] > step >= use.window[1]) for use in uses] or [
                    amount
                ]
                wearing.set_strengths(worn)
                return wearing.noise_of(x, step)

            walk = walk_down(noise_of, way, len(strengths), scene.small_mask)
        else:
            walk = walk_down_guided(
                self._noise_of, self.clip, self._aim(settings, way.states[0]).clip, way,
                torch.tensor([0.0, *strengths], device=device), guidance=settings.guidance, keep=settings.keep,
                smooth=settings.smooth,
                generator=torch.Generator().manual_seed(settings.seed), mask=scene.small_mask,
            )  # fmt: skip
        while True:
            try:
                done, clean = next(walk)
            except StopIteration as end:
                return end.value[-len(strengths) :]
            yield Step("draw", done, len(way.errors), {}, lambda clean=clean: clean[-len(strengths) :])

    def _noise_of(self, x: Tensor, step: int) -> Tensor:
        parts = [self.unet(part, torch.full((len(part),), step, device=x.device)) for part in x.split(16)]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    # --------------------------------------------------------------------------------------------------------- results

    def _pictures(
        self, settings: EditSettings, scene: _Scene, x: Tensor, strengths: list[float], drawn: Tensor
    ) -> list[Picture]:
        """The strip as pictures of the original's size, the chosen strength first, each with its figures.

        `x` is what the model began from: the picture, or what became of it in the model's world, which is approached
        with the strength, so that 0 gives the picture itself here too.
        """
        nearness = torch.tensor([min(1.0, abs(one)) for one in strengths], device=x.device)
        change = drawn - x + (x - scene.x) * nearness[:, None, None, None]
        if settings.automatic_mask:
            change = change * automatic_mask(change)
        order = sorted(range(len(strengths)), key=lambda k: (strengths[k] != settings.strength, strengths[k]))
        kept, original = settings, None  # what the record says
        if scene.picture.width * scene.picture.height > LARGE:
            kept, original = _smaller(settings, scene.picture), list(scene.picture.size)
        found = []
        for rank, k in enumerate(order):
            image = scene.framing.returned(scene.picture, change[k : k + 1], scene.mask)
            facts = {
                "strength": strengths[k],
                "return_step": settings.return_step,
                **self._figures(settings, scene, image),
            }
            if original:
                facts["original"] = original
            score = facts["critic target"] if rank == 0 else None
            found.append(Picture(image, settings.seed, score, facts, kept))
        return found

    def _figures(self, settings: EditSettings, scene: _Scene, image: Image.Image) -> dict[str, float]:
        """How far along the direction (both judges), how much like the picture, and what the critic now sees."""
        before, after = scene.x, scene.framing.reduced(image).to(scene.x.device)
        figures: dict[str, float] = {}
        aim = self._aim(settings, scene.x)
        for name, judge in (("clip", self.clip), ("critic", self.critic)):
            vectors = judge.encode_image(torch.cat([before, after]))
            direction = aim.clip if name == "clip" else aim.critic
            figures[f"{name} direction"] = directional_similarity(vectors[0], vectors[1], direction).item()
            texts = [text_vector(judge, text) for text in (settings.source, settings.prompt)]
            if name == "critic":
                figures["critic source"], figures["critic target"] = (
                    (vectors[1] @ text).item() for text in texts
                )
                figures["critic source before"], figures["critic target before"] = (
                    (vectors[0] @ text).item() for text in texts
                )
        figures["L1"] = (after - before).abs().mean().item() / 2
        figures["SSIM"] = ssim((after + 1) / 2, (before + 1) / 2).item()
        return {name: round(value, 4) for name, value in figures.items()}

    def _as_direction(
        self, settings: EditSettings, tensors: dict[str, Tensor], updates: int, curves: list[list[float]]
    ) -> Direction:
        """float16, with everything that says what it is."""
        facts = {
            "source": settings.source,
            "target": settings.prompt,
            "by": "pictures" if settings.examples else "texts",
            "base": network_hash(self.unet),
            "clip": network_hash(self.clip.image)[:16],
            "mode": settings.mode,
            "rank": settings.rank,
            "return_step": settings.return_step,
            "seed": settings.seed,
            "updates": updates,
            "loss": settings.loss,
            "keep": settings.keep,
        }
        if curves:
            facts["figures"] = {"clip direction": curves[-1][1], "critic direction": curves[-1][2]}
        return Direction({name: one.to("cpu", torch.float16) for name, one in tensors.items()}, facts)


@dataclass
class _Stop:
    """Whether the run has been asked to end. What is left to do then is done without a word."""

    asked: bool = False

    def quietly(self, work: Generator[Step, None, Any]) -> Generator[Step, None, Any]:
        """The work with its steps until a stop, and then without them."""
        while True:
            try:
                step = next(work)
            except StopIteration as end:
                return end.value
            if not self.asked:
                try:
                    yield step
                except Stopped:
                    self.asked = True


def strip(strength: float, count: int) -> list[float]:
    """`count` strengths from 0 to the strongest on the side of `strength`, which takes the place of the nearest."""
    if count == 1:
        return [strength]
    end = 1.5 if strength >= 0 else -1.0
    values = [round(float(one), 4) for one in np.linspace(0, end, count)]
    nearest = min(range(count), key=lambda k: abs(values[k] - strength))
    values[nearest] = strength
    return values


def overshot(curves: list[list[float]]) -> int:
    """The update after which the critic's similarity fell well below its best while CLIP's rose; 0 when it did not.

    Judged by means of three rows, since one batch says little.
    """
    means = [[curves[k + 1][0], *np.mean(curves[k : k + 3], 0)[1:]] for k in range(len(curves) - 2)]
    if len(means) < 3:
        return 0
    best, last = max(means, key=lambda row: row[2]), means[-1]
    return int(best[0]) if last[2] < best[2] - 0.1 and last[1] >= best[1] else 0


def automatic_mask(change: Tensor) -> Tensor:
    """(n, 3, h, w) changes -> (n, 1, h, w) in [0, 1]: 0 where the edit hardly differs.

    After DiffEdit (Couairon et al. 2023), which compares the noise that two prompts predict.
    """
    size = F.avg_pool2d(change.abs().mean(1, keepdim=True), 5, 1, 2)
    most = size.flatten(1).quantile(0.98, dim=1)[:, None, None, None].clamp(min=1e-6)
    return ((size / most - 0.25) / 0.25).clamp(0, 1)


def _shown(
    stage: str, total: int, walk: Generator[int, None, Any], x: Tensor | None = None
) -> Generator[Step, None, Any]:
    """A walk as Steps."""
    while True:
        try:
            done = next(walk)
        except StopIteration as end:
            return end.value
        yield Step(stage, done, max(total, done), {}, None if x is None else lambda: x)


def _last(work: Generator[Any, None, Any]) -> Any:
    """What a generator returns."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def _fastest(call: Callable[[], Any]) -> float:
    """Seconds of the faster of three calls."""
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


def _unfolded(source: str) -> list[str]:
    """A folder's pictures, or the picture itself."""
    if not source.startswith("data:") and (folder := home_path(source)).is_dir():
        found = sorted(
            one for one in folder.iterdir() if one.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp")
        )
        if not found:
            raise BadInput(f"the folder {source[:80]} holds no PNG, JPEG or WebP pictures")
        return [str(one) for one in found]
    return [source]


def _likeness(source: str, side: int) -> str:
    picture = on_white(open_picture(source))
    picture.thumbnail((side, side))
    return picture_to_uri(picture)


def _smaller(settings: EditSettings, picture: Image.Image) -> EditSettings:
    """The settings for the record of a large picture's edit: everything reduced alike."""
    scale = (LARGE / (picture.width * picture.height)) ** 0.5
    size = (max(1, int(picture.width * scale)), max(1, int(picture.height * scale)))
    fields: dict[str, Any] = {"image": picture_to_uri(picture.resize(size, Image.Resampling.BOX))}
    if settings.mask:
        fields["mask"] = picture_to_uri(open_picture(settings.mask).resize(size, Image.Resampling.BOX))
    if (box := settings.box()) is not None:
        width, height = (max(LEAST, int((box[k + 2] - box[k]) * scale)) for k in (0, 1))
        left, top = min(int(box[0] * scale), size[0] - width), min(int(box[1] * scale), size[1] - height)
        fields["crop"] = f"{left},{top},{width}x{height}"
    return replace(settings, **fields)
