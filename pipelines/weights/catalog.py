"""The models that can be loaded: CHECKPOINTS by name, and PACKS, which name the models of each pipeline of a pack.

The tiny pack is part of the project. All other models are in the models folder after they were fetched or added.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from pipelines.errors import BadInput
from pipelines.io.tensors import open_tensors
from pipelines.io.values import is_dict
from pipelines.models.checkpoint import read_kind
from pipelines.weights.checkpoint import PROJECT, Checkpoint, size_of
from pipelines.weights.install import find, installed
from pipelines.weights.open_weights import OPEN_WEIGHTS
from pipelines.weights.own_packs import models_of, own_packs, part_named

ASSETS = PROJECT / "assets"
TINY_LICENCE = "MIT, trained on Apache-2.0, MIT and CC-BY-4.0 art (assets/NOTICE)"
TINY_ORIGIN = "trained by this project: python launch.py train"


def _tiny(
    role: str,
    file: str,
    about: str,
    licence: str = TINY_LICENCE,
    origin: str = TINY_ORIGIN,
    name: str = "",
) -> Checkpoint:
    """A model of the tiny pack, whose kind is its role, and its name too unless one is given.

    The critic is of the kind "clip"; pictures have no kind.
    """
    kind = {"critic": "clip", "pictures": ""}.get(role, role)
    return Checkpoint(
        f"tiny-{name or role}",
        kind,
        licence,
        origin,
        about,
        pack="tiny",
        role=role,
        file=f"assets/tiny/{file}",
    )


TINY = (
    _tiny("tokenizer", "tokenizer.json", "byte-level BPE, English and Chinese"),
    _tiny("clip", "clip.safetensors", "CLIP: the judge, 128 x 128 pictures, English and Chinese"),
    _tiny("critic", "critic.safetensors", "a second CLIP that judges Optimize and Edit and steers nothing"),
    _tiny(
        "vqgan", "vqgan.safetensors", "VQGAN: 128 x 128 pictures to the DALL·E's 8 x 8 image tokens and back"
    ),
    _tiny(
        "vqgan",
        "codec.safetensors",
        "a crisper VQGAN of 16 x 16 tokens: Optimize's, and the prior's latents",
        name="codec",
    ),
    _tiny("dalle", "dalle.safetensors", "DALL·E: text to semantic tokens to image tokens"),
    _tiny(
        "prior",
        "prior.safetensors",
        "a latent diffusion model: text to latents of tiny-codec; Edit's base too",
    ),
    _tiny("unet", "unet.safetensors", "a diffusion model of 64 x 64 pictures"),
    _tiny("matting", "matting.safetensors", "cuts things out: a picture to its opacity"),
    _tiny(
        "pictures",
        "pictures.safetensors",
        "640 small pictures, from which Edit learns its directions",
        "Apache-2.0, MIT and CC-BY-4.0 art (assets/NOTICE)",
        "icons of six open sets, made smaller: python launch.py data --examples",
    ),
)
MATTING = "tiny-matting"  # which every pack exports with
CHECKPOINTS: dict[str, Checkpoint] = {checkpoint.name: checkpoint for checkpoint in TINY} | OPEN_WEIGHTS


def is_known(name: str) -> bool:
    """Whether the catalog, a user's pack or the models folder has a model of this name."""
    return name in CHECKPOINTS or part_named(name) is not None or find(name) is not None


def checkpoint_of(name: str) -> Checkpoint:
    """A checkpoint by its name, of the catalog or the user's. BadInput, with the known names, for other names."""
    if name in CHECKPOINTS:
        return CHECKPOINTS[name]
    if (part := part_named(name)) is not None:
        return part
    path = find(name)
    if path is None:
        known = ", ".join(dict.fromkeys([*CHECKPOINTS, *installed()]))
        raise BadInput("weights.model_unknown", model=name[:64], known=known)
    facts: dict[str, Any] = {}
    if path.is_dir():
        kind, role = folder_kind(path), ""
    elif path.suffix == ".safetensors":
        kind, role, facts = read_kind(path), "", facts_of(path)
    else:  # a vocabulary, which tells what it is when it is read
        kind, role = "", "tokenizer"
    return Checkpoint(
        name,
        kind,
        licence=str(facts.get("licence", "the user's own file")),
        origin=str(facts.get("origin", "added by the user")),
        about="",
        pack="own",
        role=role,
        file=str(path.absolute()),
        working=2 * size_of(path),
    )


def folder_kind(path: Path) -> str:
    """The kind of a folder of diffusers: "flow" or "diffusion" by the parts of a pipeline, "taesd" for a tiny decoder."""
    if _of_json(path / "config.json").get("_class_name") == "AutoencoderTiny":
        return "taesd"
    return "flow" if "transformer" in _of_json(path / "model_index.json") else "diffusion"


def _of_json(path: Path) -> dict[str, Any]:
    """A file's JSON object. Empty where there is none: who loads the model will say what is wrong with it."""
    try:
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if is_dict(values) else {}


def facts_of(path: Path) -> dict[str, Any]:
    """What was written beside the weights of a file: licence, origin, sources, training. Empty when it has none."""
    try:
        with open_tensors(path, "np") as file:
            facts = json.loads((file.metadata() or {}).get("facts", "{}"))
    except (SafetensorError, OSError, ValueError):
        return {}
    return facts if is_dict(facts) else {}


# pipelines whose model is a denoiser: of pixels, or of latents, which have these parts
DENOISING = ("edit", "guide")
_LATENT = ("prior", "codec", "diffusion")
PREVIEW = "preview"  # the part that decodes previews, where a pack draws by a folder of diffusers
_PRIOR = {"prior": "tiny-prior", "codec": "tiny-codec"}
_JUDGES = {"clip": "clip-vit-b-32", "critic": "clip-vit-b-16"}


def _dalle(dalle: str, tokenizer: str, vqgan: str) -> dict[str, str]:
    return {"tokenizer": tokenizer, "dalle": dalle, "vqgan": vqgan, "clip": _JUDGES["clip"]}


_MEGA = _dalle("dalle-mega", "dalle-mega-tokenizer", "vqgan-dalle-mini")
_MINI = _dalle("dalle-mini", "dalle-mini-tokenizer", "vqgan-dalle-mini")
_MALEVICH = _dalle("rudalle-malevich", "rudalle-tokenizer", "vqgan-rudalle")
_OPTIMIZE = {"vqgan": "vqgan-f16-16384", **_JUDGES}
_CHINESE = {"vqgan": "vqgan-f16-16384", "clip": "clip-chinese-vit-b-16", "critic": "clip-chinese-vit-b-16"}


def _denoising(unet: str) -> dict[str, dict[str, str]]:
    """The pipelines that work by a denoiser of pixels."""
    return {pipeline: {"unet": unet, **_JUDGES} for pipeline in DENOISING}


def _flow(diffusion: str) -> dict[str, dict[str, str]]:
    return {
        "diffuse": {"diffusion": diffusion, "clip": _JUDGES["clip"]},
        "optimize": _OPTIMIZE,
        **_denoising("ddpm-ema-celebahq-256"),
    }


def _latent(diffusion: str) -> dict[str, dict[str, str]]:
    return {**_flow(diffusion), "guide": {"diffusion": diffusion, **_JUDGES}}


# pack -> pipeline -> field of the pipeline -> checkpoint
PACKS: dict[str, dict[str, dict[str, str]]] = {
    "tiny": {
        "generate": {
            "tokenizer": "tiny-tokenizer",
            "dalle": "tiny-dalle",
            "vqgan": "tiny-vqgan",
            "clip": "tiny-clip",
            **_PRIOR,
        },
        "optimize": {"vqgan": "tiny-codec", "clip": "tiny-clip", "critic": "tiny-critic", **_PRIOR},
        "edit": {
            **_PRIOR,
            "clip": "tiny-clip",
            "critic": "tiny-critic",
            "pictures": "tiny-pictures",
        },
        "guide": {**_PRIOR, "clip": "tiny-clip", "critic": "tiny-critic"},
        "diffuse": {**_PRIOR, "clip": "tiny-clip"},
    },
    "full": {"generate": _MEGA, "optimize": _OPTIMIZE, **_denoising("ddpm-ema-celebahq-256")},
    "mini": {"generate": _MINI, "optimize": _OPTIMIZE, **_denoising("ddpm-ema-celebahq-256")},
    "malevich": {"generate": _MALEVICH, "optimize": _OPTIMIZE, **_denoising("ddpm-ema-celebahq-256")},
    "chinese": {"generate": _MINI, "optimize": _CHINESE, **_denoising("ddpm-ema-celebahq-256")},
    "church": {"generate": _MEGA, "optimize": _OPTIMIZE, **_denoising("ddpm-ema-church-256")},
    "bedroom": {"generate": _MEGA, "optimize": _OPTIMIZE, **_denoising("ddpm-ema-bedroom-256")},
    "sd-1.5": _latent("stable-diffusion-1.5"),
    "sd-2.1": _latent("stable-diffusion-2.1"),
    "sd-turbo": _latent("sd-turbo"),
    "sd-xl": _latent("stable-diffusion-xl"),
    "sdxl-turbo": _latent("sdxl-turbo"),
    "z-image": _flow("z-image-turbo"),
    "flux2-klein": _flow("flux2-klein-4b"),
    "flux1-schnell": _flow("flux1-schnell"),
    "sd-3.5": _flow("stable-diffusion-3.5-medium"),
    "sana-sprint": _flow("sana-sprint-0.6b"),
}


def pack_names() -> list[str]:
    """The packs there are: those of PACKS, then the user's."""
    return [*PACKS, *(name for name in own_packs() if name not in PACKS)]


def has_pack(pack: str) -> bool:
    """Whether there is a pack of this name."""
    return pack in PACKS or bool(models_of(pack))


def pipelines_of(pack: str) -> dict[str, dict[str, str]]:
    """The models of a pack: pipeline -> field of the pipeline -> checkpoint's name. BadInput for an unknown pack."""
    pipelines = PACKS.get(pack) or models_of(pack)
    if not pipelines:
        raise BadInput("weights.pack_unknown", pack=pack[:64], known=", ".join(pack_names()))
    return pipelines


def reader_of(pack: str, pipeline: str) -> str:
    """The CLIP that the prior of a pack's pipeline reads by: the one that it was trained with."""
    models = pipelines_of(pack)[pipeline]
    return "tiny-clip" if models.get("prior") == "tiny-prior" else models["clip"]


def check_use(pack: str, use: dict[str, str]) -> None:
    """Check replacements of a pack's parts, field -> checkpoint's name.

    BadInput for an unknown pack, a field or a name that is not known, or a model of another role.
    """
    usual = _replaceable(pack)
    for field, name in use.items():
        if field not in usual:
            raise BadInput("weights.part_unknown", part=field[:64], pack=pack, known=", ".join(sorted(usual)))
        purpose, usual_purpose = (_purpose(checkpoint_of(model)) for model in (name, usual[field]))
        if purpose != usual_purpose:
            raise BadInput("weights.part_of_other_kind", model=name, part=field, usual=usual[field])


def _replaceable(pack: str) -> dict[str, str]:
    """The parts of a pack that another model may replace -> the model that usually has the part."""
    usual = {field: name for fields in pipelines_of(pack).values() for field, name in fields.items()}
    if "prior" in pipelines_of(pack).get("edit", {}):
        usual.setdefault("unet", "tiny-unet")
    if "diffusion" in pipelines_of(pack).get("diffuse", {}):
        usual.setdefault(PREVIEW, "taesd")
    return usual


def fields_for(pack: str, checkpoint: Checkpoint) -> list[str]:
    """The parts of a pack that this model could have. None for an unknown pack, or for a model without a role."""
    if not has_pack(pack) or not checkpoint.role:
        return []
    purposes = {field: _purpose(checkpoint_of(name)) for field, name in _replaceable(pack).items()}
    return [field for field, purpose in purposes.items() if purpose == _purpose(checkpoint)]


def _purpose(checkpoint: Checkpoint) -> str:
    """The checkpoint's role, with "clip" for a critic, because any CLIP can be one."""
    return "clip" if checkpoint.role == "critic" else checkpoint.role


def parts(pack: str, pipeline: str, use: dict[str, str] | None = None) -> dict[str, str]:
    """The models of a pipeline in a pack: field of the pipeline -> checkpoint's name.

    `use` replaces some of them, for example {"clip": "clip-vit-l-14"}. In Edit and Guide a "unet", a denoiser of
    pixels, replaces one of latents. In Diffuse a "preview" is one part more. BadInput for an unknown pack, and for a
    pipeline that the pack does not have.
    """
    pipelines = pipelines_of(pack)
    if pipeline not in pipelines:
        raise BadInput(
            "weights.pipeline_not_in_pack", pipeline=pipeline, pack=pack, known=", ".join(pipelines)
        )
    names, use = pipelines[pipeline], use or {}
    if pipeline in DENOISING and "unet" in use:
        names = {"unet": use["unet"]} | {k: name for k, name in names.items() if k not in _LATENT}
    if pipeline == "diffuse" and "diffusion" in names and PREVIEW in use:
        names = names | {PREVIEW: use[PREVIEW]}
    return {field: use.get(field, name) for field, name in names.items()}


def needed(pack: str, use: dict[str, str] | None = None) -> list[Checkpoint]:
    """All checkpoints of a pack with what they read texts with, each once. BadInput for an unknown pack or name."""
    return with_readers(
        name for pipeline in pipelines_of(pack) for name in parts(pack, pipeline, use).values()
    )


def with_readers(names: Iterable[str]) -> list[Checkpoint]:
    """These checkpoints and, after them, the text encoders and vocabularies that they read with, each once.

    BadInput for an unknown name.
    """
    checkpoints = [checkpoint_of(name) for name in dict.fromkeys(names)]
    checkpoints += [checkpoint_of(one.spec.text_encoder) for one in checkpoints if one.spec.text_encoder]
    checkpoints += [checkpoint_of(one.vocabulary) for one in checkpoints if one.vocabulary]
    return list({checkpoint.name: checkpoint for checkpoint in checkpoints}.values())


def memory_needed(pack: str, pipeline: str, use: dict[str, str] | None = None) -> int:
    """An estimate of the bytes that a pipeline of a pack needs on the device. 0 for the tiny pack, which is small."""
    return sum(checkpoint_of(name).memory for name in parts(pack, pipeline, use).values())
