"""Networks that predict the words of a picture's caption: what CLIP was compared with (Radford et al. 2021, figure 2)."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.models.clip.network import ClipConfig, ImageTower, TransformerBlock


class Predictor(nn.Module, ABC):
    """Base of both. Texts are (n, t) token ids, END and padding 0; pictures are normalized."""

    def __init__(self, config: ClipConfig):
        super().__init__()
        self.image = ImageTower(config)

    @abstractmethod
    def likelihoods(self, vectors: Tensor, tokens: Tensor) -> Tensor:
        """(n, d) of the image tower and (n, t) ids -> (n,), the logarithm of each text's likelihood."""

    @abstractmethod
    def loss(self, images: Tensor, tokens: Tensor) -> Tensor:
        """The mean loss of pictures (n, 3, s, s) with their captions (n, t), a scalar."""

    def scores(self, images: Tensor, tokens: Tensor) -> Tensor:
        """(n, 3, s, s) and (m, t) ids of names -> (n, m): how likely each name is for each picture."""
        vectors = self.image(images)
        rows = [self.likelihoods(vector.expand(len(tokens), -1), tokens) for vector in vectors]
        return torch.stack(rows)


class BagPredictor(Predictor):
    """Predicts which words a caption has, in whatever order (Joulin et al. 2016): a softmax over all words."""

    def __init__(self, config: ClipConfig):
        super().__init__(config)
        self.head = nn.Linear(config.embedding_size, config.vocabulary_size)

    def likelihoods(self, vectors: Tensor, tokens: Tensor) -> Tensor:
        """The mean over a text's words, each once."""
        words = self.head(vectors).log_softmax(1).gather(1, tokens)
        counts = (tokens != 0) & ~(tokens[:, :, None] == tokens[:, None, :]).tril(-1).any(2)
        return (words * counts).sum(1) / counts.sum(1).clamp(min=1)

    def loss(self, images: Tensor, tokens: Tensor) -> Tensor:
        """Cross-entropy with the uniform distribution over the words of a caption."""
        return -self.likelihoods(self.image(images), tokens).mean()


class LanguageModel(Predictor):
    """Predicts a caption token by token, by a Transformer whose first place is the picture's vector."""

    def __init__(self, config: ClipConfig):
        super().__init__(config)
        width, places = config.text_width, config.context_length + 1
        self.start = nn.Linear(config.embedding_size, width)
        self.token = nn.Embedding(config.vocabulary_size, width)
        self.position = nn.Parameter(torch.randn(places, width) * 0.01)
        self.blocks = nn.ModuleList(
            TransformerBlock(width, config.text_head_count) for _ in range(config.text_layer_count)
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, config.vocabulary_size)
        nn.init.normal_(self.token.weight, std=0.02)

    def _words(self, vectors: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Logarithms of the tokens' probabilities (n, t), and which of them count: those up to END."""
        x = torch.cat([self.start(vectors)[:, None], self.token(tokens[:, :-1])], 1)
        x = x + self.position[: x.shape[1]]
        causal = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
        for block in self.blocks:
            x = block(x, causal)
        words = self.head(self.norm(x)).log_softmax(2).gather(2, tokens[:, :, None])[:, :, 0]
        length = (tokens != 0).sum(1, keepdim=True) + 1
        return words, torch.arange(tokens.shape[1], device=x.device) < length

    def likelihoods(self, vectors: Tensor, tokens: Tensor) -> Tensor:
        """The sum over a text and its END."""
        words, counts = self._words(vectors, tokens)
        return (words * counts).sum(1)

    def loss(self, images: Tensor, tokens: Tensor) -> Tensor:
        """Cross-entropy a token."""
        words, counts = self._words(self.image(images), tokens)
        return -F.normalize(counts.float(), p=1, dim=1).mul(words).sum(1).mean()
