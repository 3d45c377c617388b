"""More open weights as data: judges of many kinds, codecs, and diffusion models, beside those of `open_weights.py`.

Sizes that nobody states are about right. A "judge" in `about` scores well; a guide gives a good gradient.
"""

from __future__ import annotations

from pipelines.weights.checkpoint import Checkpoint, File
from pipelines.weights.entries import GB, NO_LICENCE, WEIGHTS, clip_of_openai, hub, hub_folder, vqgan
from pipelines.weights.known_files import HUB, SOMNAI

ADM = "https://openaipublic.blob.core.windows.net/diffusion/jul-2021"


def _clip(
    name: str, repository: str, names: tuple[str, ...], licence: str, about: str, parameters: int,
    megabytes: int, kind: str = "openai-clip",
) -> Checkpoint:  # fmt: skip
    return Checkpoint(
        name=name,
        kind=kind,
        files=hub(repository, *names),
        licence=licence,
        origin=repository,
        about=about,
        parameters=parameters,
        working=GB,
        megabytes=megabytes,
    )


def _adm(name: str, file: File, licence: str, origin: str, about: str, millions: float) -> Checkpoint:
    return Checkpoint(
        name=name,
        kind="ddpm",
        files=(file,),
        licence=licence,
        origin=origin,
        about=about,
        parameters=round(millions * 1e6),
        working=5 * GB,
        megabytes=round(4 * millions),
    )


def _pytti(name: str, folder: str, sha256: str, about: str, millions: float, megabytes: int) -> Checkpoint:
    file = File(f"{SOMNAI}/{folder}/{folder}.ckpt", sha256)
    return vqgan(name, file, about, millions, megabytes, "taming-transformers (2021), kept by PyTTI")


def _flow(
    name: str, repository: str, parts: dict[str, int], tokenizers: tuple[tuple[str, ...], ...], licence: str,
    about: str, millions: float, megabytes: int,
) -> Checkpoint:  # fmt: skip
    """A folder of diffusers: its networks beside the VAE with their numbers of files, and the files of each tokenizer."""
    files = ["model_index.json", "scheduler/scheduler_config.json", "vae/config.json"]
    files += [f"vae/{WEIGHTS}"]
    for number, names in zip(("", "_2", "_3"), tokenizers, strict=False):
        files += [f"tokenizer{number}/{file}" for file in names]
    for part, count in parts.items():
        stem = f"{part}/{'diffusion_pytorch_model' if part == 'transformer' else 'model'}"
        files.append(f"{part}/config.json")
        if count == 1:
            files.append(f"{stem}.safetensors")
        else:
            files += [f"{stem}-{k + 1:05}-of-{count:05}.safetensors" for k in range(count)]
            files.append(f"{stem}.safetensors.index.json")
    return Checkpoint(
        name=name,
        kind="flow",
        files=hub_folder(repository, files),
        licence=licence,
        origin=repository,
        about=about,
        parameters=round(millions * 1e6),
        working=4 * GB,
        width=2,
        megabytes=megabytes,
    )


def _previewer(name: str, models: str) -> Checkpoint:
    """A tiny decoder of latents, a folder of diffusers."""
    return Checkpoint(
        name=name,
        kind="taesd",
        files=hub_folder(f"madebyollin/{name}", ["config.json", WEIGHTS]),
        licence="MIT",
        origin=f"madebyollin/{name}, Ollin Boer Bohan (2023)",
        about=f"a tiny decoder: quick and larger previews of {models}, --use preview={name}",
        parameters=2_450_000,
        working=GB // 2,
        megabytes=10,
    )


QWEN_WORDS = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")
CLIP_WORDS = ("vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json")
FAST_WORDS = ("tokenizer.json", "tokenizer_config.json")
WHOLE_CLIP = ("open_clip_pytorch_model.bin", "open_clip_config.json")
JUDGES: tuple[Checkpoint, ...] = (
    clip_of_openai(
        "clip-rn101",
        "RN101.pt",
        "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599",
        119.69,
        "OpenAI's CLIP RN101, 224 px, English: a second convolutional guide beside RN50",
        GB,
    ),
    clip_of_openai(
        "clip-rn50x4",
        "RN50x4.pt",
        "7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd",
        178.3,
        "OpenAI's CLIP RN50x4, 288 px, English: a convolutional guide, the usual partner of ViT-B/32",
        GB,
    ),
    clip_of_openai(
        "clip-rn50x16",
        "RN50x16.pt",
        "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa",
        290.98,
        "OpenAI's CLIP RN50x16, 384 px, English: convolutional, sees small things",
        GB,
    ),
    clip_of_openai(
        "clip-rn50x64",
        "RN50x64.pt",
        "be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c",
        623.26,
        "OpenAI's CLIP RN50x64, 448 px, English: the largest convolutional one, for a GPU",
        GB,
    ),
    _clip(
        "clip-siglip2-b-16",
        "google/siglip2-base-patch16-224",
        ("model.safetensors", "config.json"),
        "Apache-2.0",
        "SigLIP 2 base/16, 224 px, over a hundred languages: one judge for English and Chinese prompts",
        375_187_970,
        1501,
        kind="siglip",
    ),
    Checkpoint(
        name="siglip-tokenizer",
        kind="siglip-tokenizer",
        files=hub("google/siglip2-base-patch16-224", "tokenizer.json"),
        licence="Apache-2.0 (the repository; the vocabulary is Gemma's)",
        origin="google/siglip2-base-patch16-224 (2025)",
        about="the vocabulary of SigLIP 2: Gemma's BPE, 256,000 pieces",
        megabytes=34,
    ),
    _clip(
        "clip-datacomp-vit-b-16",
        "laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K",
        WHOLE_CLIP,
        "MIT",
        "CLIP ViT-B/16 trained on DataComp, 224 px, English: a better judge than OpenAI's of this size",
        149_620_737,
        599,
    ),
    _clip(
        "clip-datacomp-vit-l-14",
        "laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K",
        WHOLE_CLIP,
        "MIT",
        "CLIP ViT-L/14 trained on DataComp, 224 px, English: the best open judge of this layout",
        427_616_513,
        1711,
    ),
    _clip(
        "clip-laion-vit-h-14",
        "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        WHOLE_CLIP,
        "MIT",
        "CLIP ViT-H/14 trained on LAION-2B, 224 px, English: a large judge, for a GPU",
        986_109_441,
        3945,
    ),
    _clip(
        "clip-chinese-vit-l-14",
        "OFA-Sys/chinese-clip-vit-large-patch14",
        ("pytorch_model.bin", "config.json"),
        NO_LICENCE,
        "Chinese CLIP ViT-L/14, 224 px: the better judge of prompts in Chinese",
        406_233_857,
        1625,
        kind="chinese-clip",
    ),
    _clip(
        "critic-pickscore",
        "yuvalkirstain/PickScore_v1",
        ("model.safetensors", "config.json"),
        "not known to us; the code is MIT",
        "PickScore, a CLIP ViT-H/14 that learned which pictures people prefer: a critic, --use critic=...",
        986_109_441,
        3945,
    ),
    _clip(
        "critic-hpsv2.1",
        "xswu/HPSv2",
        ("HPS_v2.1_compressed.pt",),
        "Apache-2.0",
        "HPSv2.1, a CLIP ViT-H/14 that learned which pictures people prefer: a critic, --use critic=...",
        986_109_441,
        1972,
    ),
)
PAINTERS: tuple[Checkpoint, ...] = (
    _adm(
        "adm-imagenet-256",
        File(
            f"{ADM}/256x256_diffusion_uncond.pt",
            "a37c32fffd316cd494cf3f35b339936debdc1576dad13fe57c42399a5dbc78b1",
            2_211_383_297,
        ),
        "MIT (guided-diffusion)",
        "OpenAI, guided-diffusion (2021)",
        "diffusion model of all of ImageNet, 256 px, the base of Disco Diffusion: for any photograph",
        552.81,
    ),
    _adm(
        "adm-imagenet-512",
        File(
            f"{HUB}/lowlevelware/512x512_diffusion_unconditional_ImageNet/resolve/main/"
            "512x512_diffusion_uncond_finetune_008100.pt",
            "9c111ab89e214862b76e1fa6a1b3f1d329b1a88281885943d2cdbe357ad57648",
        ),
        "MIT (guided-diffusion); the one who trained it further names none",
        "Katherine Crowson's 512 px model of OpenAI's guided-diffusion (2021)",
        "diffusion model of all of ImageNet, 512 px, Disco Diffusion's usual one: for a GPU",
        559.1,
    ),
    *(
        _adm(
            f"adm-lsun-{one}-256",
            File(f"{ADM}/lsun_{one}.pt"),
            "MIT (guided-diffusion)",
            "OpenAI, guided-diffusion (2021)",
            f"diffusion model of {many}, 256 px: finer than the DDPM, five times as large",
            552.81,
        )
        for one, many in (("bedroom", "bedrooms"), ("cat", "cats"), ("horse", "horses"))
    ),
    _pytti(
        "vqgan-wikiart",
        "wikiart",
        "bd08bb46301f98be1712bb2be9f8868cea30b53137cd985d4d6e8da8b3e02c36",
        "VQGAN, paintings of WikiArt, 16 px a token, 16,384 codes: brush and canvas in Optimize",
        75.9,
        958,
    ),
    _pytti(
        "vqgan-coco",
        "coco",
        "106cc20fde571df14afc4349d62218d8213cf47177c682ecaa78a8c28b12f9de",
        "VQGAN, COCO, 16 px a token, 8192 codes: everyday scenes; it comes inside a large transformer",
        73.8,
        8400,
    ),
    _pytti(
        "vqgan-faceshq",
        "faceshq",
        "3274bba51bd565c90990bbcf7bb5dad0b9b95a6a77011980afc4c3cfc4d1cad1",
        "VQGAN, FacesHQ, 16 px a token, 1024 codes: portraits; it comes inside a large transformer",
        72.0,
        3900,
    ),
    Checkpoint(
        name="vqgan-llamagen-f16",
        kind="taming-vqgan",
        files=(
            File(
                f"{HUB}/FoundationVision/LlamaGen/resolve/main/vq_ds16_c2i.pt",
                "109aa8afb2cf3761eec23cdc8644154cb498f5ab7eef2a35264d25e5e0499f7d",
            ),
        ),
        licence="MIT",
        origin="FoundationVision/LlamaGen (2024)",
        about="LlamaGen's VQ-16, ImageNet, 16 px a token, 16,384 codes of 8 numbers: the sharpest at this factor",
        parameters=71_883_403,
        working=4 * GB,
        megabytes=288,
    ),
)
# How files and licences are known; none of the repositories was looked at itself. z-image-turbo: two programs download
# these files, and one counts their bytes. flux2-klein-4b and sana-sprint-0.6b: a list with the Hub's own hashes.
# flux1-schnell: a list that was compared with the repository. stable-diffusion-3.5-medium: two programs load these files,
# and the head of its card. The previews: programs that download them.
FLOWS: tuple[Checkpoint, ...] = (
    _flow(
        "z-image-turbo",
        "Tongyi-MAI/Z-Image-Turbo",
        {"transformer": 3, "text_encoder": 3},
        (QWEN_WORDS,),
        "Apache-2.0",
        "Z-Image-Turbo, 1024 px in eight steps, English and Chinese, also writing in pictures: for a GPU",
        10_260,
        32_848,
    ),
    _flow(
        "flux2-klein-4b",
        "black-forest-labs/FLUX.2-klein-4B",
        {"transformer": 1, "text_encoder": 2},
        (QWEN_WORDS,),
        "Apache-2.0",
        "FLUX.2 klein 4B, 1024 px in four steps, English: the fastest of today's, for a GPU of 16 GB and more",
        7_980,
        15_980,
    ),
    _flow(
        "flux1-schnell",
        "black-forest-labs/FLUX.1-schnell",
        {"transformer": 3, "text_encoder": 1, "text_encoder_2": 2},
        (CLIP_WORDS, FAST_WORDS),
        "Apache-2.0; its repository asks for an account: HF_TOKEN",
        "FLUX.1 schnell, 1024 px in four steps, English: for a large GPU",
        16_870,
        33_740,
    ),
    _flow(
        "stable-diffusion-3.5-medium",
        "stabilityai/stable-diffusion-3.5-medium",
        {"transformer": 1, "text_encoder": 1, "text_encoder_2": 1, "text_encoder_3": 2},
        (CLIP_WORDS, CLIP_WORDS, FAST_WORDS),
        "Stability AI Community License: free up to a yearly revenue of 1 million dollars; its repository asks for an "
        "account: HF_TOKEN",
        "Stable Diffusion 3.5 medium, 1024 px, English: many styles, for a GPU",
        8_130,
        16_260,
    ),
    _flow(
        "sana-sprint-0.6b",
        "Efficient-Large-Model/Sana_Sprint_0.6B_1024px_diffusers",
        {"transformer": 1, "text_encoder": 2},
        (FAST_WORDS,),
        "Apache-2.0 by its LICENSE, NVIDIA's NSCL v2-custom by an older card; the text encoder: Google's Gemma terms",
        "SANA-Sprint 0.6B, 1024 px in one to four steps, English and Chinese: small and quick, for a GPU",
        3_520,
        7_699,
    ),
)
PREVIEWS: tuple[Checkpoint, ...] = (
    _previewer("taesd", "Stable Diffusion 1.5, 2.1 and Turbo"),
    _previewer("taesdxl", "Stable Diffusion XL and its Turbo"),
    _previewer("taesd3", "Stable Diffusion 3.5"),
    _previewer("taef1", "FLUX.1 and Z-Image"),
)
NEWER: tuple[Checkpoint, ...] = (*JUDGES, *PAINTERS, *FLOWS, *PREVIEWS)
