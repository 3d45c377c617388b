"""The latent prior as a LatentDiffusion: a rectified flow on the latents of a codec, under the text of a CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.models.attention import Control
from pipelines.models.base import Codec, Reading, known_as
from pipelines.models.clip.network import Clip, read_texts
from pipelines.models.latent_diffusion import OWN
from pipelines.models.prior.network import PREFIX, UNKNOWN_STYLE, Prior
from pipelines.models.schedulers import flow_scheduler
from pipelines.models.words import PromptTokens, align

Condition = tuple[Tensor, Tensor]  # tokens of cross-attention and their mask
WEIGHTS = (0.0, 2.0)  # of what a word adds to the rest of its text


@dataclass(frozen=True)
class Controlled:
    """A condition under which a control is asked in every layer of attention."""

    condition: Condition
    control: Control


@dataclass(frozen=True)
class PriorDiffusion:
    """A prior with the codec whose latents it draws and the CLIP whose texts it reads."""

    prior: Prior
    codec: Codec
    clip: Clip
    row_styles: tuple[
        int, ...
    ] = ()  # of the rows under a text, one after another; () for no particular style

    proposed_steps = 20
    proposed_guidance = 4.0
    proposed_candidates = 16
    proposed_rounds = 2
    proposed_pull = 15.0
    is_inpainting = False

    @property
    def mixes_things(self) -> bool:
        """True of a pack of icons in styles: others may have learned photographs, which cannot be laid side by side."""
        return bool(self.style_slots)

    @property
    def components(self) -> dict[str, nn.Module]:
        """Its networks by name, as a pipeline of diffusers has them."""
        return {"prior": self.prior, "codec": self.codec, "clip": self.clip}  # type: ignore[dict-item]

    @property
    def device(self) -> torch.device:
        """The device of the prior."""
        return self.prior.mean.device

    @property
    def image_size(self) -> int:
        """The side of a training picture, in pixels."""
        return self.prior.config.grid * self.factor

    @property
    def factor(self) -> int:
        """Pixels per latent, along a side."""
        return self.codec.config.factor

    @property
    def side_multiple(self) -> int:
        """The sides of a picture are multiples of this, in pixels."""
        return self.factor

    @property
    def latent_channels(self) -> int:
        """Numbers per latent."""
        return self.prior.config.latent_channels

    def rows(self, width: int, height: int) -> int:
        """As many as fill 16 pictures of the training's size, at least 1."""
        return max(16 * self.image_size**2 // (width * height), 1)

    def read_prompt(self, prompt: str) -> Reading:
        """The pieces that CLIP's tokenizer reads, and the words that were in no training text."""
        tokenizer, limit = self.clip.tokenizer, self.clip.config.context_length - 1
        pieces = tokenizer.pieces(prompt)
        cut, unknown = "".join(pieces[limit:]).strip(), tokenizer.unknown_words(prompt)
        return Reading(pieces[:limit], limit, cut, unknown, known_as(tokenizer, prompt))

    def condition(
        self, prompt: str, negative_prompt: str, width: int, height: int, rows: int, guided: bool
    ) -> Condition:
        """The prior's context of the prompt; when guided, first that of the negative prompt, or of no text.

        Only the prompt is in a style, so guidance also strengthens the style.
        """
        tokens, real = self.condition_of([negative_prompt, prompt][not guided :])
        tokens, real = tokens.repeat_interleave(rows, 0), real.repeat_interleave(rows, 0)
        if self.row_styles and prompt:
            styles = torch.tensor(self.row_styles, device=self.device)
            styled = self.prior.style(styles.repeat(-(-rows // len(styles)))[:rows])
            tokens = torch.cat([tokens[:-rows], torch.cat([styled[:, None], tokens[-rows:, 1:]], 1)])
        return tokens, real

    @property
    def style_slots(self) -> tuple[str, ...]:
        """The styles of the training pictures."""
        return self.prior.config.styles

    def in_styles(self, slots: Sequence[str]) -> PriorDiffusion:
        """The same networks: row k under a prompt is in the style slots[k % len(slots)]. ValueError for unknown ones."""
        return replace(self, row_styles=tuple(1 + self.style_slots.index(slot) for slot in slots))

    def condition_of(self, texts: list[str]) -> Condition:
        """The prior's context of each text, in no particular style; the empty text is no text."""
        style = torch.full((len(texts),), UNKNOWN_STYLE, device=self.device)
        has_text = torch.tensor([bool(text) for text in texts], device=self.device)
        return self.prior.context(read_texts(self.clip, texts), style, has_text)

    def scheduler(self, steps: int, sampler: str = OWN, size: tuple[int, int] = (0, 0)) -> Any:
        """A scheduler on the flow's line, for its own sampler that of DPM-Solver++ of second order (Lu et al. 2022)."""
        return flow_scheduler("dpm++2m" if sampler == OWN else sampler, steps, self.device)

    def prompt_tokens(self, prompt: str) -> PromptTokens:
        """The tokens that CLIP reads; a style and the text's vector stand before them."""
        text, spans = self.clip.tokenizer.spans(prompt)
        return PromptTokens(text, tuple(spans[: self.clip.config.context_length - 1]), PREFIX)

    def weighed(
        self, condition: Condition, prompt: str, weights: Sequence[tuple[str, float]], rows: int
    ) -> Condition:
        """A condition whose last `rows` rows are of the prompt, with weights of its words.

        The text's vector and the states of the other words tell of a word too. What they have more than in the text
        without it is multiplied by its weight, held in WEIGHTS, outside which lies no text.
        """
        tokens, real = condition
        text, (own, _) = self.prompt_tokens(prompt), self.condition_of([prompt])
        change = torch.zeros_like(own)
        for word, weight in weights:
            rest = text.without(word)
            bare, _ = self.condition_of([rest])
            for source, target in align(self.prompt_tokens(rest), text).pairs:
                if len(source) == len(target):
                    more = own[:, list(target)] - bare[:, list(source)]
                    change[:, list(target)] += (min(max(weight, WEIGHTS[0]), WEIGHTS[1]) - 1) * more
        tokens = tokens.clone()
        tokens[-rows:, : own.shape[1]] += change
        return tokens, real

    def controlled(self, condition: Condition, control: Control) -> Controlled:
        """The condition with a control of attention."""
        return Controlled(condition, control)

    def mixture(self, t: Tensor) -> tuple[float, float]:
        """1 - t and t, where t counts thousandths: the flow's line."""
        time = self._time(t).item()
        return 1 - time, time

    def predict(
        self, latents: Tensor, t: Tensor, condition: Condition | Controlled, more: Tensor | None = None
    ) -> Tensor:
        """The velocity (n, c, h, w), noise minus picture; t counts thousandths."""
        time = self._time(t).expand(len(latents))
        if isinstance(condition, Controlled):
            return self.prior(latents, time, condition.condition, condition.control)
        return self.prior(latents, time, condition)

    def clean(self, latents: Tensor, output: Tensor, t: Tensor) -> Tensor:
        """The end of the line on which latents at time t move with a velocity: (n, c, h, w)."""
        return latents - self._time(t) * output

    def encode(self, images: Tensor) -> Tensor:
        """(n, 3, h, w) in [-1, 1] -> their latents (n, c, h / factor, w / factor) themselves."""
        return self.prior.normalize(self.codec.encode(images))

    def sample(self, distribution: Tensor, generators: list[torch.Generator]) -> Tensor:
        """The latents themselves, (n, c, h, w) for n generators; nothing is random."""
        return distribution.expand(len(generators), -1, -1, -1)

    def decode(self, latents: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, 3, h * factor, w * factor), about [-1, 1]."""
        return self.codec.decode(self.prior.restore(latents))

    def _time(self, t: Tensor) -> Tensor:
        """A time of the scheduler, in thousandths, as the prior counts it: in [0, 1]."""
        return t.to(self.device, torch.float32) / 1000
