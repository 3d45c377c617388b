"""The Studio owns the device and the loaded models. Each model is loaded once and shared by all pipelines."""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from pipelines.core.pipeline import Pipeline
from pipelines.diffuse.pipeline import Diffuse
from pipelines.edit.pipeline import Edit
from pipelines.edit.source_images import SourceImages
from pipelines.errors import BadInput
from pipelines.generate.pipeline import Generate
from pipelines.guide.pipeline import Guide
from pipelines.models.base import Clip
from pipelines.models.checkpoint import META_INIT_LOCK, file_hash, load_weights, read_header, read_kind
from pipelines.models.device import choose_device, dtype_of, make_room, networks_of
from pipelines.models.flow.network import FLOWS
from pipelines.models.latent_diffusion import LatentDiffusion, Previewer
from pipelines.models.matting.network import Matting
from pipelines.models.prior.denoiser import PriorDenoiser
from pipelines.models.prior.diffusion import PriorDiffusion
from pipelines.models.spec import SPECS, families
from pipelines.models.stable_diffusion.denoiser import StableDenoiser
from pipelines.models.stable_diffusion.load import load_diffusers
from pipelines.models.stable_diffusion.network import StableDiffusion
from pipelines.models.stable_diffusion.previewer import load_previewer
from pipelines.optimize.pipeline import Optimize
from pipelines.weights.catalog import (
    DENOISING,
    MATTING,
    PREVIEW,
    check_use,
    checkpoint_of,
    needed,
    parts,
    reader_of,
    with_readers,
)
from pipelines.weights.checkpoint import Checkpoint
from pipelines.weights.codecs import check_codecs, second_stage
from pipelines.weights.manifest import check_pack

READER = "reader:"  # begins the role, in a record, of what another model reads texts with
PIPELINES: dict[str, type[Pipeline[Any]]] = {
    "generate": Generate,
    "optimize": Optimize,
    "guide": Guide,
    "edit": Edit,
    "diffuse": Diffuse,
}


class Studio:
    """Loads the models of a pack, each at most once. Loaded networks are frozen and shared, so do not change them.

    `pack` is a name in PACKS. `device` is "auto", "cpu", "cuda" or another name that torch knows. `use` replaces parts of
    the pack's pipelines, for example {"clip": "clip-vit-l-14"}. BadInput for an unknown pack, part, model or device.
    A studio may be used by several threads.
    """

    def __init__(self, pack: str = "tiny", device: str = "auto", use: dict[str, str] | None = None):
        self.pack: str = pack
        self.use: dict[str, str] = dict(use or {})
        self.torch_device = choose_device(device)
        check_use(pack, self.use)
        self._loaded: dict[str, Any] = {}
        self._lent: dict[str, Any] = {}
        self._hashes: dict[str, str] = {}
        self._written: dict[str, tuple[int, int]] = {}  # when the loaded files were, and their inodes
        self._lock = threading.RLock()

    @property
    def device(self) -> str:
        """The device's name in torch, such as "cpu" or "cuda:0"."""
        return str(self.torch_device)

    def switch(self, pack: str) -> None:
        """Change to another pack. Models that both packs use stay loaded.

        BadInput for an unknown pack or when files of it are missing; the studio is then unchanged.
        """
        _check_present(f"the pack {pack}", needed(pack, self.use))
        with self._lock:
            self.pack = pack
            names = {checkpoint.name for checkpoint in needed(pack, self.use)}
            self._loaded = {name: part for name, part in self._loaded.items() if name in names}
            self._hashes = {name: digest for name, digest in self._hashes.items() if name in names}

    def choose(self, part: str, name: str = "", pack: str = "") -> None:
        """Give a part of the pack to another model, such as "clip" to "clip-vit-l-14"; "" gives it back to the pack's own.

        With `pack` it also changes to that pack, of which other models may be missing, as at the start. Models that are
        still used stay loaded. BadInput for an unknown part, model or pack, a model of another role, or one whose files
        are missing; the studio is then unchanged.
        """
        pack = pack or self.pack
        use = {field: model for field, model in self.use.items() if field != part}
        if name:
            use[part] = name
            check_use(pack, {part: name})
            _check_present("this", with_readers([name]))
        with self._lock:
            names = {checkpoint.name for checkpoint in needed(pack, use)}
            self.pack, self.use = pack, use
            self._loaded = {model: loaded for model, loaded in self._loaded.items() if model in names}

    def on(self, device: str) -> Studio:
        """A studio with the same pack on another device. It takes over this one's networks; do not use this one again."""
        other = Studio(self.pack, device, self.use)
        other._lent = dict(self._loaded)
        return other

    def load(self, name: str) -> Any:
        """The network, tokenizer or set of pictures of a checkpoint, by its name; loaded again when its file is another.

        Networks are in evaluation mode, without gradients, on the device. BadInput when the name is unknown, or its file
        is missing or damaged.
        """
        checkpoint = checkpoint_of(name)
        with self._lock:
            written = _written(checkpoint.path)
            if name in self._lent:
                self._loaded[name] = self._take_over(checkpoint, self._lent.pop(name))
                self._written[name] = written
            if name in self._loaded and written != self._written[name] and checkpoint.present:
                del self._loaded[name]  # a training has written it anew
                self._hashes.pop(name, None)
            if name not in self._loaded:
                _check_present("this", [checkpoint])
                self._loaded[name], self._written[name] = self._read(checkpoint), written
            return self._loaded[name]

    def pipeline(self, name: str) -> Pipeline[Any]:
        """A pipeline of the pack, with its models loaded and on the device.

        `name` is a name in PIPELINES. BadInput when the pack has no such pipeline, when files are missing, or when two
        of its models do not fit together.
        """
        with self._lock:
            names = parts(self.pack, name, self.use)
            _check_present(f"{name} in the pack {self.pack}", with_readers(names.values()))
            check_codecs(names)
            models = {field: self.load(checkpoint) for field, checkpoint in names.items()}
            _check_fit(models)
            make_room(models.values(), self._loaded.values(), self.torch_device)
            pipeline = PIPELINES[name](**self._fields(name, models))
            pipeline.with_models = partial(self._with_models, name)
            if isinstance(pipeline, Generate):
                pipeline.second_stage = self._by_second_stage
            return pipeline

    def _by_second_stage(self) -> tuple[Generate, dict[str, dict[str, str]]]:
        """Generate with the pack's second stage, and its models. BadInput when the pack has none, or its codec is gone."""
        use = second_stage(self.pack)
        if not use:
            raise BadInput("generate.no_second_stage")
        pipeline, models = self._with_models("generate", use)
        return cast(Generate, pipeline), models

    def _with_models(self, name: str, use: dict[str, str]) -> tuple[Pipeline[Any], dict[str, dict[str, str]]]:
        """A pipeline with other models in parts of the pack, and its models as records name them. BadInput as ever.

        What both use is loaded once; what is new stays loaded here as long as this pack is in use.
        """
        check_use(self.pack, use)
        with self._lock:
            before, self.use = self.use, self.use | use
            try:
                return self.pipeline(name), self.models(name)
            finally:
                self.use = before

    def models(self, name: str) -> dict[str, dict[str, str]]:
        """The models of a pipeline, for the record: role -> {"name", "sha256"}, the SHA-256 being that of the file.

        Vocabularies and text encoders that no field names are told under READER and their name. BadInput when the pack
        has no such pipeline.
        """
        facts: dict[str, dict[str, str]] = {}
        names = parts(self.pack, name, self.use)
        names.pop(PREVIEW, None)  # decides no pixel of a picture
        read = [checkpoint.name for checkpoint in with_readers(names.values())]
        if "prior" in names:
            read.append(reader_of(self.pack, name))
        apart = {READER + reader: reader for reader in read if reader not in names.values()}
        for field, checkpoint in (names | apart).items():
            with self._lock:
                if checkpoint not in self._hashes:
                    self._hashes[checkpoint] = _hash(checkpoint_of(checkpoint).path)
            facts[field] = {"name": checkpoint, "sha256": self._hashes[checkpoint]}
        return facts

    def clip(self) -> Clip:
        """The pack's CLIP, loaded. Generate ranks with it and the library searches with it."""
        return self.load(parts(self.pack, "optimize", self.use)["clip"])

    def critic(self) -> Clip | None:
        """The pack's critic, loaded; None where its Optimize has none."""
        name = parts(self.pack, "optimize", self.use).get("critic")
        return None if name is None else self.load(name)

    def matting(self) -> Matting:
        """What cuts things out of pictures, loaded; the same for every pack."""
        return self.load(MATTING)

    def _fields(self, name: str, models: dict[str, Any]) -> dict[str, Any]:
        """The fields of a pipeline from its models.

        A prior with its codec, or a pipeline of diffusers, is a denoiser in Edit and Guide and elsewhere `diffusion`. A
        prior reads by the CLIP of its pack, which it was trained with. `use` replaces the CLIP that judges.
        """
        fields = dict(models)
        if "prior" in fields:
            reader = self.load(reader_of(self.pack, name))
            diffusion = PriorDiffusion(fields.pop("prior"), fields.pop("codec"), reader)
            fields |= {"unet": PriorDenoiser(diffusion)} if name in DENOISING else {"diffusion": diffusion}
        elif "diffusion" in fields:
            pipe = fields.pop("diffusion")
            flow = FLOWS.get(type(pipe).__name__)
            if flow is not None and name in DENOISING:
                raise BadInput("studio.flow_only_draws", pipeline=name)
            diffusion: Any = StableDiffusion(pipe) if flow is None else flow(pipe)
            _check_preview(diffusion, fields.get(PREVIEW))
            if flow is not None:
                return fields | {"diffusion": diffusion}
            fields |= {"unet": StableDenoiser(diffusion)} if name in DENOISING else {"diffusion": diffusion}
        return fields

    def _read(self, checkpoint: Checkpoint) -> Any:
        if checkpoint.role == "tokenizer":
            return _read_tokenizer(checkpoint)
        if checkpoint.role == "pictures":
            return SourceImages.load(checkpoint.path)
        if checkpoint.role == "diffusion":
            device = self.torch_device
            return load_diffusers(checkpoint.path, device, dtype_of(checkpoint.kind, device))
        if checkpoint.role == PREVIEW:
            return load_previewer(checkpoint.path, self.torch_device)
        return self._read_network(checkpoint)

    def _read_network(self, checkpoint: Checkpoint) -> nn.Module:
        """A file's network, frozen, in evaluation mode, on the device. BadInput when no row of SPECS fits the file."""
        from accelerate import init_empty_weights  # pyright: ignore[reportMissingTypeStubs]

        kind = read_kind(checkpoint.path) or checkpoint.kind
        if kind not in SPECS or not SPECS[kind].network:
            raise BadInput("studio.kind_unknown", file=checkpoint.path.name, kind=kind[:40])
        spec, values = SPECS[kind], read_header(checkpoint.path)[0]
        config_type, network_type = spec.part("config"), spec.part("network")
        vocabulary = checkpoint.vocabulary if kind == checkpoint.kind else spec.vocabulary
        extra = [self.load(name) for name in (vocabulary, spec.text_encoder) if name]
        try:
            config: Any = config_type.from_dict(values)
            with META_INIT_LOCK, init_empty_weights():  # no time and memory for numbers that are thrown away
                network: nn.Module = network_type(config, *extra)
        except BadInput:  # the config says itself what is wrong
            raise
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RuntimeError) as error:
            raise BadInput("studio.config_strange", file=checkpoint.path.name) from error
        if vocabulary and extra[0].vocabulary_size > config.vocabulary_size:
            raise BadInput(
                "studio.vocabulary_too_large",
                model=checkpoint.name,
                known=config.vocabulary_size,
                vocabulary=vocabulary,
                count=extra[0].vocabulary_size,
            )
        load_weights(checkpoint.path, network, dtype_of(kind, self.torch_device))
        convert_conv2d_weight_memory_format(network, torch.channels_last)
        return network.eval().requires_grad_(False).to(self.torch_device)

    def _take_over(self, checkpoint: Checkpoint, part: Any) -> Any:
        """A model that another studio has loaded, moved to this one's device and to the precision used there."""
        device = self.torch_device
        kind = (
            checkpoint.kind
            if checkpoint.role == "diffusion"
            else read_kind(checkpoint.path) or checkpoint.kind
        )
        for network in networks_of(part):
            kept = network is getattr(part, "vae", None)  # Stable Diffusion's stays in float32
            network.to(device=device, dtype=None if kept else dtype_of(kind, device))
        return part


def _check_present(what: str, checkpoints: list[Checkpoint]) -> None:
    """BadInput when files of models are missing, or when one of the tiny pack's is not as it was shipped."""
    check_pack(checkpoint.path for checkpoint in checkpoints if checkpoint.pack == "tiny")
    if gone := [
        checkpoint.name for checkpoint in checkpoints if not checkpoint.present and checkpoint.pack != "tiny"
    ]:
        raise BadInput("studio.models_missing", what=what, models=", ".join(gone), first=gone[0])


def _check_fit(models: dict[str, Any]) -> None:
    """BadInput when a DALL·E can draw image tokens that its codec does not have."""
    if "dalle" in models:
        drawn, known = models["dalle"].config.image_vocabulary, len(models["vqgan"].codes)
        if drawn > known:
            raise BadInput("studio.codec_too_small", drawn=drawn, known=known)


def _check_preview(model: LatentDiffusion, preview: Previewer | None) -> None:
    """BadInput when a decoder of previews reads other latents than those of the model."""
    if preview is not None and preview.latent_channels != model.latent_channels:
        raise BadInput(
            "studio.preview_of_others", reads=preview.latent_channels, channels=model.latent_channels
        )


def _read_tokenizer(checkpoint: Checkpoint) -> Any:
    """A vocabulary of the catalog, or one that the user added, whose kind is the first that can read it."""
    if checkpoint.spec.tokenizer:
        return checkpoint.spec.part("tokenizer").load(checkpoint.path)
    for spec in (row for rows in families(vocabularies=True).values() for row in rows):
        with suppress(BadInput):
            return spec.part("tokenizer").load(checkpoint.path)
    raise BadInput("studio.vocabulary_unknown", file=checkpoint.path.name)


def _written(path: Path) -> tuple[int, int]:
    """When a file or folder was written, in nanoseconds, and its inode; zeros where there is none."""
    with suppress(OSError):
        facts = path.stat()
        return facts.st_mtime_ns, facts.st_ino
    return 0, 0


def _hash(path: Path) -> str:
    """A file's SHA-256. For a folder, the SHA-256 over the names and hashes of its files, in order of their names."""
    if path.is_file():
        return file_hash(path)
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        if file.is_file():
            digest.update(json.dumps([file.relative_to(path).as_posix(), file_hash(file)]).encode())
    return digest.hexdigest()
