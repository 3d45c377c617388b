"""Loads Stable Diffusion, or a rectified flow, from a local diffusers folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from pipelines.errors import BadInput, one_line
from pipelines.io.values import is_dict, is_list
from pipelines.models.attention import open_attention
from pipelines.models.checkpoint import check_finite

TEXT_KINDS = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
KINDS = (
    *TEXT_KINDS,
    *(kind.replace("Pipeline", f"{job}Pipeline") for kind in TEXT_KINDS for job in ("Img2Img", "Inpaint")),
)
FLOW_KINDS = (
    "ZImagePipeline", "Flux2KleinPipeline", "FluxPipeline", "StableDiffusion3Pipeline", "SanaSprintPipeline"
)  # fmt: skip
LIBRARIES = (None, "diffusers", "transformers", "stable_diffusion")  # whose classes a folder may name
UNREADABLE = (  # what diffusers raises for a folder that it cannot load
    OSError, ValueError, LookupError, TypeError, AttributeError, ImportError, RuntimeError, SafetensorError
)  # fmt: skip
WEIGHTS = ("unet", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")


def load_diffusers(folder: str | Path, device: torch.device, dtype: torch.dtype = torch.float32) -> Any:
    """The diffusers pipeline in a local folder, without gradients: networks in `dtype`, the VAE in float32.

    XL's VAE overflows in float16. Nothing is downloaded, no code in the folder is run, no pickle is opened. BadInput when
    the folder is of another class than KINDS and FLOW_KINDS, cannot be loaded, or has weights that are not finite.
    """
    import diffusers

    folder = Path(folder)
    kind, parts = _index(folder)
    options = _options(folder, kind, parts)
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
    except UNREADABLE as error:
        raise BadInput("diffuse.model_damaged", model=folder.name, reason=one_line(error, 120)) from None
    if kind in KINDS:
        _check_kind(pipe, folder.name)
    for name in WEIGHTS:
        if (network := getattr(pipe, name, None)) is not None:
            network.eval().requires_grad_(False)
            check_finite(dict(network.named_parameters()), f"{folder.name}/{name}")
            network.to(device)
    if (unet := getattr(pipe, "unet", None)) is not None:
        open_attention(unet)
    return pipe


def _options(folder: Path, kind: str, parts: list[str]) -> dict[str, Any]:
    """Arguments of `from_pretrained` for the folder. BadInput when a network has no safetensors file."""
    for name in WEIGHTS:
        if name in parts and not any((folder / name).glob("*.safetensors")):
            raise BadInput("diffuse.no_safetensors", model=folder.name, part=name)
    if kind in FLOW_KINDS:
        return {}
    plain = folder / "unet" / "diffusion_pytorch_model.safetensors"
    sharded = folder / "unet" / f"{plain.name}.index.json"
    half = not plain.is_file() and not sharded.is_file()
    options: dict[str, Any] = {"variant": "fp16"} if half else {}
    if "XL" in kind:
        return {**options, "add_watermarker": False}
    return {**options, "safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


def _check_kind(pipe: Any, name: str) -> None:
    """BadInput when the networks are not those of Stable Diffusion itself."""
    if pipe.config.get("requires_aesthetics_score") or pipe.unet.config.time_cond_proj_dim is not None:
        raise BadInput("diffuse.refiner", model=name)
    if pipe.unet.config.in_channels not in (4, 9):
        raise BadInput("diffuse.unet_channels", model=name, channels=pipe.unet.config.in_channels)


def _index(folder: Path) -> tuple[str, list[str]]:
    """The class that a folder's model_index.json names, and the names of its parts. BadInput for other folders."""
    try:
        index: Any = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise BadInput("diffuse.no_model_index", folder=folder.name) from None
    kind = index.get("_class_name") if is_dict(index) else None
    if not isinstance(kind, str) or kind not in (*KINDS, *FLOW_KINDS):
        names = ", ".join((*TEXT_KINDS, *FLOW_KINDS))
        raise BadInput("diffuse.other_pipeline", model=folder.name, kind=str(kind)[:60], known=names)
    parts: dict[str, list[Any]] = {
        name: part for name, part in index.items() if is_list(part) and len(part) == 2
    }
    for name, (library, _) in parts.items():
        if library not in LIBRARIES:
            raise BadInput("diffuse.own_code", model=folder.name, part=name[:40])
    return kind, [name for name, (library, _) in parts.items() if library is not None]
