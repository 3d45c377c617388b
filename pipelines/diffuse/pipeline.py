"""Diffuse (Rombach et al. 2022; Podell et al. 2023; Sauer et al. 2023): candidates by Stable Diffusion, ranked by CLIP.

diffusers has the networks and the schedulers; the walk is written out here, so that it can be watched and stopped at
every step. From a prompt alone, from a picture (Meng et al. 2022, SDEdit), or within a mask.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from pipelines.clip.ranking import rank
from pipelines.core.pipeline import Picture, Pipeline, Settings, Step, clean_prompt, knob
from pipelines.errors import BadInput
from pipelines.generate.pipeline import Reading, candidate_seed
from pipelines.io.images import on_white, open_picture, picture_to_uri, to_pil, to_tensor
from pipelines.io.masks import read_mask
from pipelines.models.base import Clip
from pipelines.models.unet.network import guess

KINDS = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
KINDS += tuple(one.replace("Pipeline", f"{job}Pipeline") for one in KINDS for job in ("Img2Img", "Inpaint"))
LIBRARIES = (None, "diffusers", "transformers", "stable_diffusion")  # whose classes a folder may name
WEIGHTS = ("unet", "vae", "text_encoder", "text_encoder_2")
LEAST, MOST = 64, 2048  # pixels of a side
GRAIN = 8  # the sides are multiples of this
GLANCE = 32  # latents of a preview's longer side


@dataclass(frozen=True, kw_only=True)
class DiffuseSettings(Settings):
    """What decides a set of candidates. What is 0 or empty is proposed, and written down before the run."""

    negative_prompt: str = knob("", help="what not to draw; needs guidance above 1")
    candidates: int = knob(4, 1, 256, help="how many pictures are drawn and ranked")
    keep: int = knob(4, 1, 64, help="how many of the best are kept")
    width: int = knob(0, 0, MOST, help="in pixels, a multiple of 8; 0 for what the model was made for")
    height: int = knob(0, 0, MOST, help="in pixels, a multiple of 8; 0 for what the model was made for")
    image: str = knob("", help="a picture to start from", kind="picture")
    strength: float = knob(0.75, 0.01, 1.0, help="how far from the picture; 1 forgets it")
    mask: str = knob("", help="a picture, white where the picture is drawn anew", kind="picture")
    steps: int = knob(0, 0, 200, help="of the walk down the noise; 0 for what the model needs", advanced=True)
    guidance: float = knob(
        0.0,
        0.0,
        30.0,
        help="how strongly the prompt steers; 1 is plain sampling, 0 for what the model needs",
        advanced=True,
    )
    hide_duplicates: bool = knob(False, help="keep only one of candidates that look the same", advanced=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.negative_prompt.strip():
            object.__setattr__(self, "negative_prompt", clean_prompt(self.negative_prompt))
        for name in ("width", "height"):
            side = getattr(self, name)
            if 0 < side < LEAST:
                raise BadInput(f"{name} {side} is too small; the least is {LEAST}")
            if side % GRAIN:
                lower = side // GRAIN * GRAIN
                raise BadInput(f"{name} {side} is not a multiple of {GRAIN}; try {lower} or {lower + GRAIN}")
        if self.mask and not self.image:
            raise BadInput("the mask has no picture to be drawn into; give an image too")


@dataclass(frozen=True)
class _Scene:
    """The picture of a run, what the VAE says of it, and where it may change."""

    picture: Image.Image
    latents: Any  # a distribution
    mask: Image.Image | None  # grey, 0 or 255
    small_mask: Tensor | None  # (1, 1, h, w) of 0 and 1, on the grid of latents
    around: Any  # a distribution: the picture without what the mask covers


@dataclass
class Diffuse(Pipeline[DiffuseSettings]):
    """Text, and pictures, to ranked pictures. `diffusion` is a diffusers pipeline of one of KINDS."""

    diffusion: Any
    clip: Clip

    Settings: ClassVar[type[Settings]] = DiffuseSettings

    # ------------------------------------------------------------------------------------------------------ preparing

    def prepare(self, settings: DiffuseSettings) -> DiffuseSettings:
        """Pictures become small PNGs inside the settings, in the size of the run, and what is proposed is written down."""
        if self._completes and not settings.mask:
            raise BadInput("this model only completes pictures; give an image and a mask")
        picture = on_white(open_picture(settings.image)) if settings.image else None
        size = self._size(settings, picture)
        fields: dict[str, Any] = {"width": size[0], "height": size[1]}
        if picture is not None:
            fields["image"] = picture_to_uri(ImageOps.fit(picture, size, Image.Resampling.LANCZOS))
            if settings.mask:
                mask = read_mask(settings.mask, picture.size, None).convert("L")
                light = np.asarray(ImageOps.fit(mask, size, Image.Resampling.BOX))
                mask = Image.fromarray(np.where(light > 127, 255, 0).astype(np.uint8))
                if mask.getbbox() is None:
                    raise BadInput(
                        "the mask is dark everywhere, so nothing may change; paint white where it may"
                    )
                fields["mask"] = picture_to_uri(mask.convert("RGB"))
        distilled, large = self._distilled, self._large
        own = 1 if distilled else 30 if large else 25
        if picture is not None:
            own = max(own, math.ceil(1 / settings.strength))
        fields["steps"] = settings.steps or own
        fields["guidance"] = settings.guidance or (1.0 if distilled else 5.0 if large else 7.5)
        if picture is not None and int(fields["steps"] * settings.strength) < 1:
            least = math.ceil(1 / settings.strength)
            raise BadInput(
                f"strength {settings.strength:g} of {settings.steps} steps leaves none to draw; give {least} steps"
            )
        return replace(settings, **fields)

    def _size(self, settings: DiffuseSettings, picture: Image.Image | None) -> tuple[int, int]:
        """Width and height: as asked for, else as many pixels as the model was made for in the picture's proportions."""
        width, height = float(settings.width), float(settings.height)
        aspect = picture.width / picture.height if picture else 1.0
        if not width and not height:
            side = self.diffusion.unet.config.sample_size * self.diffusion.vae_scale_factor
            width = side * aspect**0.5
        width = width or height * aspect
        height = height or width / aspect
        w, h = (min(max(round(one / GRAIN) * GRAIN, LEAST), MOST) for one in (width, height))
        return w, h

    @property
    def _large(self) -> bool:
        """XL, which reads with two text encoders."""
        return hasattr(self.diffusion, "text_encoder_2")

    @property
    def _completes(self) -> bool:
        """An inpainting network, which sees the mask and what is around it."""
        return self.diffusion.unet.config.in_channels == 9

    @property
    def _distilled(self) -> bool:
        """Turbo, which draws in one step: its folder differs only in how the scheduler spaces the steps."""
        config = self.diffusion.scheduler.config
        return config.get("timestep_spacing") == "trailing" and not config.get("rescale_betas_zero_snr")

    def read_prompt(self, prompt: str) -> Reading:
        """What the model sees of a prompt. It knows every word, by its letters if need be."""
        tokenizer = self.diffusion.tokenizer or self.diffusion.tokenizer_2
        limit = tokenizer.model_max_length - 2
        read = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        spans = read["offset_mapping"]
        cut = prompt[spans[limit][0] :] if len(spans) > limit else ""
        return Reading([prompt[start:end] for start, end in spans[:limit]], limit, cut.strip(), [])

    # -------------------------------------------------------------------------------------------------------- running

    @torch.no_grad()
    def __call__(self, settings: DiffuseSettings) -> Generator[Step, None, list[Picture]]:
        """Draw in batches of one fixed size, so that a candidate's numbers do not depend on its company."""
        seeds = [candidate_seed(settings.seed, k) for k in range(settings.candidates)]
        rows = self._rows(settings)
        scene = self._scene(settings)
        told = self._told(settings, rows)
        drawn: list[Image.Image] = []
        vectors = []
        for first in range(0, len(seeds), rows):
            batch = seeds[first : first + rows]
            latents = yield from self._draw(settings, batch, rows, told, scene, first, len(seeds))
            images = to_pil(torch.cat([self._decoded(one[None]) for one in latents]))
            if scene is not None and scene.mask is not None:
                images = [Image.composite(one, scene.picture, scene.mask) for one in images]
            judged = to_tensor(images).to(self.clip.device)
            vectors.append(self.clip.encode_image(judged)[: len(batch)])
            drawn += images[: len(batch)]
            done = first + len(batch)
            shown = judged[: len(batch)]
            yield Step("rank", done, len(seeds), {}, lambda shown=shown: shown)
        ranking = rank(self.clip, settings.prompt, torch.cat(vectors))
        return [
            Picture(
                drawn[k],
                seeds[k],
                ranking.scores[k],
                ranking.facts(k, seeds),
            )
            for k in ranking.kept(settings.keep, settings.hide_duplicates)
        ]

    def _rows(self, settings: DiffuseSettings) -> int:
        """Candidates drawn together: by the size of the picture alone, and filled up with idle ones where fewer are left.

        A processor gains nothing from company. A GPU does while pictures are small.
        """
        if self._device.type == "cpu":
            return 1
        return min(max(4 * 512**2 // (settings.width * settings.height), 1), 4)

    @property
    def _device(self) -> torch.device:
        return self.diffusion.unet.device

    def _scene(self, settings: DiffuseSettings) -> _Scene | None:
        if not settings.image:
            return None
        picture = open_picture(settings.image).convert("RGB")
        x = to_tensor([picture]).to(self._device)
        latents = self._encoded(x)
        if not settings.mask:
            return _Scene(picture, latents, None, None, None)
        mask = open_picture(settings.mask).convert("L")
        white = torch.from_numpy(np.asarray(mask) > 127).to(x)[None, None]
        small = F.interpolate(white, latents.mean.shape[-2:])
        around = self._encoded(x * (1 - white)) if self._completes else None
        return _Scene(picture, latents, mask, small, around)

    def _told(self, settings: DiffuseSettings, rows: int) -> dict[str, Any]:
        """What the network is told besides the latents; for guidance the negative prompt's rows come first."""
        pipe, guided = self.diffusion, settings.guidance > 1
        asked = (settings.prompt, self._device, 1, guided, settings.negative_prompt or None)
        unet, told = pipe.unet, {}

        def stacked(said: Tensor, blank: Tensor | None) -> Tensor:
            both = [one.expand(rows, *one.shape[1:]) for one in (blank, said) if one is not None]
            return torch.cat(both).to(unet.device, unet.dtype)

        if self._large:
            prompt, device, *rest = asked
            said, blank, said_pooled, blank_pooled = pipe.encode_prompt(prompt, None, device, *rest)
            size = [settings.height, settings.width]
            sizes = torch.tensor([[*size, 0, 0, *size]])  # of the picture, where its crop is, of the crop
            told["added_cond_kwargs"] = {
                "text_embeds": stacked(said_pooled, blank_pooled if guided else None),
                "time_ids": stacked(sizes, sizes if guided else None),
            }
        else:
            said, blank = pipe.encode_prompt(*asked)
        return {**told, "encoder_hidden_states": stacked(said, blank if guided else None)}

    def _draw(
        self,
        settings: DiffuseSettings,
        seeds: list[int],
        rows: int,
        told: dict[str, Any],
        scene: _Scene | None,
        first: int,
        total: int,
    ) -> Generator[Step, None, Tensor]:
        """Draw one batch, a Step per step of the scheduler. Returns (rows, c, h, w) latents, float32 all the way."""
        unet, device = self.diffusion.unet, self._device
        scheduler = copy.deepcopy(self.diffusion.scheduler)  # it counts its steps, and is shared
        scheduler.set_timesteps(settings.steps, device=device)
        times = scheduler.timesteps
        # All chance of a candidate comes from its seed, drawn on the CPU in the order in which diffusers draws it.
        chance = [torch.Generator().manual_seed(seed) for seed in [*seeds, *seeds[:1] * (rows - len(seeds))]]
        mask = None if scene is None else scene.small_mask
        fresh = scene is None or (mask is not None and settings.strength == 1)  # it starts from noise alone
        known = beside = None
        if scene is not None:
            skipped = (settings.steps - int(settings.steps * settings.strength)) * scheduler.order
            times = times[skipped:]
            if hasattr(scheduler, "set_begin_index"):
                scheduler.set_begin_index(skipped)
            if not (fresh and self._completes):
                known = self._sampled(scene.latents, chance)
        shape = (1, self.diffusion.vae.config.latent_channels, *self._grid(settings))
        noise = torch.cat([torch.randn(shape, generator=one) for one in chance]).to(device)
        if fresh or known is None:
            latents = noise * scheduler.init_noise_sigma
        else:
            latents = scheduler.add_noise(known, noise, times[:1])
        if self._completes and scene is not None and mask is not None:
            beside = torch.cat([mask.expand(rows, -1, -1, -1), self._sampled(scene.around, chance)], 1)
        guided = settings.guidance > 1
        extra = self.diffusion.prepare_extra_step_kwargs(chance, 0.0)
        finished = first // rows * len(times)
        work = -(-total // rows) * len(times)
        for k, t in enumerate(times):
            seen = scheduler.scale_model_input(latents, t)
            inputs = seen if beside is None else torch.cat([seen, beside], 1)
            inputs = torch.cat([inputs] * (1 + guided)).to(unet.dtype)
            noise_seen = unet(inputs, t, **told, return_dict=False)[0].float()
            if guided:
                blank, said = noise_seen.chunk(2)
                noise_seen = blank + settings.guidance * (said - blank)
            latents = scheduler.step(noise_seen, t, latents, **extra, return_dict=False)[0]
            if mask is not None and beside is None and known is not None:
                kept = known
                if k + 1 < len(times):
                    kept = scheduler.add_noise(known, noise, times[k + 1 : k + 2])
                latents = (1 - mask) * kept + mask * latents
            present = (seen[: len(seeds)], noise_seen[: len(seeds)], t)
            yield Step("draw", finished + k + 1, work, {}, lambda now=present: self._glance(*now))
        return latents

    # --------------------------------------------------------------------------------------------------------- pixels

    def _grid(self, settings: DiffuseSettings) -> tuple[int, int]:
        """Rows and columns of latents."""
        factor = self.diffusion.vae_scale_factor
        return settings.height // factor, settings.width // factor

    def _encoded(self, x: Tensor) -> Any:
        """(1, 3, h, w) in [-1, 1] -> the distribution of its latents as the VAE gives them."""
        return self.diffusion.vae.encode(x.to(self.diffusion.vae.dtype)).latent_dist

    def _sampled(self, latents: Any, chance: list[torch.Generator]) -> Tensor:
        """(n, c, h, w), one for each generator, as the network wants them: about zero mean and unit variance."""
        drawn = torch.cat([latents.sample(generator=one) for one in chance]).float()
        mean, deviation = self._moments()
        return (drawn - mean) / deviation

    def _decoded(self, latents: Tensor) -> Tensor:
        """(n, c, h, w) latents of the network -> (n, 3, H, W) about [-1, 1]."""
        vae = self.diffusion.vae
        mean, deviation = self._moments()
        return vae.decode((latents * deviation + mean).to(vae.dtype), return_dict=False)[0].float()

    def _moments(self) -> tuple[Tensor | float, Tensor | float]:
        """What the VAE's latents are shifted and scaled by: a number, in some models one for each channel."""
        config = self.diffusion.vae.config
        means, deviations = config.get("latents_mean"), config.get("latents_std")
        if means is None or deviations is None:
            return 0.0, 1 / config.scaling_factor
        mean, deviation = (
            torch.tensor(one, device=self._device).view(1, -1, 1, 1) for one in (means, deviations)
        )
        return mean, deviation / config.scaling_factor

    @torch.no_grad()
    def _glance(self, seen: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the clean pictures look like from here, decoded from few latents, so that looking costs little."""
        alpha = self.diffusion.scheduler.alphas_cumprod[round(t.item())].item()
        kind = self.diffusion.scheduler.config.prediction_type
        if kind == "v_prediction":
            clean = alpha**0.5 * seen - (1 - alpha) ** 0.5 * noise
        else:
            clean = noise if kind == "sample" else guess(seen, noise, alpha)
        fewer = math.ceil(max(clean.shape[-2:]) / GLANCE)
        return self._decoded(F.avg_pool2d(clean, fewer))


def load_diffusers(folder: str | Path, device: torch.device, dtype: torch.dtype = torch.float32) -> Any:
    """The diffusers pipeline in a local folder, frozen: networks in `dtype`, the VAE in float32, which XL's needs.

    Nothing is downloaded, no code in the folder is run, no pickle opened. BadInput when the folder is something else.
    """
    import diffusers
    from safetensors import SafetensorError

    folder = Path(folder)
    kind, parts = _index(folder)
    missing = [one for one in WEIGHTS if one in parts and not any((folder / one).glob("*.safetensors"))]
    if missing:
        raise BadInput(
            f"{folder.name}/{missing[0]} holds no .safetensors weights; get the model in safetensors, for pickles "
            "are not opened"
        )
    plain = folder / "unet" / "diffusion_pytorch_model.safetensors"
    sharded = folder / "unet" / f"{plain.name}.index.json"
    half = not plain.is_file() and not sharded.is_file()
    options: dict[str, Any] = {"variant": "fp16"} if half else {}
    if "XL" in kind:
        options["add_watermarker"] = False
    else:
        options |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    with torch.device("meta"):
        # torch notes at the first such block which of its functions make tensors; while transformers loads, linspace
        # is another one, and a block like this would later miss it.
        torch.empty(0)
    try:
        pipe = getattr(diffusers, kind).from_pretrained(
            folder,
            dtype={"default": dtype, "vae": torch.float32},
            local_files_only=True,
            use_safetensors=True,
            **options,
        )
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        ImportError,
        RuntimeError,
        SafetensorError,
    ) as error:
        reason = " ".join(str(error).split())[:120]
        raise BadInput(f"the model {folder.name} cannot be loaded ({reason}); get the folder again") from None
    if pipe.config.get("requires_aesthetics_score") or pipe.unet.config.time_cond_proj_dim is not None:
        raise BadInput(
            f"the model {folder.name} is a refiner or a consistency model; give Stable Diffusion itself"
        )
    if pipe.unet.config.in_channels not in (4, 9):
        raise BadInput(
            f"the unet of {folder.name} has {pipe.unet.config.in_channels} channels; it must be 4 or 9"
        )
    for one in WEIGHTS:
        if (network := getattr(pipe, one, None)) is not None:
            network.eval().requires_grad_(False)
            network.to(device)
    return pipe


def _index(folder: Path) -> tuple[str, list[str]]:
    """The class that a folder's model_index.json names, and the parts that it has."""
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise BadInput(
            f"{folder.name} is no diffusers folder: it has no readable model_index.json; give the folder that holds it"
        ) from None
    kind = index.get("_class_name") if isinstance(index, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise BadInput(f"{folder.name} is a {str(kind)[:60]}; Generate takes {', '.join(KINDS[:2])}")
    parts = {name: one for name, one in index.items() if isinstance(one, list) and len(one) == 2}
    for name, (library, _) in parts.items():
        if library not in LIBRARIES:
            raise BadInput(
                f"{folder.name} wants code of its own for {name[:40]}, which is not run; give a plain model"
            )
    return kind, [name for name, (library, _) in parts.items() if library is not None]
