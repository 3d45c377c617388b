"""Small files in the published form of every model of the catalog, with random weights, by the paths that it gives them.

They fit together as the true ones do, so that each pack can draw with them.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import msgpack
import torch
from safetensors import safe_open
from safetensors.torch import save

import tests.pipelines.models.test_openai_dvae as dvae
import tests.pipelines.models.test_rudalle as rudalle
import tests.pipelines.models.test_taming_vqgan as taming
import tests.pipelines.test_full_pack as published
import tests.support.openai_clip as published_clip
from pipelines.models.source import SourceCheckpoint
from pipelines.weights.checkpoint import Checkpoint
from pipelines.weights.forms import INDEX, SHARD
from tests.support.dalle_mini import flax_tree, tokenizer_files
from tests.support.ddpm import diffusers_unet, tiny_adm
from tests.support.tiny import diffusion_folder

GRID, CODES = published.GRID, published.CODES
VIT: tuple[Any, ...] = (1, 64, 16)  # layers, width and patch
Files = dict[str, bytes]


class StandIns:
    """Makes the files of entries, each once. `folder` is for what they leave."""

    def __init__(self, folder: Path, rudalle_model: ModuleType):
        self.folder, self.rudalle_model = folder, rudalle_model
        self.makers: dict[str, Callable[[Checkpoint], Files]] = {
            "openai-clip": self._clip,
            "chinese-clip": self._chinese_clip,
            "siglip": self._siglip,
            "siglip-tokenizer": self._siglip,
            "clip-tokenizer": self._clip_words,
            "wordpiece-tokenizer": lambda _: {"vocab.txt": "\n".join(published_clip.WORDS).encode()},
            "dalle-mini": self._dalle_mini,
            "dalle-mini-tokenizer": self._dalle_mini_words,
            "rudalle": self._rudalle,
            "rudalle-tokenizer": lambda _: {
                "bpe.model": "\n".join([*rudalle.vocabulary_lines(), ""]).encode()
            },
            "openai-dvae": self._dvae,
            "taming-vqgan": self._vqgan,
            "ddpm": self._ddpm,
            "diffusion": self._diffusion,
            "flow": self._flow,
        }
        self._vqgans: dict[str, Path] = {}
        self._made: dict[str, Files] = {}

    def of(self, entry: Checkpoint) -> Files:
        """The bytes of an entry's files by their paths. KeyError for a kind that has no maker yet."""
        if entry.name not in self._made:
            self._made[entry.name] = self.makers[entry.kind](entry)
        return self._made[entry.name]

    def _place(self, name: str) -> Path:
        place = self.folder / name
        place.mkdir(exist_ok=True)
        return place

    def _clip(self, entry: Checkpoint) -> Files:
        """OpenAI's archive, open_clip's state dict with its config, transformers' folder, or a trainer's checkpoint."""
        first, place = entry.files[0].path, self._place(entry.name)
        if first == "model.safetensors":
            return self._transformers_clip(place)
        path = place / "clip.pt"
        if "RN" in first:
            published.openai_clip(path, 64, ((1, 1, 1, 1), 8, None))
        else:
            published.openai_clip(path, 32, VIT, archive="openai" in entry.files[0].url)
        if first.startswith("HPS"):
            torch.save({"epoch": 1, "state_dict": torch.load(path)}, path)
        config = {"model_cfg": {"embed_dim": 32}, "preprocess_cfg": {}}
        return {
            file.path: path.read_bytes() if not file.path.endswith(".json") else json.dumps(config).encode()
            for file in entry.files
        }

    def _transformers_clip(self, place: Path) -> Files:
        from transformers import CLIPConfig, CLIPModel

        layers = {"hidden_act": "gelu", "num_hidden_layers": 1, "hidden_size": 64, "num_attention_heads": 1}
        words = 2 * 256 + len(published.MERGES) + 2
        config = CLIPConfig(
            projection_dim=32,
            text_config=layers
            | {"vocab_size": words, "max_position_embeddings": 77, "eos_token_id": words - 1},
            vision_config=layers | {"image_size": 32, "patch_size": 16},
        )
        published_clip.shuffled(CLIPModel(config)).save_pretrained(place)
        return {name: (place / name).read_bytes() for name in ("model.safetensors", "config.json")}

    def _siglip(self, entry: Checkpoint) -> Files:
        siglip = importlib.import_module("tests.pipelines.models.test_siglip")
        place = self._place(entry.name)
        made = siglip.their_tokenizer() if entry.role == "tokenizer" else siglip.their_model()
        made.save_pretrained(place)
        return {file.path: (place / file.path).read_bytes() for file in entry.files}

    def _chinese_clip(self, _: Checkpoint) -> Files:
        inside = published.chinese_clip(self._place("chinese-clip"))
        return {name: (inside / name).read_bytes() for name in ("pytorch_model.bin", "config.json")}

    def _clip_words(self, _: Checkpoint) -> Files:
        return {path.name: path.read_bytes() for path in published.clip_words(self._place("clip-words"))}

    def _dalle_mini(self, entry: Checkpoint) -> Files:
        """min-dalle's halves; or dalle-mini's tree, in mega's form with a padded table and the start token before."""
        halves = published.dalle_mini_halves(self._place(entry.name))
        if len(entry.files) == 2 and entry.files[0].path.endswith(".pt"):
            return {file.path: path.read_bytes() for file, path in zip(entry.files, halves, strict=True)}
        encoder, decoder = (torch.load(path) for path in halves)
        for name in ("embed_tokens.weight", "lm_head.weight"):
            padding = torch.ones(31 if "mega" in entry.name else 0, decoder[name].shape[1])
            decoder[name] = torch.cat([decoder[name], padding])
        tree = flax_tree((SourceCheckpoint("e", encoder, {}), SourceCheckpoint("d", decoder, {})))
        config = {"encoder_attention_heads": 1, "decoder_start_token_id": CODES}
        return {"flax_model.msgpack": msgpack.packb(tree) or b"", "config.json": json.dumps(config).encode()}

    def _dalle_mini_words(self, entry: Checkpoint) -> Files:
        vocabulary = tokenizer_files(self._place("dalle-mini-words"))
        merges = vocabulary.with_name("merges_mini.txt")
        return dict(
            zip(
                (file.path for file in entry.files),
                (vocabulary.read_bytes(), merges.read_bytes()),
                strict=True,
            )
        )

    def _rudalle(self, entry: Checkpoint) -> Files:
        model = rudalle.original_of(
            self.rudalle_model, 3, image_tokens_per_dim=GRID, image_vocab_size=CODES, num_layers=2, hidden_size=64,
            num_attention_heads=1,
        )  # fmt: skip
        path = self._place(entry.name) / "model.bin"
        torch.save(model.state_dict(), path)
        return {entry.files[0].path: path.read_bytes()}

    def _dvae(self, entry: Checkpoint) -> Files:
        place = self._place(entry.name)
        for file, module in zip(entry.files, dvae.reference(), strict=True):
            torch.save(module, place / file.path)
        return {file.path: (place / file.path).read_bytes() for file in entry.files}

    def _vqgan(self, entry: Checkpoint) -> Files:
        """Lightning's checkpoint, dalle-mini's tree, Sber's, or LlamaGen's."""
        self._vqgans = self._vqgans or published.vqgans(self._place("vqgans"))
        forms = {"flax_model.msgpack": "vqgan-dalle-mini", "vqgan.gumbelf8-sber.model.ckpt": "vqgan-rudalle"}
        path = entry.files[0].path
        if path == "vq_ds16_c2i.pt":
            sizes = taming.TINY | {"num_res_blocks": 1, "attn_resolutions": [8]}
            state = taming.Reference.scattered(sizes, CODES, 8).state_dict()
            renamed = importlib.import_module(taming.__name__).as_llamagen(state, 3)
            file = self._place(entry.name) / path
            torch.save({"model": renamed}, file)
            return {path: file.read_bytes()}
        return {path: self._vqgans[forms.get(path, "vqgan-f16-16384")].read_bytes()}

    def _ddpm(self, entry: Checkpoint) -> Files:
        """A folder of diffusers, or ADM's state dict."""
        place = self._place("ddpm")
        if len(entry.files) == 1:
            path = place / "adm.pt"
            torch.save(tiny_adm().state_dict(), path)
            return {entry.files[0].path: path.read_bytes()}
        diffusers_unet().save_pretrained(place, safe_serialization=False)
        return {name: (place / name).read_bytes() for name in ("diffusion_pytorch_model.bin", "config.json")}

    def _diffusion(self, entry: Checkpoint) -> Files:
        """A diffusers folder, by the names of half precision and with the vocabularies in the form of 2022."""
        kind = "xl" if "xl" in entry.name else "turbo" if "turbo" in entry.name else "1.5"
        folder = Path(diffusion_folder(kind))
        return {file.path: _in_folder(folder, file.path) for file in entry.files}

    def _flow(self, entry: Checkpoint) -> Files:
        """A folder of a rectified flow, whose networks lie in as many files as the entry says."""
        flows = importlib.import_module("tests.support.flows")
        folder = Path(flows.flow_folder("klein" if "klein" in entry.name else "z-image"))
        return {file.path: _in_folder(folder, file.path) for file in entry.files}


def _in_folder(folder: Path, name: str) -> bytes:
    """A file of a diffusers folder as it is published: half precision by name, in shards, with separate merges."""
    path = folder / name.replace(".fp16.", ".")
    if path.is_file():
        return path.read_bytes()
    if match := SHARD.fullmatch(path.name):
        return _shard(path.with_name(match[1] + match[4]), int(match[2]), int(match[3]))
    if path.name.endswith(INDEX):
        whole = path.with_name(path.name.removesuffix(INDEX))
        count = 3 if "z-image" in folder.name or whole.parent.name == "transformer" else 2
        with safe_open(whole, "pt") as file:
            names: list[str] = sorted(file.keys())
        stem = whole.name.removesuffix(".safetensors")
        table = {one: f"{stem}-{k % count + 1:05}-of-{count:05}.safetensors" for k, one in enumerate(names)}
        return json.dumps({"metadata": {"total_size": whole.stat().st_size}, "weight_map": table}).encode()
    whole = path.with_name("tokenizer.json")
    if "<|im_start|>" in (whole.read_text("utf-8") if whole.is_file() else ""):
        vocabulary = json.loads(whole.read_text("utf-8"))["model"]["vocab"]
        return json.dumps(vocabulary).encode() if path.name == "vocab.json" else b"#version: 0.2\n"
    return _old_words()[path.name]


def _shard(whole: Path, number: int, count: int) -> bytes:
    """Every `count`-th tensor of a file, from `number` on, as a file of its own."""
    with safe_open(whole, "pt") as file:
        names: list[str] = sorted(file.keys())
        return save({name: file.get_tensor(name) for name in names[number - 1 :: count]}, {"format": "pt"})


@cache
def _old_words() -> Files:
    """The files of CLIP's vocabulary that transformers wrote in 2022: ASCII's letters, alone or ending a word."""
    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    ends = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    ends["pad_token"] = "<|endoftext|>"
    config = {**ends, "tokenizer_class": "CLIPTokenizer", "model_max_length": 16}
    return {
        "vocab.json": json.dumps({word: k for k, word in enumerate(words)}).encode(),
        "merges.txt": b"#version: 0.2\n",
        "special_tokens_map.json": json.dumps(ends).encode(),
        "tokenizer_config.json": json.dumps(config).encode(),
    }
