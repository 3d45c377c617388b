"""How DALL·E learns (Ramesh et al. 2021, section 2.2): next-token prediction, 1/8 of the loss on text, 7/8 on image.

Pictures are turned into tokens once, before training. Captions are made on the fly, with BPE dropout, and are left out
for a share of the sequences, so that guidance (Ho and Salimans 2022) has an unconditional model to start from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import load_file, save
from torch import Tensor

from pipelines.files import write_atomically
from pipelines.models.checkpoint import (
    file_hash,
    load_weights,
    read_header,
    save_checkpoint,
)
from pipelines.models.clip import Clip, ClipConfig
from pipelines.models.dalle import Dalle, DalleConfig, sample
from pipelines.models.tokenizer import Tokenizer
from pipelines.models.vqgan import Vqgan, VqganConfig
from pipelines.training.clip import thing
from pipelines.training.data import Emoji, Scenes, caption, on_background
from pipelines.training.fit import Trainer, sheet_of

SCENE_COUNT = 8_000  # coloured and composed pictures kept as tokens, beside every icon on white
SHEET_PROMPTS = ["red heart", "pizza", "dog face", "grinning face", "a 3d cat face", "生日蛋糕"]


class DalleTrainer(Trainer):
    """Trains a Dalle on the tokens of the pack's VQGAN. `folder` keeps the token bank beside the state."""

    name = "dalle"
    averaged = ("dalle",)
    text_dropout, bpe_dropout = 0.12, 0.1

    def __init__(
        self,
        accelerator: Accelerator,
        emoji: Emoji,
        pack: Path,
        folder: Path,
        seed: int = 0,
        batch_size: int = 32,
        rate: float = 2e-3,
        **sizes: Any,
    ):
        self.accelerator, self.emoji, self.seed, self.batch_size = accelerator, emoji, seed, batch_size
        self.tokenizer = Tokenizer.load(pack / "tokenizer.json")
        config, _ = read_header(pack / "vqgan.safetensors")
        self.vqgan = Vqgan(VqganConfig.from_dict(config)).eval().requires_grad_(False)
        load_weights(pack / "vqgan.safetensors", self.vqgan)
        self.vqgan.to(accelerator.device)
        self.bank = self._token_bank(
            folder / f"tokens-{file_hash(pack / 'vqgan.safetensors')[:12]}.safetensors"
        )
        self.weights = self._icon_weights()
        torch.manual_seed(seed)
        codec = self.vqgan.config
        dalle = Dalle(DalleConfig(self.tokenizer.vocabulary_size, codec.code_count, grid=codec.grid, **sizes))
        self._start_from_clip(dalle, pack)
        dalle = accelerator.prepare(dalle)
        bare = accelerator.unwrap_model(dalle)
        matrices = [p for p in bare.blocks.parameters() if p.ndim == 2]
        chosen = {id(p) for p in matrices}
        others = [p for p in bare.parameters() if id(p) not in chosen]
        adam = torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0)
        muon = torch.optim.Muon(matrices, lr=0.01, weight_decay=0.02, adjust_lr_fn="original")
        self.networks = {"dalle": dalle}
        self.optimizers = {"embeddings": accelerator.prepare(adam), "matrices": accelerator.prepare(muon)}

    def samples_per_step(self) -> int:
        return self.batch_size * self.accelerator.num_processes

    def _start_from_clip(self, dalle: Dalle, pack: Path) -> None:
        """Begin with CLIP's word vectors, down to their principal axes: its "kitty" already lies near its "cat"."""
        if not (pack / "clip.safetensors").exists():
            return
        config, _ = read_header(pack / "clip.safetensors")
        clip = Clip(ClipConfig.from_dict(config), self.tokenizer)
        load_weights(pack / "clip.safetensors", clip)
        words = clip.text.token.weight.detach()
        width = dalle.config.width
        if len(words) == dalle.config.text_vocabulary and words.shape[1] >= width:
            axes = torch.linalg.svd(words - words.mean(0), full_matrices=False).Vh[:width]
            words = words @ axes.T
            dalle.text_token.weight.data.copy_(words * (0.02 / words.std()))

    @torch.no_grad()
    def _token_bank(self, path: Path) -> dict[str, Any]:
        """Tokens of every training icon on white, and of SCENE_COUNT scenes with their captions; kept in a file."""
        if path.exists():
            tensors = load_file(path)
            captions = bytes(tensors["captions"].numpy().tobytes()).decode().split("\n")
            return {
                "icons": tensors["icons"].long(),
                "scenes": tensors["scenes"].long(),
                "captions": captions,
            }
        train = self.emoji.train
        icons = [
            self._tokens(on_background(self.emoji.rgba[train[k : k + 64]])) for k in range(0, len(train), 64)
        ]
        scenes, captions, pictures = [], [], []
        for picture, text, _ in Scenes(self.emoji, train, self.seed + 1, plain=0.0, coloured=0.55):
            pictures.append(picture)
            captions.append(text)
            if len(pictures) == 64:
                scenes.append(self._tokens(np.stack(pictures)))
                pictures.clear()
            if len(captions) == SCENE_COUNT:
                break
        bank = {"icons": torch.cat(icons), "scenes": torch.cat(scenes)}
        words = torch.frombuffer(bytearray("\n".join(captions).encode()), dtype=torch.uint8)
        write_atomically(path, save({**{k: v.to(torch.int16) for k, v in bank.items()}, "captions": words}))
        return {**bank, "captions": captions}

    def _tokens(self, pictures: np.ndarray) -> Tensor:
        images = (
            torch.from_numpy(pictures)
            .permute(0, 3, 1, 2)
            .to(self.accelerator.device)
            .float()
            .div(127.5)
            .sub(1)
        )
        return self.vqgan.tokens_of(images).flatten(1).cpu()

    def _icon_weights(self) -> np.ndarray:
        """How often each training icon is drawn: things that only one or two styles know are what few people type."""
        icons = [self.emoji.icons[k] for k in self.emoji.train]
        styles: dict[str, set[str]] = {}
        for icon in icons:
            styles.setdefault(thing(icon), set()).add(icon.style)
        weights = np.array([1.0 if len(styles[thing(icon)]) >= 3 else 0.35 for icon in icons])
        return weights / weights.sum()

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng((self.seed, step, self.accelerator.process_index))
        composed = int(rng.binomial(self.batch_size, 0.2))
        rows = rng.choice(len(self.emoji.train), self.batch_size - composed, p=self.weights)
        texts = [caption(self.emoji.icons[self.emoji.train[k]], rng) for k in rows]
        scenes = rng.integers(len(self.bank["captions"]), size=composed)
        texts += [self.bank["captions"][k] for k in scenes]
        image = torch.cat([self.bank["icons"][rows], self.bank["scenes"][scenes]])
        length = self.accelerator.unwrap_model(self.networks["dalle"]).config.text_length
        text = torch.zeros(self.batch_size, length, dtype=torch.long)
        for row, words in zip(text, texts, strict=True):
            if rng.random() >= self.text_dropout:
                ids = torch.tensor(self.tokenizer.encode_with_dropout(words, self.bpe_dropout, rng)[:length])
                row[: len(ids)] = ids
        return text.to(self.accelerator.device), image.to(self.accelerator.device)

    def update(self, batch: tuple[Tensor, Tensor], progress: float) -> dict[str, float]:
        text, image = batch
        dalle, bare = self.networks["dalle"], self.accelerator.unwrap_model(self.networks["dalle"])
        length = bare.config.text_length
        with self.accelerator.autocast():
            state = dalle(text, image)
            image_logits = bare.image_head(state[:, length - 1 :])
            target = text[:, 1:]
            said = target != 0  # pads are not worth predicting
            text_logits = bare.text_head(state[:, : length - 1][said])
        image_loss = F.cross_entropy(image_logits.float().flatten(0, 1), image.flatten())
        text_loss = F.cross_entropy(text_logits.float(), target[said])
        loss = (text_loss + 7 * image_loss) / 8
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(bare.parameters(), 1.0)
        for optimizer in self.optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        return {"image": image_loss.item(), "text": text_loss.item()}

    def sheet(self) -> Image.Image:
        """Six samples of each of some prompts."""
        return sheet_of(self.samples(SHEET_PROMPTS, 6), 6)

    @torch.no_grad()
    def samples(self, prompts: list[str], count: int, guidance: float = 3.0) -> Tensor:
        """(len(prompts) * count, 3, h, w): plain samples at temperature 1 among the best 64 tokens."""
        dalle = self.accelerator.unwrap_model(self.networks["dalle"]).eval()
        device, config = self.accelerator.device, dalle.config
        generator = torch.Generator().manual_seed(0)
        pictures = []
        for prompt in prompts:
            text = torch.zeros(2, config.text_length, dtype=torch.long)
            ids = self.tokenizer.encode(prompt)[: config.text_length]
            text[0, : len(ids)] = torch.tensor(ids)
            cache, logits = dalle.read_text(text.to(device), 2 * count)
            tokens = []
            for position in range(config.image_length):
                said, blank = logits.chunk(2)
                chance = torch.rand(count, generator=generator).to(device)
                tokens.append(sample(blank + guidance * (said - blank), chance, 1.0, 64, 1.0))
                if position + 1 < config.image_length:
                    logits = dalle.next_logits(cache, tokens[-1].repeat(2), position)
            pictures.append(
                self.vqgan.pictures_of(torch.stack(tokens, 1).view(count, config.grid, config.grid))
            )
        dalle.train()
        return torch.cat(pictures)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Nats a token on validation icons with their plain names, with and without the text."""
        dalle = self.accelerator.unwrap_model(self.networks["dalle"]).eval()
        rows = self.emoji.validation[::4]
        figures = {"nats": 0.0, "nats without text": 0.0}
        for k in range(0, len(rows), 32):
            chunk = rows[k : k + 32]
            image = self._tokens(on_background(self.emoji.rgba[chunk]))
            text = torch.zeros(len(chunk), dalle.config.text_length, dtype=torch.long)
            for name, tokens in (("nats without text", text), ("nats", text.clone())):
                if name == "nats":
                    for row, index in zip(tokens, chunk, strict=True):
                        ids = torch.tensor(self.tokenizer.encode(self.emoji.icons[index].name)[: len(row)])
                        row[: len(ids)] = ids
                logits = dalle.image_logits(
                    tokens.to(self.accelerator.device), image.to(self.accelerator.device)
                )
                loss = F.cross_entropy(logits.flatten(0, 1).cpu(), image.flatten())
                figures[name] += loss.item() * len(chunk) / len(rows)
        return {name: round(value, 4) for name, value in figures.items()}

    def export(self, path: Path, facts: dict[str, Any]) -> None:
        dalle = self.accelerator.unwrap_model(self.networks["dalle"])
        save_checkpoint(path, dalle, dalle.config.to_dict(), facts)
