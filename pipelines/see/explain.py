"""Why a picture fits a text: its phrases left out, where its words are, what else it might be, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pipelines.clip.ranking import ensemble, text_vector
from pipelines.core.pipeline import Step
from pipelines.core.settings import clean_prompt
from pipelines.io.images import to_tensor
from pipelines.models.base import Clip
from pipelines.models.typed import floats, integers
from pipelines.see.labels import is_chinese
from pipelines.see.phrases import phrases, words
from pipelines.see.pictures import Progress, on_square, quiet
from pipelines.see.relevance import Relevance, of_picture, relevance

SAME = 0.9  # cosine of two texts above which they say the same
CROP = 0.92  # side of a view, in shares of the picture's
NEAREST = 12  # names that are compared with all wordings


@dataclass(frozen=True)
class PhraseScore:
    """A phrase, the prompt without it, that prompt's cosine, and how much the phrase adds: the difference of both."""

    text: str
    without: str
    score: float
    adds: float


@dataclass(frozen=True)
class Rival:
    """The known name that fits best and is wrong. `margin` is how far the prompt's cosine is above the name's.

    `spread` is the margin's standard deviation over views and wordings; `wins` is their share where the prompt is ahead.
    """

    name: str
    score: float
    margin: float
    spread: float
    wins: float


@dataclass(frozen=True)
class Explanation:
    """Why a picture fits a prompt. Scores are cosines; `spread` is the deviation of `score` over views and wordings.

    `rank` is the prompt's place among `names` other names and itself, 1 the best. `maps` begin with the whole prompt's.
    """

    prompt: str
    score: float
    spread: float
    phrases: list[PhraseScore]
    rival: Rival | None
    rank: int
    names: int
    maps: list[Relevance]

    def to_json(self) -> dict[str, Any]:
        """As JSON values; maps are rows of numbers from 0 to 100, from the top."""
        rival = self.rival
        return {
            "prompt": self.prompt,
            "score": self.score,
            "spread": self.spread,
            "phrases": [vars(phrase) for phrase in self.phrases],
            "rival": None if rival is None else vars(rival),
            "rank": self.rank,
            "names": self.names,
            "maps": [each.to_json() for each in self.maps],
        }


@torch.no_grad()
def explain(
    clip: Clip,
    image: Image.Image,
    prompt: str,
    names: Sequence[str] = (),
    *,
    maps: bool = True,
    progress: Progress = quiet,
) -> Explanation:
    """Explain why a picture fits a prompt.

    Args:
        clip: The CLIP whose view it is.
        image: The picture, of any size; CLIP sees it as `on_square` shows it.
        prompt: What it should show, in English or Chinese.
        names: Names of other things, in the prompt's language.
        maps: Whether to look for the words in the picture, which takes about a hundred pictures' time.
        progress: Told of every piece of work.

    Returns:
        The explanation; the same for equal arguments.

    Raises:
        BadInput: When the prompt is empty or cannot be one.
    """
    prompt = clean_prompt(prompt)
    picture = to_tensor([on_square(image)]).to(clip.device)
    whole = clip.encode_image(picture)[0]
    score = float(whole @ text_vector(clip, prompt))
    seen = clip.encode_image(_views(picture))  # (views, d)
    own = seen @ clip.encode_text(ensemble(prompt)).T  # (views, wordings)
    parts = [
        PhraseScore(part.text, part.without, without, score - without)
        for part in phrases(prompt)
        for without in [float(whole @ text_vector(clip, part.without))]
    ]
    progress(Step("read", 1, 1))
    others = _other_names(clip, prompt, names)
    rival, rank = _rival(clip, whole, seen, own, score, others)
    progress(Step("compare", 1, 1))
    found: list[Relevance] = []
    if maps:
        texts = [prompt, *words(prompt)]
        vectors = torch.stack([text_vector(clip, text) for text in texts])
        found = [of_picture(each, image.size) for each in relevance(clip, picture, vectors, texts, progress)]
    return Explanation(prompt, score, float(own.std()), parts, rival, rank, len(others), found)


def _views(picture: Tensor) -> Tensor:
    """(1, 3, s, s) -> (6, 3, s, s): the picture, and crops of it at the corners and in the middle, as large again."""
    side = picture.shape[-1]
    cut = max(1, round(CROP * side))
    rest = side - cut
    places = [(0, 0), (0, rest), (rest, 0), (rest, rest), (rest // 2, rest // 2)]
    crops = torch.cat([picture[..., y : y + cut, x : x + cut] for y, x in places])
    return torch.cat([picture, F.interpolate(crops, (side, side), mode="bilinear", align_corners=False)])


def _other_names(clip: Clip, prompt: str, names: Sequence[str]) -> list[str]:
    """Those of the names that say something else than the prompt and no part of it."""
    if not names:
        return []
    lowered = prompt.casefold()
    heard = clip.encode_text([prompt])[0]
    near = floats(clip.encode_text(list(names)) @ heard)
    return [
        name
        for name, likeness in zip(names, near, strict=True)
        if likeness < SAME and not _says(lowered, name)
    ]


def _says(prompt: str, name: str) -> bool:
    """Whether all of a name's words are in the prompt."""
    return name in prompt if is_chinese(name) else set(name.casefold().split()) <= set(prompt.split())


def _rival(
    clip: Clip, whole: Tensor, seen: Tensor, own: Tensor, score: float, names: list[str]
) -> tuple[Rival | None, int]:
    """The best of the wrong names with its margin over views and wordings, and the prompt's rank among them."""
    if not names:
        return None, 1
    order = integers((clip.encode_text(names) @ whole).argsort(descending=True, stable=True)[:NEAREST])
    scores = [float(whole @ text_vector(clip, names[k])) for k in order]
    best = max(range(len(order)), key=scores.__getitem__)
    name = names[order[best]]
    apart = own - seen @ clip.encode_text(ensemble(name)).T
    wins = (apart > 0).float().mean().item()
    rival = Rival(name, scores[best], score - scores[best], float(apart.std()), wins)
    return rival, 1 + sum(other > score for other in scores)
