"""Small files in the published form of every model of the catalog, with random weights, by the paths that it gives them.

They fit together as the true ones do, so that each pack can draw with them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import msgpack
import torch
from safetensors.torch import load_file, save

import tests.pipelines.models.test_openai_dvae as dvae
import tests.pipelines.models.test_rudalle as rudalle
import tests.pipelines.models.test_taming_vqgan as taming
import tests.pipelines.test_full_pack as published
import tests.support.openai_clip as published_clip
from pipelines.models.source import SourceCheckpoint
from pipelines.weights.checkpoint import Checkpoint
from tests.pipelines.models.test_siglip import their_model, their_tokenizer
from tests.pipelines.models.test_taming_vqgan import as_llamagen
from tests.support.dalle_mini import flax_tree, tokenizer_files
from tests.support.ddpm import diffusers_unet, tiny_adm
from tests.support.flows import flow_folder, tiny_decoder_folder
from tests.support.tiny import diffusion_folder

FLOW_KINDS = {
    "z-image-turbo": "z-image", "flux2-klein-4b": "klein", "flux1-schnell": "flux-1",
    "stable-diffusion-3.5-medium": "sd-3", "sana-sprint-0.6b": "sana",
}  # fmt: skip
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
            "siglip-tokenizer": self._siglip_words,
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
            "taesd": self._taesd,
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
        """OpenAI's archive, open_clip's state dict with its config or of its training, or transformers' folder."""
        if entry.files[0].path == "model.safetensors":
            return self._transformers_clip(entry)
        archive = entry.files[0].path.endswith(".pt")
        path = self._place(entry.name) / "clip.pt"
        if "RN" in entry.files[0].path:
            published.openai_clip(path, 64, ((1, 1, 1, 1), 8, None))
        else:
            published.openai_clip(path, 32, VIT, archive=archive and "HPS" not in entry.files[0].path)
        if "HPS" in entry.files[0].path:
            torch.save({"state_dict": torch.load(path), "epoch": 1}, path)
        config = {"model_cfg": {"embed_dim": 32}, "preprocess_cfg": {}}
        return {
            file.path: path.read_bytes() if not file.path.endswith(".json") else json.dumps(config).encode()
            for file in entry.files
        }

    def _transformers_clip(self, entry: Checkpoint) -> Files:
        from transformers import CLIPConfig, CLIPModel

        place = self._place(entry.name)
        sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1}
        text = {"vocab_size": 2 * 256 + 5, "eos_token_id": 516, "bos_token_id": 515, "pad_token_id": 516}
        config = CLIPConfig(
            projection_dim=32,
            text_config=sizes | text,
            vision_config=sizes | {"image_size": 32, "patch_size": 16},
        )
        published_clip.shuffled(CLIPModel(config)).save_pretrained(place)
        return {file.path: (place / file.path).read_bytes() for file in entry.files}

    def _siglip(self, entry: Checkpoint) -> Files:
        place = self._place(entry.name)
        their_model().save_pretrained(place)
        return {file.path: (place / file.path).read_bytes() for file in entry.files}

    def _siglip_words(self, entry: Checkpoint) -> Files:
        place = self._place(entry.name)
        their_tokenizer().save_pretrained(place)
        return {file.path: (place / file.path).read_bytes() for file in entry.files}

    def _chinese_clip(self, entry: Checkpoint) -> Files:
        inside = published.chinese_clip(self._place(entry.name))
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
        """Lightning's checkpoint, dalle-mini's tree, or Sber's."""
        self._vqgans = self._vqgans or published.vqgans(self._place("vqgans"))
        forms = {"flax_model.msgpack": "vqgan-dalle-mini", "vqgan.gumbelf8-sber.model.ckpt": "vqgan-rudalle"}
        path = entry.files[0].path
        if "LlamaGen" in entry.files[0].url:
            sizes = taming.TINY | {"num_res_blocks": 1, "attn_resolutions": [8]}
            reference = taming.Reference.scattered(sizes, CODES, 8)
            file = self._place(entry.name) / path
            torch.save({"model": as_llamagen(reference.state_dict(), len(sizes["ch_mult"]))}, file)
            return {path: file.read_bytes()}
        return {path: self._vqgans[forms.get(path, "vqgan-f16-16384")].read_bytes()}

    def _ddpm(self, entry: Checkpoint) -> Files:
        """A diffusers folder, or one file of guided-diffusion."""
        if len(entry.files) == 1:
            file = self._place(entry.name) / entry.files[0].path
            torch.save(tiny_adm().state_dict(), file)
            return {entry.files[0].path: file.read_bytes()}
        place = self._place("ddpm")
        diffusers_unet().save_pretrained(place, safe_serialization=False)
        return {name: (place / name).read_bytes() for name in ("diffusion_pytorch_model.bin", "config.json")}

    def _diffusion(self, entry: Checkpoint) -> Files:
        """A diffusers folder, by the names of half precision and with the vocabularies in the form of 2022."""
        kinds = {"sd-turbo": "turbo", "stable-diffusion-xl": "xl", "sdxl-turbo": "xl"}
        folder = Path(diffusion_folder(kinds.get(entry.name, "1.5")))
        files = {}
        for file in entry.files:
            path = folder / file.path.replace(".fp16.", ".")
            files[file.path] = path.read_bytes() if path.is_file() else _old_words()[path.name]
        return files

    def _flow(self, entry: Checkpoint) -> Files:
        """A diffusers folder whose weights are in as many files as published."""
        folder = Path(flow_folder(FLOW_KINDS[entry.name]))
        files: Files = {}
        for file in entry.files:
            whole, _, number = file.path.removesuffix(".safetensors").partition("-0000")
            if number:
                files |= _sharded(folder / f"{whole}.safetensors", whole, int(number.rpartition("-")[2]))
            elif (folder / file.path).is_file() and not _is_of_2022(entry, file.path):
                files[file.path] = (folder / file.path).read_bytes()
        for file in entry.files:  # vocabularies as they were written before tokenizer.json
            if file.path not in files:
                words = Path(file.path).with_name("tokenizer.json")
                old = _words_of(folder / words) if str(words) in files else _old_words()
                files[file.path] = old[Path(file.path).name]
        return files

    def _taesd(self, entry: Checkpoint) -> Files:
        folder = Path(tiny_decoder_folder())
        return {file.path: (folder / file.path).read_bytes() for file in entry.files}


def _is_of_2022(entry: Checkpoint, path: str) -> bool:
    """Whether a file is of a vocabulary that is published without a tokenizer.json."""
    words = str(Path(path).with_name("tokenizer.json"))
    return path.startswith("tokenizer") and all(file.path != words for file in entry.files)


def _sharded(file: Path, name: str, count: int) -> Files:
    """One file of weights as `count` files and their index, as diffusers and transformers write them."""
    tensors = load_file(file)
    names = sorted(tensors)
    shards = [names[k::count] for k in range(count)]
    titles = [f"{name}-{k + 1:05}-of-{count:05}.safetensors" for k in range(count)]
    files = {
        title: save({key: tensors[key] for key in keys}, {"format": "pt"})
        for title, keys in zip(titles, shards, strict=True)
    }
    places = {key: Path(title).name for title, keys in zip(titles, shards, strict=True) for key in keys}
    index = {"metadata": {"total_size": file.stat().st_size}, "weight_map": places}
    return files | {f"{name}.safetensors.index.json": json.dumps(index).encode()}


def _words_of(file: Path) -> Files:
    """vocab.json and merges.txt of a tokenizer.json."""
    model = json.loads(file.read_text("utf-8"))["model"]
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"]]
    lines = "\n".join(["#version: 0.2", *merges, ""])
    return {"vocab.json": json.dumps(model["vocab"]).encode(), "merges.txt": lines.encode()}


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
