"""How DALL·E learns (Ramesh et al. 2021, section 2.2): next-token prediction, 1/8 of the loss on text, 7/8 on image.

Pictures are turned into tokens once, before training. Captions are made on the fly, with BPE dropout, and are left out
for a share of the sequences, so that guidance (Ho and Salimans 2022) has an unconditional model to start from.

Near codes draw nearly the same, so which of them a picture has is mostly noise. The network begins with the code book's
geometry in its embeddings, is asked for the near codes as well, and reads near codes in place of the true ones now and
then (Lee et al. 2022, section 3.2.3): it then learns from fewer pictures and forgives itself its own mistakes.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import load_file, save
from torch import Tensor, nn

from pipelines.errors import BadInput
from pipelines.io.files import write_atomically
from pipelines.models.base import Codec
from pipelines.models.checkpoint import file_hash, load_weights, read_header, save_checkpoint
from pipelines.models.clip.network import Clip, ClipConfig
from pipelines.models.clip.tokenizer import Tokenizer
from pipelines.models.dalle.network import Dalle, DalleConfig
from pipelines.models.sampling import sample
from pipelines.models.transformer.network import Transformer
from pipelines.models.vqgan.network import VqganConfig
from pipelines.training.codes import neighbours
from pipelines.training.data.captions import caption
from pipelines.training.data.compositing import to_images
from pipelines.training.data.dataset import Dataset, icon_weights, on_background
from pipelines.training.data.scenes import Scenes, scene_count, scene_share
from pipelines.training.drawing import sheet_prompts
from pipelines.training.frozen import codec_learned, load_codec
from pipelines.training.pretrained import begin_with
from pipelines.training.report import image_grid
from pipelines.training.sharding import WholeMuon, divide
from pipelines.training.trainer import Trainer, broadcast_weights

SCENE_SHARE = 0.2
SCENE_COUNT = 8_000  # coloured and composed pictures kept as tokens, beside every icon on white
SHEET_PROMPTS = ["red heart", "pizza", "dog face", "grinning face", "a 3d cat face", "生日蛋糕"]


class DalleTrainer(Trainer):
    """Trains a Dalle on the tokens of a codec of the pack. `folder` keeps the token bank beside the state."""

    name = kind = "dalle"
    ema_networks = ("dalle",)
    text_dropout, bpe_dropout = 0.12, 0.1
    SIZES: ClassVar[dict[str, dict[str, Any]]] = {
        # 3.8, 33.6 and 103.9 million parameters, over the tokens of a VQGAN of the same size
        "tiny": {
            "batch_size": 64,
            "rate": 2e-3,
            "matrix_rate": 0.01,
            "width": 192,
            "layer_count": 4,
            "head_count": 3,
        },
        "small": {
            "batch_size": 128,
            "rate": 1e-3,
            "matrix_rate": 0.01,
            "width": 512,
            "layer_count": 8,
            "head_count": 8,
        },
        "base": {
            "batch_size": 128,
            "rate": 6e-4,
            "matrix_rate": 0.01,
            "width": 768,
            "layer_count": 12,
            "head_count": 12,
        },
        # 1.2 billion, for several GPUs that share it (`shard`)
        "large": {
            "batch_size": 64,
            "rate": 3e-4,
            "matrix_rate": 0.01,
            "width": 2048,
            "layer_count": 24,
            "head_count": 32,
        },
    }

    def __init__(
        self,
        accelerator: Accelerator,
        emoji: Dataset,
        pack: Path,
        folder: Path,
        seed: int = 0,
        size: str = "tiny",
        codec: str = "vqgan",
        start: Path | None = None,
        shard: bool = False,
        **options: Any,
    ):
        """`codec` names the file whose tokens are learned: vqgan, vqvae or dvae.

        `start` is an earlier checkpoint over tokens of the same meaning, of which the tensors that fit are taken. With
        `shard` the network is divided among the processes, where there are several. BadInput when the pack lacks the
        codec.
        """
        sizes = {**self.SIZES[size], **options}
        self.batch_size = sizes.pop("batch_size")
        rate, matrix_rate = sizes.pop("rate"), sizes.pop("matrix_rate")
        self.accelerator, self.emoji, self.seed = accelerator, emoji, seed
        self.tokenizer, self.codec_file = (
            Tokenizer.load(pack / "tokenizer.json"),
            pack / f"{codec}.safetensors",
        )
        if not self.codec_file.is_file():
            raise BadInput("training.codec_missing", codec=codec, network=self.name, folder=str(pack))
        config = VqganConfig.from_dict(read_header(self.codec_file)[0])
        with accelerator.main_process_first():
            name = f"bank-{file_hash(self.codec_file)[:12]}-{emoji.hash}-{seed}.safetensors"
            self.token_cache = read_tokens(folder / name, emoji, seed, self._tokens)
        self.weights = icon_weights(emoji, rare=0.35)
        codes, self.learned = codec_learned(self.codec_file)
        self.near, self.share = neighbours(codes)
        self.targets = self.near.to(accelerator.device), self.share.to(accelerator.device)
        torch.manual_seed(seed)
        self._made = partial(self.made, config, sizes)
        network = self._made()
        _start_from_clip(network, pack, self.tokenizer)
        _start_from_codes(network, codes)
        if start is not None:
            # larger steps would first undo what was learned
            rate, matrix_rate = 0.4 * rate, 0.4 * matrix_rate
            self.start = f"{len(begin_with(network, start))} tensors of {start.name}"
        network.to(accelerator.device)
        if shard and accelerator.num_processes > 1:
            broadcast_weights(accelerator, [network])
            divide(network, network.layers, accelerator)
        self.networks = {self.ema_networks[0]: network}
        self._begin_optimizers(rate, matrix_rate)

    def _begin_optimizers(self, rate: float, matrix_rate: float) -> None:
        matrices, others = matrices_and_others(self.network)
        # foreach would mix what is divided with what is not
        foreach, muon = (False, WholeMuon) if self.sharded else (None, torch.optim.Muon)
        self.optimizers = {
            "embeddings": torch.optim.AdamW(others, rate, (0.9, 0.98), weight_decay=0.0, foreach=foreach),
            "matrices": muon(matrices, matrix_rate, 0.02, adjust_lr_fn="original"),
        }

    def made(self, codec: VqganConfig, sizes: dict[str, Any]) -> Dalle | Transformer:
        """The network, over the tokens of such a codec."""
        return Dalle(DalleConfig(self.tokenizer.vocabulary_size, codec.code_count, grid=codec.grid, **sizes))

    def plain(self, name: str) -> nn.Module:
        return self._made().to(self.accelerator.device)

    @property
    def network(self) -> Dalle | Transformer:
        """The network that learns."""
        return cast(Dalle | Transformer, self.networks[self.ema_networks[0]])

    @property
    def dalle(self) -> Dalle:
        """The network."""
        return cast(Dalle, self.networks["dalle"])

    @cached_property
    def codec(self) -> Codec:
        """The codec, loaded when pictures must be read or drawn, since it needs diffusers and the rest does not."""
        return load_codec(self.codec_file, self.accelerator.device)

    def compile_targets(self) -> list[nn.Module]:
        return [self.network]

    @torch.no_grad()
    def _tokens(self, pictures: np.ndarray) -> Tensor:
        """(n, s, s, 3) uint8 -> (n, image_length) on the CPU."""
        images = to_images(pictures).to(self.accelerator.device)
        return self.codec.encode_tokens(images).flatten(1).cpu()

    def batch(self, step: int, rank: int = 0, count: int = 1) -> tuple[Tensor, Tensor, Tensor]:
        """Text tokens (n, text_length), image tokens (n, image_length), and image tokens near to these, to be read."""
        rng = np.random.default_rng((self.seed, step, rank))
        composed = int(rng.binomial(self.batch_size, scene_share(self.emoji, SCENE_SHARE)))
        rows = rng.choice(len(self.emoji.train), self.batch_size - composed, p=self.weights)
        texts = [caption(self.emoji.icons[self.emoji.train[k]], rng) for k in rows]
        scenes = rng.integers(len(self.token_cache["captions"]), size=composed)
        texts += [self.token_cache["captions"][k] for k in scenes]
        image = torch.cat([self.token_cache["icons"][rows], self.token_cache["scenes"][scenes]])
        icons = [*self.emoji.train[rows].tolist(), *[-1] * composed]
        return self.conditions(texts, icons, rng), image, self.nearly(image, rng)

    def conditions(self, texts: list[str], icons: list[int], rng: np.random.Generator) -> Tensor:
        """(n, text_length) tokens of captions, some of them left out. `icons` say what they are of, -1 for scenes."""
        length = self.network.config.text_length
        text = torch.zeros(len(texts), length, dtype=torch.long)
        for row, words in zip(text, texts, strict=True):
            if rng.random() >= self.text_dropout:
                ids = torch.tensor(self.tokenizer.encode_with_dropout(words, self.bpe_dropout, rng)[:length])
                row[: len(ids)] = ids
        return text

    def nearly(self, image: Tensor, rng: np.random.Generator) -> Tensor:
        """(n, image_length) tokens -> others as near to them as their shares say, often themselves."""
        return exchanged(image, torch.from_numpy(rng.random((*image.shape, 1))), self.near, self.share)

    def image_loss(self, logits: Tensor, image: Tensor) -> Tensor:
        """Cross-entropy of (n, t, vocabulary) logits with the near codes of (n, t) tokens, a scalar."""
        near, share = (table[image] for table in self.targets)
        return -(share * logits.float().log_softmax(2).gather(2, near)).sum(2).mean()

    def update(self, batch: tuple[Tensor, Tensor, Tensor], progress: float) -> dict[str, Tensor]:
        text, image, read = batch
        length = self.dalle.config.text_length
        with self.accelerator.autocast():
            state = self.dalle(text, read)
            image_logits = self.dalle.image_head(state[:, length - 1 :])
            target = text[:, 1:]
            word_mask = target != 0  # pads are not worth predicting
            text_logits = self.dalle.text_head(state[:, : length - 1][word_mask])
        image_loss = self.image_loss(image_logits, image)
        word_count = self.mean_over_processes(word_mask.sum().float()).clamp(min=0.1)
        text_loss = F.cross_entropy(text_logits.float(), target[word_mask], reduction="sum") / word_count
        self.backward_and_step((text_loss + 7 * image_loss) / 8, self.dalle, *self.optimizers)
        return {"image": image_loss, "text": text_loss}

    def sample_grid(self) -> Image.Image | None:
        """Six samples of each of some prompts; None without diffusers, which draws them."""
        if importlib.util.find_spec("diffusers") is None:
            return None
        return image_grid(self.samples(self.prompts(), 6), 6)

    def prompts(self) -> list[str]:
        """The texts of the sheet."""
        return sheet_prompts(self.emoji, SHEET_PROMPTS)

    @torch.no_grad()
    def samples(self, prompts: list[str], count: int, guidance: float = 3.0) -> Tensor:
        """(len(prompts) * count, 3, h, w): plain samples at temperature 1 among the best 64 tokens."""
        network = self.network.eval()
        device, config = self.accelerator.device, network.config
        generator = torch.Generator().manual_seed(0)
        pictures = []
        for prompt in prompts:
            ids: list[list[int]] = [self.tokenizer.encode(prompt), []]
            text = torch.stack([network.text_tokens(row) for row in ids])
            cache, logits = network.prefill(text.to(device), 2 * count)
            tokens = []
            for position in range(config.image_length):
                cond, uncond = logits.chunk(2)
                chance = torch.rand(count, generator=generator).to(device)
                tokens.append(sample(uncond + guidance * (cond - uncond), chance, 1.0, 64, 1.0))
                if position + 1 < config.image_length:
                    logits = network.decode_step(cast(Any, cache), tokens[-1].repeat(2), position)
            pictures.append(
                self.codec.decode_tokens(torch.stack(tokens, 1).view(count, config.grid, config.grid))
            )
        network.train()
        return torch.cat(pictures)

    def evaluate(self) -> dict[str, float]:
        """Nats a token on validation icons with their plain names, with and without the text."""
        images, icons = self.token_cache["validation"][::4], self.emoji.validation[::4]
        names = [self.emoji.icons[index].name for index in icons]
        texts = torch.stack([self.told(name) for name in names])
        return {
            "nats": self.nats(texts, images),
            "nats without text": self.nats(torch.zeros_like(texts), images),
        }

    def told(self, name: str) -> Tensor:
        """(text_length,): what the network is told of a thing with this name."""
        return self.network.text_tokens(self.tokenizer.encode(name))

    @torch.no_grad()
    def nats(self, texts: Tensor, images: Tensor) -> float:
        """The cross-entropy of image tokens (n, image_length) under conditions (n, text_length), a token."""
        network, device, total = self.network.eval(), self.accelerator.device, 0.0
        for text, image in zip(texts.split(32), images.split(32), strict=True):
            logits = network.image_logits(text.to(device), image.to(device))
            total += F.cross_entropy(logits.flatten(0, 1).cpu(), image.flatten()).item() * len(text)
        return round(total / len(texts), 4)

    def export(self, path: Path, facts: dict[str, Any]) -> None:
        facts = {**facts, "codec": self.learned}
        save_checkpoint(path, self.network, self.network.config.to_dict(), facts, self.kind)


def exchanged(image: Tensor, dice: Tensor, near: Tensor, share: Tensor) -> Tensor:
    """(n, t) tokens -> near ones, by uniform numbers (n, t, 1) and each code's nearest (codes, k) with their shares."""
    chosen = (share.cumsum(1)[image] < dice).sum(2, keepdim=True).clamp(max=near.shape[1] - 1)
    return near[image].gather(2, chosen)[:, :, 0]


def matrices_and_others(network: Dalle | Transformer) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The matrices of the blocks, which Muon moves, and all other parameters, which Adam moves."""
    matrices = [p for p in network.blocks.parameters() if p.ndim == 2]
    chosen = {id(p) for p in matrices}
    return matrices, [p for p in network.parameters() if id(p) not in chosen]


def read_tokens(
    path: Path, emoji: Dataset, seed: int, encode: Callable[[np.ndarray], Tensor]
) -> dict[str, Any]:
    """Tokens of every icon on white, of those held out, and of SCENE_COUNT scenes with their captions; kept in a file.

    `encode` gives the tokens (n, image_length) of pictures (n, s, s, 3) uint8.
    """
    if path.exists():
        kept: dict[str, Any] = load_file(path)
        captions = bytes(kept.pop("captions").numpy().tobytes()).decode().split("\n")
        return {**{name: tokens.long() for name, tokens in kept.items()}, "captions": captions}
    scenes = iter(Scenes(emoji, emoji.train, seed + 1, plain=0.0, coloured=0.55))
    count, drawn, captions = scene_count(emoji, SCENE_COUNT), list[Tensor](), list[str]()
    for start in range(0, count, 64):
        batch = [next(scenes) for _ in range(min(64, count - start))]
        drawn.append(encode(np.stack([picture for picture, _, _ in batch])))
        captions += [text for _, text, _ in batch]
    made = {"icons": emoji.train, "validation": emoji.validation}
    tokens = {name: _icon_tokens(emoji, rows, encode) for name, rows in made.items()}
    tokens["scenes"] = torch.cat(drawn)
    words = torch.frombuffer(bytearray("\n".join(captions).encode()), dtype=torch.uint8)
    write_atomically(path, save({**{k: v.to(torch.int16) for k, v in tokens.items()}, "captions": words}))
    return {**tokens, "captions": captions}


def _icon_tokens(emoji: Dataset, rows: np.ndarray, encode: Callable[[np.ndarray], Tensor]) -> Tensor:
    chunks = [rows[k : k + 64] for k in range(0, len(rows), 64)]
    return torch.cat([encode(on_background(emoji.rgba[chunk])) for chunk in chunks])


def _start_from_clip(dalle: Dalle | Transformer, pack: Path, tokenizer: Tokenizer) -> None:
    """Begin with CLIP's word vectors, down to their principal axes: its "kitty" already lies near its "cat"."""
    if not (pack / "clip.safetensors").exists():
        return
    config, _ = read_header(pack / "clip.safetensors")
    clip = Clip(ClipConfig.from_dict(config), tokenizer)
    load_weights(pack / "clip.safetensors", clip)
    words = clip.text.token.weight.detach()
    width = dalle.config.width
    if len(words) == dalle.config.text_vocabulary and words.shape[1] >= width:
        axes = torch.linalg.svd(words - words.mean(0), full_matrices=False).Vh[:width]
        words = words @ axes.T
        dalle.text_token.weight.data.copy_(words * (0.02 / words.std()))


def _start_from_codes(dalle: Dalle | Transformer, codes: Tensor) -> None:
    """Lay the image tokens' embeddings and output weights out as the codes are, by one random projection."""
    codes = (codes - codes.mean(0)) / codes.std()
    spread = codes @ torch.randn(codes.shape[1], dalle.config.width) / codes.shape[1] ** 0.5
    dalle.image_token.weight.data.copy_(0.06 * spread)
    dalle.image_head.weight.data.copy_(0.3 / dalle.config.width**0.5 * spread)
