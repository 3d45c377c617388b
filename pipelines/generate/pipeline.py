"""Generate (Ramesh et al. 2021): sample many candidates from a prompt token by token, and keep those CLIP ranks best.

A tokenizer encodes the prompt, a Decoder samples image tokens, a Codec decodes them to pixels, a Clip ranks the pictures.
A LatentDiffusion may draw them again: noised part of the way, and denoised under the prompt (Meng et al. 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Protocol, cast

import torch
from PIL import Image
from torch import Tensor

from pipelines.clip.ranking import rank, score_parts
from pipelines.core.candidates import Batch, candidate_seed, candidate_seeds, spread
from pipelines.core.generators import mapped
from pipelines.core.laying import laid
from pipelines.core.looks import in_words, needs_words, slot_in, under_looks
from pipelines.core.pipeline import Drawn, Picture, Splits, Step
from pipelines.core.prompts import as_words, in_known_words, parse_terms
from pipelines.core.regions import ALONE, TOGETHER, proposed_regions, read_regions, texts_of
from pipelines.core.settings import Settings
from pipelines.core.sizes import canvas_size
from pipelines.errors import BadInput
from pipelines.generate.settings import GenerateSettings
from pipelines.io.images import fit_size, on_white, open_picture, picture_to_uri, to_pil, to_tensor
from pipelines.models.base import Clip, Codec, Decoder, Reading, Tokenizer, joint_reading, known_as
from pipelines.models.latent_diffusion import Known, LatentDiffusion, Tick, preview, under_terms, walk
from pipelines.models.sampling import generator_of, sample
from pipelines.models.typed import integers

NOTHING = [("", 1.0)]  # the terms of no prompt


class ReadsStyle(Protocol):
    """A Decoder with slots of styles, which its config names in `styles`."""

    def text_tokens(self, ids: list[int], style: str = "") -> Tensor:
        """A prompt's ids and a style's name -> (t,) int64."""
        ...


class Slides(Protocol):
    """A Decoder whose window slides over canvases larger than its training pictures; it says so by `slides`."""

    def prefill(self, text: Tensor, row_count: int, canvas: tuple[int, int]) -> tuple[Any, Tensor]:
        """As a Decoder's, on a canvas of (rows, columns) of tokens."""
        ...


@dataclass
class Generate(Splits[GenerateSettings]):
    """Draws many candidates of a prompt with a DALL·E and returns those that CLIP ranks best."""

    tokenizer: Tokenizer
    dalle: Decoder
    vqgan: Codec
    clip: Clip
    diffusion: LatentDiffusion | None = None
    # gives this pipeline with the pack's second stage in the DALL·E's place, and its models as records name them
    second_stage: Callable[[], tuple[Generate, dict[str, dict[str, str]]]] | None = None

    Settings: ClassVar[type[Settings]] = GenerateSettings

    def prepare(self, settings: GenerateSettings) -> GenerateSettings:
        """The settings with the picture prompt, if any, as a small PNG data URI, the finish, and the size of a batch.

        They are needed to replay the run; the size of a batch changes how a candidate's numbers are rounded. BadInput when
        `keep_rows` leaves nothing to draw, when the pack cannot refine, draw on the canvas or draw by a second stage, for
        regions beside a picture or without a refinement, or when the picture cannot be read.
        """
        drawer, _ = self.drawer(settings)
        if drawer is not self:
            return drawer.prepare(settings)
        height, width = self.canvas(settings)
        if settings.keep_rows >= height:
            raise BadInput("generate.nothing_to_draw", rows=settings.keep_rows, most=height - 1)
        if settings.finish == "refined" and self.diffusion is None:
            raise BadInput("generate.cannot_refine")
        finish = settings.finish
        if finish == "auto":
            drawn = self.diffusion is None or settings.canvas or settings.prior
            finish = "drawn" if drawn else "refined"
        known = settings.known_by(lambda text: self._read_text(text).known_as)
        settings = replace(settings, batch=settings.batch or self.batch_size, finish=finish, read_as=known)
        settings = replace(settings, regions=self._regions(settings))
        if not settings.image:
            return settings
        sides = (side * self.vqgan.config.factor for side in (width, height))
        return replace(
            settings, image=picture_to_uri(fit_size(on_white(open_picture(settings.image)), *sides))
        )

    def drawer(self, settings: GenerateSettings) -> tuple[Generate, dict[str, dict[str, str]] | None]:
        """What draws these settings, and its models where they are not this pipeline's own.

        BadInput when the second stage is asked for and the pack has none.
        """
        if not settings.prior or _slides(self.dalle):
            return self, None
        if self.second_stage is None:
            raise BadInput("generate.no_second_stage")
        return self.second_stage()

    def canvas(self, settings: GenerateSettings) -> tuple[int, int]:
        """Rows and columns of image tokens. BadInput for a canvas that the DALL·E cannot draw on."""
        grid, factor = self.dalle.config.grid, self.vqgan.config.factor
        width, height = canvas_size(settings.canvas, "", factor, grid * factor)
        if (width, height) != (grid * factor,) * 2:
            if not _slides(self.dalle):
                raise BadInput("generate.canvas_fixed", side=grid * factor)
            if min(width, height) < grid * factor:
                raise BadInput("generate.canvas_small", width=width, height=height, least=grid * factor)
        return height // factor, width // factor

    @torch.no_grad()
    def draw(self, settings: GenerateSettings, chosen: Sequence[int]) -> Generator[Step, None, list[Drawn]]:
        """A Step a row of tokens, a step of the refinement and a batch."""
        drawer, _ = self.drawer(settings)
        if drawer is not self:
            return (yield from drawer.draw(settings, chosen))
        likeness, start = self._picture_prompt(settings)
        parts, drawn = self.batches(settings), list[Drawn]()
        for batch in (parts[number] for number in chosen):
            count, refined, of_things = len(batch.seeds), list[Image.Image](), None
            if settings.regions:
                images, of_things = yield from self._draw_things(settings, batch)
                tokens = self.vqgan.encode_tokens(to_tensor(to_pil(images)).to(self.dalle.device))
            else:
                tokens = yield from self._draw(settings, batch, start, likeness)
                images = self.vqgan.decode_tokens(tokens)
                if settings.finish == "refined":
                    images = yield from self._refine(settings, batch, images)
            if settings.finish == "refined":
                refined = to_pil(images[:count])
            vectors = self.clip.encode_image(images)[:count]
            of_things = None if of_things is None else of_things[:count]
            facts = [settings.read(look) for look in batch.row_looks[:count]]
            drawn.append(Drawn(batch.seeds, facts, vectors, refined, tokens[:count], parts=of_things))
            shown = images[:count]
            yield Step("rank", batch.finished, settings.candidates, {}, lambda shown=shown: shown)
        return drawn

    @torch.no_grad()
    def choose(self, settings: GenerateSettings, drawn: Sequence[Drawn]) -> list[Picture]:
        """Rank the candidates of all batches, and make the pictures that are kept."""
        drawer, models = self.drawer(settings)
        if drawer is not self:
            return [replace(picture, models=models) for picture in drawer.choose(settings, drawn)]
        seeds = [seed for part in drawn for seed in part.seeds]
        facts = [fact for part in drawn for fact in part.facts]
        refined = [image for part in drawn for image in part.images]
        tokens = torch.cat([part.tokens for part in drawn if part.tokens is not None])
        vectors, of_things = torch.cat([part.vectors for part in drawn]), [part.parts for part in drawn]
        cosines = torch.cat([one for one in of_things if one is not None]) if settings.regions else None
        ranking = rank(self.clip, settings.terms(), vectors, parts=cosines)
        kept = ranking.kept(settings.keep, settings.hide_duplicates)
        if refined:
            pictures = [refined[k] for k in kept]
        else:
            pictures = to_pil(torch.cat([self.vqgan.decode_tokens(tokens[k : k + 1]) for k in kept]))
        return [
            Picture(
                image,
                seeds[k],
                ranking.scores[k] if ranking.scores else None,
                {**ranking.facts(k, seeds), **facts[k], "tokens": integers(tokens[k].flatten())},
            )
            for image, k in zip(pictures, kept, strict=True)
        ]

    def batches(self, settings: GenerateSettings) -> list[Batch]:
        """As Splits says."""
        assert settings.batch is not None
        looks = settings.looks()
        seeds = candidate_seeds(settings.seed, settings.candidates)
        return spread(seeds, looks, settings.batch, needs_words(self.diffusion, looks))

    @property
    def batch_size(self) -> int:
        """Rows of a batch; when fewer candidates are left, the rest are unused.

        A large network on a CPU is bound by reading its weights, so that four rows cost little more than one.
        """
        large = sum(p.numel() for p in self.dalle.parameters()) > 50_000_000
        if self.dalle.device.type == "cpu":
            return 4 if large else 16
        return 16 if large else 64

    def read_prompt(self, prompt: str) -> Reading:
        """The pieces of a prompt that the model reads, its limit, the text that is cut off, and the unknown words."""
        joint = joint_reading([self._read_text(text) for text, _ in parse_terms(prompt)])
        return replace(joint, known_as=in_known_words(prompt, lambda text: self._read_text(text).known_as))

    def _read_text(self, text: str) -> Reading:
        limit = self.dalle.config.prompt_length
        pieces, unknown = self.tokenizer.pieces(text), self.tokenizer.unknown_words(text)
        cut = "".join(pieces[limit:]).strip()
        return Reading(pieces[:limit], limit, cut, unknown, known_as(self.tokenizer, text))

    # -------------------------------------------------------------------------------------------------------- drawing

    def _draw(
        self, settings: GenerateSettings, batch: Batch, start: Tensor, likeness: Tensor | None
    ) -> Generator[Step, None, Tensor]:
        """Sample one batch. Yields a Step for each row of tokens and returns (rows, height, width) tokens."""
        config, device = self.dalle.config, self.dalle.device
        (height, width), rows = self.canvas(settings), batch.rows
        before, length = config.semantic_length, config.semantic_length + height * width
        uniform = torch.stack([_uniform(seed, length) for seed in batch.row_seeds]).to(device)
        # what has not been drawn yet is white
        canvas = _blank(self.vqgan, height, width, device).repeat(rows, 1)
        told = config.prompt_length > 0 and bool(settings.drawn_prompt or batch.looks)
        terms = (settings.terms() if told else []) or NOTHING
        guided = told and (settings.guidance != 1 or len(terms) > 1)
        texts = self._texts(terms, batch, guided)
        repeat = len(terms) + guided
        if settings.canvas and _slides(self.dalle):
            cache, logits = cast(Slides, self.dalle).prefill(texts, rows * repeat, (height, width))
        else:
            cache, logits = self.dalle.prefill(texts, rows * repeat)
        for place in range(length):
            position = place - before  # in the picture; negative for semantic tokens
            if 0 <= position < len(start):
                token = start[position].expand(rows)
            else:
                if guided:
                    logits = _guided(logits, [share for _, share in terms], settings.guidance)
                if likeness is not None and position >= 0:
                    logits = logits + likeness[position]
                token = sample(
                    logits, uniform[:, place], settings.temperature, settings.top_k, settings.top_p
                )
            if position >= 0:
                canvas[:, position] = token
            if position >= 0 and position % width == width - 1:
                shown = canvas[: len(batch.seeds)].view(-1, height, width)
                done, total = batch.index * height + position // width + 1, batch.count * height
                yield Step("draw", done, total, {}, lambda shown=shown: self.vqgan.decode_tokens(shown))
            if place + 1 < length:
                logits = self.dalle.decode_step(cache, token.repeat(repeat), place)
        return canvas.view(rows, height, width)

    def _refine(
        self, settings: GenerateSettings, batch: Batch, images: Tensor, steps: int | None = None
    ) -> Generator[Step, None, Tensor]:
        """Draw the pictures (rows, 3, h, w) of a batch again under the prompt, below the rows that are kept.

        They are noised to the time `refinement`; `steps` of the whole way from noise are the model's own for None.
        Yields a Step for each step of the scheduler; returns the same shape.
        """
        model = self.diffusion
        assert model is not None
        width, height, steps = images.shape[3], images.shape[2], steps or model.proposed_steps
        mask = torch.ones(1, 1, height // model.factor, width // model.factor, device=model.device)
        mask[:, :, : settings.keep_rows * mask.shape[2] * self.vqgan.config.factor // height] = 0
        known = Known(model.encode(images), settings.refinement, mask if settings.keep_rows else None)
        styled, prompt = under_looks(model, settings.drawn_prompt, batch.row_looks)
        condition, course = under_terms(
            styled, parse_terms(prompt) if prompt else NOTHING, (width, height), batch.rows
        )
        guidance = model.proposed_guidance
        ticks = walk(model, batch.row_seeds, (width, height), condition, steps, guidance, known, course)

        def step(tick: Tick) -> Step:
            done, total = batch.index * tick.total + tick.done, batch.count * tick.total
            return Step("refine", done, total, {}, lambda: preview(model, tick, len(batch.seeds)))

        refined = model.decode((yield from mapped(ticks, step)))
        top = settings.keep_rows * self.vqgan.config.factor
        return torch.cat([images[:, :, :top], refined[:, :, top:]], 2)

    def _regions(self, settings: GenerateSettings) -> str:
        """The regions of a run: those that are set, for "auto" those that the prompt asks for where they can be laid.

        A diffusion model draws what is laid. BadInput for regions beside a setting that they do not go with.
        """
        whole = [name for name in ("image", "prior", "canvas") if getattr(settings, name)]
        whole += ["finish"] * (settings.finish == "drawn")
        mixes = self.diffusion is not None and self.diffusion.mixes_things
        return proposed_regions(settings.regions, settings.drawn_prompt, whole, mixes, self._read_text)

    def _draw_things(
        self, settings: GenerateSettings, batch: Batch
    ) -> Generator[Step, None, tuple[Tensor, Tensor]]:
        """Draw and refine each thing of the regions alone, lay them in their places, and draw the whole together.

        Yields a Step a row of tokens and a step of each refinement. Returns pictures (rows, 3, h, w) and the mean cosines
        of their things with their words, (rows,).
        """
        model, things = self.diffusion, read_regions(settings.regions)
        assert model is not None
        texts = texts_of(things)
        owns = [replace(settings, prompt=as_words(text), read_as="", regions="") for text in texts]
        batches = [
            replace(batch, seeds=[candidate_seed(seed, 1 + k) for seed in batch.seeds])
            for k in range(len(texts))
        ]
        drafts, alone = list[Tensor](), dict[str, Tensor]()
        for k, (own, part) in enumerate(zip(owns, batches, strict=True)):
            likeness, start = self._picture_prompt(own)
            drawing = self._draw(own, part, start, likeness)
            tokens = yield from mapped(drawing, partial(_part_of, batch, k, len(texts)))
            drafts.append(self.vqgan.decode_tokens(tokens))
        for k, (own, part) in enumerate(zip(owns, batches, strict=True)):
            refining = self._refine(own, part, drafts[k], round(ALONE * model.proposed_steps))
            alone[texts[k]] = yield from mapped(refining, partial(_part_of, batch, k, len(texts) + 1))
        size = (drafts[0].shape[3], drafts[0].shape[2])
        canvases = to_tensor(laid(things, {text: to_pil(images) for text, images in alone.items()}, size))
        whole = self._refine(replace(settings, refinement=TOGETHER), batch, canvases.to(model.device))
        images = yield from mapped(whole, partial(_part_of, batch, len(texts), len(texts) + 1))
        seen = {text: self.clip.encode_image(images) for text, images in alone.items()}
        return images, score_parts(self.clip, seen)

    def _texts(self, terms: list[tuple[str, float]], batch: Batch, guided: bool) -> Tensor:
        """(n, t) tokens: those of the terms and, when guided, of the empty text after them.

        Where the batch has looks, each row has texts of its own, so that a row is read alike alone and beside others.
        """
        empty = self.dalle.text_tokens([])
        if not batch.looks:
            texts = [self.dalle.text_tokens(self.tokenizer.encode(text)) for text, _ in terms]
            return torch.stack([*texts, *[empty] * guided]).to(self.dalle.device)
        texts = [self._styled(text, look, share) for text, share in terms for look in batch.row_looks]
        return torch.stack([*texts, *[empty] * (guided * batch.rows)]).to(self.dalle.device)

    def _styled(self, text: str, look: str, share: float) -> Tensor:
        """(t,) tokens of a text in a look: by the DALL·E's slot for it, else by words."""
        slots: tuple[str, ...] = getattr(self.dalle.config, "styles", ())
        if slot := slot_in(slots, look):
            return cast(ReadsStyle, self.dalle).text_tokens(self.tokenizer.encode(text), slot)
        return self.dalle.text_tokens(self.tokenizer.encode(in_words(text, look) if share > 0 else text))

    def _picture_prompt(self, settings: GenerateSettings) -> tuple[Tensor | None, Tensor]:
        """The terms that a picture prompt adds: a bias of the logits or None, and the tokens of its top rows.

        The bias, (tokens of the canvas, image_vocabulary), is at most 0 and falls with the squared distance between a code
        and the picture's code. The tokens are (keep_rows * columns,).
        """
        if not settings.image:
            return None, torch.empty(0, dtype=torch.long)
        picture = to_tensor([open_picture(settings.image)]).to(self.dalle.device)
        tokens = self.vqgan.encode_tokens(picture).flatten()
        start = tokens[: settings.keep_rows * self.canvas(settings)[1]]
        if settings.likeness == 0:
            return None, start
        codes = self.vqgan.codes
        distance = torch.cdist(codes[tokens], codes).square()
        return -12 * settings.likeness * distance / distance.mean(), start


def _part_of(batch: Batch, part: int, parts: int, step: Step) -> Step:
    """A Step of one of the `parts` of a batch, all counted as long as this one, of a Step of a batch drawn at once."""
    each = step.total // batch.count
    done = (batch.index * parts + part) * each + step.done - batch.index * each
    return replace(step, done=done, total=step.total * parts)


def _slides(dalle: Decoder) -> bool:
    """Whether a DALL·E is a second stage, whose window slides."""
    return getattr(dalle, "slides", False)


def _blank(codec: Codec, height: int, width: int, device: torch.device) -> Tensor:
    """(1, height * width) tokens of a white picture; zeros when the codec has no encoder."""
    if not getattr(codec.config, "has_encoder", True):
        return torch.zeros(1, height * width, dtype=torch.long, device=device)
    factor = codec.config.factor
    white = torch.ones(1, 3, height * factor, width * factor, device=device)
    return codec.encode_tokens(white).flatten(1)


def _guided(logits: Tensor, shares: list[float], guidance: float) -> Tensor:
    """Logits ((k + 1) * rows, v) of k texts and of none -> (rows, v), a sum of guidance terms (Liu et al. 2022).

    It is uncond + guidance * sum of share * (cond - uncond), for one text classifier-free guidance.
    """
    *conds, uncond = logits.chunk(len(shares) + 1)
    if len(conds) == 1:
        return uncond + guidance * (conds[0] - uncond)
    pulls = [share * (cond - uncond) for share, cond in zip(shares, conds, strict=True)]
    return uncond + guidance * torch.stack(pulls).sum(0)


def _uniform(seed: int, count: int) -> Tensor:
    """(count,) float32 in [0, 1), drawn on the CPU: all random numbers of one candidate, one for each token."""
    return torch.rand(count, generator=generator_of(seed))
