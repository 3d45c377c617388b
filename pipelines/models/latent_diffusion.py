"""Latent diffusion (Rombach et al. 2022): the role, and the walk from noise to latents that Diffuse and Generate share.

Latents are float32 (n, c, h, w) of about zero mean and unit variance. Samplers are schedulers of diffusers.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.models.base import Reading
from pipelines.models.sampling import generator_of
from pipelines.models.schedulers import is_first_order, noised, scaled, start_deviation

OWN = "auto"  # the sampler that the model likes
ROUNDS_UNTIL = 0.7  # share of the steps before which they are made again; later ones only draw details
Predict = Callable[[Tensor, Tensor, Any, "Tensor | None"], Tensor]
MOST_SHOWN, MOST_QUICK = 32, 64  # latents a side of a preview, by the model's own decoder and by a tiny one


class LatentDiffusion(Protocol):
    """A network that removes noise from latents under a text, with the codec of these latents.

    A `condition` and a `distribution` are the network's own objects, which only its methods read.
    """

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        ...

    @property
    def image_size(self) -> int:
        """The side of the pictures that it draws best, in pixels."""
        ...

    @property
    def factor(self) -> int:
        """Pixels per latent, along a side."""
        ...

    @property
    def side_multiple(self) -> int:
        """The sides of a picture are multiples of this, in pixels; at least `factor`."""
        ...

    @property
    def latent_channels(self) -> int:
        """c, numbers per latent."""
        ...

    @property
    def proposed_steps(self) -> int:
        """Steps of the scheduler, where nobody asks for others."""
        ...

    @property
    def proposed_guidance(self) -> float:
        """The scale of classifier-free guidance (Ho and Salimans 2022), where nobody asks for another."""
        ...

    @property
    def proposed_candidates(self) -> int:
        """How many pictures are drawn and ranked, where nobody asks for another number."""
        ...

    @property
    def proposed_rounds(self) -> int:
        """How often a step is made again within a mask, where nobody asks for another number."""
        ...

    @property
    def proposed_pull(self) -> float:
        """The weight of its pull in Optimize, where nobody asks for another; 0 where a guess takes long."""
        ...

    @property
    def mixes_things(self) -> bool:
        """Whether the things of a prompt run into one another, so that each is better drawn alone first."""
        ...

    @property
    def is_inpainting(self) -> bool:
        """Whether the network also reads a mask and the picture around it, and needs both."""
        ...

    def rows(self, width: int, height: int) -> int:
        """How many pictures of this size in pixels are drawn together, so that none is left unused."""
        ...

    def read_prompt(self, prompt: str) -> Reading:
        """How it reads a prompt."""
        ...

    def condition(
        self, prompt: str, negative_prompt: str, width: int, height: int, rows: int, guided: bool
    ) -> Any:
        """What `predict` needs besides latents, for `rows` pictures of this size in pixels.

        When guided there are 2 * rows: the first half is without the prompt, under the negative prompt.
        """
        ...

    def scheduler(self, steps: int, sampler: str = OWN, size: tuple[int, int] = ...) -> Any:
        """A scheduler of diffusers of its own, its steps set: for one of SAMPLERS, or the one that the model likes.

        Some choose other times for pictures of another `size`, (width, height) in pixels.
        """
        ...

    def predict(self, latents: Tensor, t: Tensor, condition: Any, more: Tensor | None = None) -> Tensor:
        """The network's output for latents (n, c, h, w), as the scheduler scales them, at time t: the same shape.

        `more` (n, d, h, w) are further input channels, of an inpainting network only.
        """
        ...

    def clean(self, latents: Tensor, output: Tensor, t: Tensor) -> Tensor:
        """The clean latents (n, c, h, w) that `predict`'s output means."""
        ...

    def encode(self, images: Tensor) -> Any:
        """(1 or n, 3, height, width) in [-1, 1] -> the distribution of their latents."""
        ...

    def sample(self, distribution: Any, generators: list[torch.Generator]) -> Tensor:
        """One sample for each of n generators, of its own row or of the one row there is: (n, c, h, w)."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, 3, h * factor, w * factor) float32, about [-1, 1]."""
        ...


class Previewer(Protocol):
    """A decoder of the latents of some models that is quicker than their own, for previews."""

    @property
    def latent_channels(self) -> int:
        """Numbers per latent that it reads."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Normalized latents (n, c, h, w) -> (n, 3, H, W) float32, about [-1, 1]."""
        ...


@dataclass(frozen=True)
class Known:
    """What is known of the pictures before they are drawn: all rows of a batch begin from it.

    `distribution` is of the given picture's latents. `mask`, (1, 1, h, w) in [0, 1], is the last share of the walk in
    which a latent is drawn anew (Levin and Fried 2023): 1 all the way, 0 never; None means 1 everywhere. `outside` is, for
    an inpainting network, the distribution of the picture without what the mask covers. `strength` in (0, 1] is the share
    of the steps that are made.
    """

    distribution: Any
    strength: float
    mask: Tensor | None = None
    outside: Any = None


@dataclass(frozen=True)
class Midway:
    """Where a walk goes on that ended early: the latents (n, c, h, w) after its first `done` steps."""

    latents: Tensor
    done: int


@dataclass(frozen=True)
class Course:
    """How a walk goes, where it goes otherwise than the model likes.

    `interval` are the first and the last share of the steps between which there is guidance (Kynkäänniemi et al. 2024);
    where it leaves steps out, `unguided` is the condition of the prompt alone. `predict` stands in for the model's own.
    `rounds` is how often a step is made again within a mask.
    `terms` are the parts of a prompt that are drawn together, each with its share of the guidance; the walk's condition is
    then that of no prompt, or of the negative one.
    `last` is the step after which the walk ends, counted from 1; None for the model's last one.
    """

    sampler: str = OWN
    interval: tuple[float, float] = (0.0, 1.0)
    unguided: Any = None
    predict: Predict | None = None
    terms: tuple[tuple[float, Any], ...] = ()  # share and condition
    rounds: int = 0
    last: int | None = None

    def is_guided(self, share: float) -> bool:
        """Whether there is guidance at a step that this share in [0, 1) of all steps comes before."""
        return self.interval[0] <= share < self.interval[1]


@dataclass(frozen=True)
class Tick:
    """One step of the walk: `done` of `total`; `latents` as the network read them, its `output`, and the time."""

    done: int
    total: int
    latents: Tensor
    output: Tensor
    t: Tensor


@dataclass(frozen=True)
class Start:
    """The start of a batch. Tensors are (rows, c, h, w)."""

    times: Tensor  # (steps,) of the steps to do
    latents: Tensor
    noise: Tensor
    known: Tensor | None  # latents of the given picture, if they are used
    mask_channels: Tensor | None  # further input channels of an inpainting network


def walk(
    model: LatentDiffusion,
    seeds: list[int],
    size: tuple[int, int],
    condition: Any,
    steps: int,
    guidance: float,
    known: Known | Midway | None = None,
    course: Course | None = None,
) -> Generator[Tick, None, Tensor]:
    """Draw one row a seed. Yields a Tick a step and returns the latents.

    `size` is (width, height) in pixels. `condition` is guided where `guidance` is above 1. `course` None is the model's
    own sampler, guided all the way, on the whole picture at once. Random numbers are drawn on the CPU in the order of
    diffusers: the picture, the noise, the picture around the mask.

    With `rounds` and a mask a step is made again that often: its clean guess, what is known put in, gets new noise of the
    same level. So what is drawn fits what stays (as Lugmayr et al. 2022, RePaint, where steps go back by levels).

    From a Midway on a sampler that uses the step before begins anew, without one.
    """
    course = course or Course()
    scheduler = model.scheduler(steps, course.sampler, size)
    generators = [generator_of(seed) for seed in seeds]
    start = _begin(model, scheduler, known, steps, size, generators)
    latents, times, noise = start.latents, start.times, start.noise
    mask = None if not isinstance(known, Known) or model.is_inpainting or start.known is None else known.mask
    options, every = _step_options(scheduler, generators), len(scheduler.timesteps)
    before = every - len(times)  # steps that are left out
    if course.last is not None:
        times = times[: course.last * scheduler.order - before]

    def look(k: int) -> tuple[Tensor, Tensor]:
        read, share = scaled(scheduler, latents, times[k]), (before + k) / every
        return read, _output(model, course, read, times[k], condition, guidance, share, start.mask_channels)

    def held(k: int) -> Tensor:
        """The latents before step k, those that the mask holds there put in."""
        if mask is None or start.known is None:
            return latents
        outside = start.known
        if k < len(times):
            outside = noised(scheduler, start.known, noise, times[k : k + 1])
        free = (mask > (len(times) - k) / every).to(mask.dtype)
        return (1 - free) * outside + free * latents

    for k, t in enumerate(times):
        read, output = look(k)
        is_early = before + k < ROUNDS_UNTIL * every
        if k and mask is not None and is_early and is_first_order(scheduler):
            for _ in range(course.rounds):
                noise = _noise(latents.shape[1:], generators, model.device)
                latents = noised(scheduler, model.clean(read, output, t), noise, times[k : k + 1])
                latents = held(k)
                read, output = look(k)
        latents = scheduler.step(output, t, latents, **options, return_dict=False)[0]
        latents = held(k + 1)
        yield Tick(k + 1, len(times), read, output, t)
    return latents


def _output(
    model: LatentDiffusion,
    course: Course,
    read: Tensor,
    t: Tensor,
    condition: Any,
    guidance: float,
    share: float,
    more: Tensor | None,
) -> Tensor:
    """The guided output for latents as the network reads them, at a step that this share of all comes before."""
    guided, predict = guidance > 1 and course.is_guided(share), course.predict or model.predict
    if course.terms:
        return _composed(predict, read, t, condition, course, guidance if guided else 1.0, more)
    under = condition if guided or guidance <= 1 else course.unguided
    output = predict(torch.cat([read] * (1 + guided)), t, under, _repeated(more, 1 + guided))
    if not guided:
        return output
    uncond, cond = output.chunk(2)
    return uncond + guidance * (cond - uncond)


def _composed(
    predict: Predict,
    read: Tensor,
    t: Tensor,
    without: Any,
    course: Course,
    guidance: float,
    more: Tensor | None,
) -> Tensor:
    """The sum of guidance terms (Liu et al. 2022, "Compositional visual generation with composable diffusion models").

    It is without + guidance * sum of share * (with the text - without): equation 11.
    """
    base = predict(read, t, without, more)
    pulls = [share * (predict(read, t, under, more) - base) for share, under in course.terms]
    return base + guidance * torch.stack(pulls).sum(0)


def _begin(
    model: LatentDiffusion,
    scheduler: Any,
    given: Known | Midway | None,
    steps: int,
    size: tuple[int, int],
    generators: list[torch.Generator],
) -> Start:
    """The start of a batch, one row for each generator. Sets the begin index of `scheduler`."""
    times: Tensor = scheduler.timesteps
    if isinstance(given, Midway):
        done = given.done * scheduler.order
        _begin_at(scheduler, done)
        return Start(times[done:], given.latents, given.latents, None, None)
    from_noise = given is None or (given.mask is not None and given.strength == 1)
    known = mask_channels = None
    if given is not None:
        skipped = (steps - int(steps * given.strength)) * scheduler.order
        times = times[skipped:]
        _begin_at(scheduler, skipped)
        if not (from_noise and model.is_inpainting):
            known = model.sample(given.distribution, generators)
    shape = (model.latent_channels, size[1] // model.factor, size[0] // model.factor)
    noise = _noise(shape, generators, model.device)
    if from_noise or known is None:
        latents = noise * start_deviation(scheduler)
    else:
        latents = noised(scheduler, known, noise, times[:1])
    if model.is_inpainting and given is not None and given.mask is not None:
        around = model.sample(given.outside, generators)
        changing = (given.mask > 0).to(around.dtype)
        mask_channels = torch.cat([changing.expand(len(generators), -1, -1, -1), around], 1)
    return Start(times, latents, noise, known, mask_channels)


def _begin_at(scheduler: Any, index: int) -> None:
    """Begin at this one of the scheduler's times, where it does not find that by the time itself."""
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(index)


def _noise(shape: Sequence[int], generators: list[torch.Generator], device: torch.device) -> Tensor:
    """Unit noise, one row (c, h, w) from each generator."""
    return torch.cat([torch.randn(1, *shape, generator=generator) for generator in generators]).to(device)


def under_terms(
    model: LatentDiffusion, terms: Sequence[tuple[str, float]], size: tuple[int, int], rows: int
) -> tuple[Any, Course]:
    """The guided condition and the course of a walk under texts and their shares; `size` is (width, height) in pixels."""
    if len(terms) == 1:
        return model.condition(terms[0][0], "", *size, rows, True), Course()
    parts = tuple((share, model.condition(text, "", *size, rows, False)) for text, share in terms)
    return model.condition("", "", *size, rows, False), Course(terms=parts)


def clean_guess(
    model: LatentDiffusion,
    images: Tensor,
    under: tuple[Any, Course],
    guidance: float,
    noise_share: float,
    generator: torch.Generator,
) -> Tensor:
    """What the model takes pictures for that are noised as they are when this share of the steps is left: (n, 3, h, w).

    `images` are (n, 3, h, w) in [-1, 1], `noise_share` is in (0, 1], and the noise is drawn on the CPU.
    """
    condition, course = under
    scheduler = model.scheduler(model.proposed_steps, course.sampler, (images.shape[3], images.shape[2]))
    at = min(round((1 - noise_share) * len(scheduler.timesteps)), len(scheduler.timesteps) - 1)
    _begin_at(scheduler, at)
    latents = model.sample(model.encode(images), [generator] * len(images))
    noise, t = _noise(latents.shape[1:], [generator] * len(images), model.device), scheduler.timesteps[at]
    read = scaled(scheduler, noised(scheduler, latents, noise, t[None]), t)
    output = _output(model, course, read, t, condition, guidance, at / len(scheduler.timesteps), None)
    return model.decode(model.clean(read, output, t))


def preview(model: LatentDiffusion, tick: Tick, count: int, by: Previewer | None = None) -> Tensor:
    """A preview (count, 3, h, w) of the clean pictures that the first rows of a step mean.

    The latents are reduced to at most MOST_SHOWN a side before the model decodes them; to MOST_QUICK before `by` does.
    """
    clean = model.clean(tick.latents[:count], tick.output[:count], tick.t)
    most = MOST_SHOWN if by is None else MOST_QUICK
    return (by or model).decode(F.avg_pool2d(clean, math.ceil(max(clean.shape[-2:]) / most)))


def _repeated(channels: Tensor | None, times: int) -> Tensor | None:
    return None if channels is None else torch.cat([channels] * times)


def _step_options(scheduler: Any, generators: list[torch.Generator]) -> dict[str, Any]:
    """Arguments of a scheduler's step that not all of them have: no noise in DDIM, and where noise comes from."""
    known = inspect.signature(scheduler.step).parameters
    return {name: value for name, value in (("eta", 0.0), ("generator", generators)) if name in known}
