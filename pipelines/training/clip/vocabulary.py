"""The words of the training data: CLIP's vocabulary, and every word that a caption can hold."""

from __future__ import annotations

import numpy as np

from pipelines.models.clip.tokenizer import Tokenizer, words_in
from pipelines.training.data.captions import COLOURS, caption
from pipelines.training.data.dataset import Dataset
from pipelines.training.data.icons import ICON_SETS
from pipelines.training.data.scenes import Scenes

VOCABULARY_SIZE = 4096


def train_tokenizer(emoji: Dataset, seed: int = 0) -> Tokenizer:
    """The shared vocabulary, learned from captions and a share of WordNet."""
    rng = np.random.default_rng(seed)
    texts = [caption(emoji.icons[k], rng) for k in np.tile(emoji.train, 4)]
    texts += [
        caption(emoji.icons[k], rng, background) for k in emoji.train for background in list(COLOURS)[1:3]
    ]
    texts += list(emoji.phrases[::3])
    return Tokenizer.train(texts, VOCABULARY_SIZE)


def caption_words(emoji: Dataset) -> list[str]:
    """Every word a training caption can hold, sorted: names, keywords, styles, colours, and the words of scenes."""
    rng = np.random.default_rng(0)
    scenes = Scenes(emoji, emoji.train, 0, plain=0.0, coloured=0.3)
    texts = [scenes.scene(int(k))[1] for k in rng.permutation(emoji.train)]
    for k in emoji.train:
        icon = emoji.icons[k]
        texts += [icon.name, *icon.also, *icon.keywords, icon.chinese, *icon.chinese_keywords]
    texts += [word for style in ICON_SETS.values() for word in (style.english, style.chinese)]
    return sorted({word for text in texts for word in words_in(text)})
