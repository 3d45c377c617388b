"""Real classes at tiny sizes, with random but fixed weights."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from pipelines.diffuse.pipeline import Diffuse
from pipelines.edit.pipeline import Edit
from pipelines.edit.source_images import SourceImages
from pipelines.generate.pipeline import Generate
from pipelines.guide.pipeline import Guide
from pipelines.models.clip.network import Clip, ClipConfig
from pipelines.models.clip.tokenizer import Tokenizer, words_in
from pipelines.models.dalle.network import Dalle, DalleConfig
from pipelines.models.dalle_semantic.network import SemanticDalle, SemanticDalleConfig
from pipelines.models.matting.network import Matting, MattingConfig
from pipelines.models.prior.denoiser import PriorDenoiser
from pipelines.models.prior.diffusion import PriorDiffusion
from pipelines.models.prior.network import Prior, PriorConfig
from pipelines.models.stable_diffusion.load import load_diffusers
from pipelines.models.stable_diffusion.network import StableDiffusion
from pipelines.models.transformer.network import Transformer, TransformerConfig
from pipelines.models.unet.network import Unet, UnetConfig
from pipelines.models.vqgan.network import Vqgan, VqganConfig
from pipelines.optimize.pipeline import Optimize

TEXTS = [
    "a red heart",
    "green apple, fruit",
    "a 3d dog face on a blue background",
    "红心",
    "生日蛋糕",
    "two cats",
]


def tiny_tokenizer() -> Tokenizer:
    """Learned from six texts; knows their words."""
    words = frozenset(word for text in TEXTS for word in words_in(text))
    return Tokenizer(Tokenizer.train(TEXTS, 300).vocabulary, words)


def tiny_clip(tokenizer: Tokenizer | None = None) -> Clip:
    """16 x 16 pictures, 16-dimensional vectors."""
    tokenizer = tokenizer or tiny_tokenizer()
    torch.manual_seed(1)
    sizes = {
        "image_size": 16,
        "small_size": 12,
        "widths": (8, 16),
        "block_counts": (1, 1),
        "text_width": 16,
        "text_layer_count": 1,
    }
    config = ClipConfig(
        tokenizer.vocabulary_size, **sizes, text_head_count=2, context_length=12, embedding_size=16
    )
    return Clip(config, tokenizer).eval().requires_grad_(False)


def tiny_vqgan() -> Vqgan:
    """32 x 32 pictures, a 4 x 4 grid of 32 codes."""
    torch.manual_seed(2)
    return Vqgan(VqganConfig(32, 4, (8, 16), 1, 32, 4)).eval().requires_grad_(False)


def tiny_dalle(tokenizer: Tokenizer | None = None) -> Dalle:
    """8 text tokens, a 4 x 4 grid, three layers: a row, a column and a convolutional one."""
    tokenizer = tokenizer or tiny_tokenizer()
    torch.manual_seed(3)
    sizes = {"text_length": 8, "grid": 4, "width": 16, "layer_count": 3, "head_count": 2, "kernel": 3}
    dalle = Dalle(DalleConfig(tokenizer.vocabulary_size, 32, **sizes))
    for parameter in dalle.parameters():  # fresh weights say too little for a test to notice
        parameter.data += 0.1 * torch.randn_like(parameter)
    return dalle.eval().requires_grad_(False)


def tiny_matting() -> Matting:
    """32 x 32 pictures, of which it sees nothing but how they differ from their border: it needs no training."""
    matting = Matting(MattingConfig(32, 4, (8, 16), 8))
    for parameter in matting.parameters():
        torch.nn.init.zeros_(parameter)
    barrier = 8 + 3 + 3  # the channel of the layers at full resolution that holds it
    matting.detail.weight.data[0, barrier, 1, 1] = 40.0
    matting.last.weight.data[0, 0, 1, 1], matting.last.bias.data[0] = 1.0, -8.0
    return matting.eval().requires_grad_(False)


def tiny_generate() -> Generate:
    """The whole pipeline: 32 x 32 pictures."""
    tokenizer = tiny_tokenizer()
    return Generate(tokenizer, tiny_dalle(tokenizer), tiny_vqgan(), tiny_clip(tokenizer))


def tiny_semantic_dalle(clip: Clip) -> SemanticDalle:
    """8 text tokens, two semantic tokens of 12, a 4 x 4 grid, two styles, two layers."""
    torch.manual_seed(8)
    sizes: dict[str, Any] = {
        "text_width": clip.config.text_width,
        "embedding_size": clip.config.embedding_size,
    }
    config = SemanticDalleConfig(
        32, 4, 12, text_length=9, width=16, layer_count=2, head_count=2, styles=("flat", "round"), **sizes
    )
    dalle = SemanticDalle(config, clip)
    for parameter in dalle.parameters():  # fresh weights say too little for a test to notice
        parameter.data += 0.1 * torch.randn_like(parameter)
    return dalle.eval().requires_grad_(False)


def tiny_semantic_generate() -> Generate:
    """Generate with `tiny_semantic_dalle`: 32 x 32 pictures."""
    tokenizer = tiny_tokenizer()
    clip = tiny_clip(tokenizer)
    return Generate(tokenizer, tiny_semantic_dalle(clip), tiny_vqgan(), clip)


def tiny_transformer(condition: str = "none", tokenizer: Tokenizer | None = None) -> Transformer:
    """A 4 x 4 grid of 32 codes, two layers; a text has four tokens, and the classes are two."""
    sizes: dict[str, Any] = {"grid": 4, "width": 16, "layer_count": 2, "head_count": 2}
    if condition == "class":
        tokens = ((5, 6), (7,))
        sizes |= {"text_vocabulary": 3, "classes": ("red circle", "blue square"), "class_tokens": tokens}
    if condition == "text":
        sizes |= {"text_vocabulary": tokenizer.vocabulary_size if tokenizer else 40, "text_length": 4}
    torch.manual_seed(9)
    network = Transformer(TransformerConfig(32, condition=condition, **sizes))
    for parameter in network.parameters():  # fresh weights say too little for a test to notice
        parameter.data += 0.1 * torch.randn_like(parameter)
    return network.eval().requires_grad_(False)


def tiny_transformer_generate() -> Generate:
    """Generate with `tiny_transformer`, without a condition."""
    tokenizer = tiny_tokenizer()
    return Generate(tokenizer, tiny_transformer(), tiny_vqgan(), tiny_clip(tokenizer))


def tiny_critic(tokenizer: Tokenizer | None = None) -> Clip:
    """Another architecture than `tiny_clip`, another seed."""
    tokenizer = tokenizer or tiny_tokenizer()
    torch.manual_seed(4)
    sizes = {
        "image_size": 16,
        "small_size": 12,
        "widths": (8, 16),
        "image_layer_count": 1,
        "text_width": 16,
        "text_layer_count": 1,
    }
    config = ClipConfig(
        tokenizer.vocabulary_size, **sizes, text_head_count=2, context_length=12, embedding_size=8
    )
    return Clip(config, tokenizer).eval().requires_grad_(False)


def tiny_optimize() -> Optimize:
    """The whole pipeline: 32 x 32 pictures of 4 x 4 tokens."""
    tokenizer = tiny_tokenizer()
    return Optimize(tiny_vqgan(), tiny_clip(tokenizer), tiny_critic(tokenizer))


def tiny_prior(clip: Clip | None = None) -> PriorDiffusion:
    """4 x 4 latents of `tiny_vqgan`, 32 x 32 pictures, weights that say enough for a test to notice."""
    clip, codec = clip or tiny_clip(), tiny_vqgan()
    sizes: dict[str, Any] = {
        "text_width": clip.config.text_width,
        "embedding_size": clip.config.embedding_size,
    }
    torch.manual_seed(7)
    prior = Prior(PriorConfig(4, 4, (8, 16), head_count=2, styles=("flat", "round"), **sizes))
    for parameter in prior.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    prior.mean.fill_(0.1)
    prior.deviation.fill_(0.5)
    return PriorDiffusion(prior.eval().requires_grad_(False), codec, clip)


def tiny_refining_generate() -> Generate:
    """`tiny_generate` with `tiny_prior`, by which it refines unless it is told not to."""
    tokenizer = tiny_tokenizer()
    clip = tiny_clip(tokenizer)
    return Generate(tokenizer, tiny_dalle(tokenizer), tiny_vqgan(), clip, tiny_prior(clip))


def tiny_prior_diffuse() -> Diffuse:
    """Diffuse with `tiny_prior`."""
    diffusion = tiny_prior()
    return Diffuse(diffusion, diffusion.clip)


class WithoutAttention:
    """A model for latent diffusion whose attention can be neither watched nor changed."""

    def __init__(self, model: Any):
        self.model = model

    def __getattr__(self, name: str) -> Any:
        if name in ("prompt_tokens", "controlled", "mixture"):
            raise AttributeError(name)
        return getattr(self.model, name)


UNET_SIZES: dict[str, Any] = {"widths": (8, 16), "attention_count": 1, "head_size": 8}


def tiny_unet(**changes: int) -> Unet:
    """16 x 16 pictures, two levels, attention in one, weights that say enough for a test to notice."""
    torch.manual_seed(5)
    unet = Unet(UnetConfig(**{"image_size": 16, **UNET_SIZES, **changes}))
    for parameter in unet.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return unet.eval().requires_grad_(False)


def tiny_examples() -> SourceImages:
    """Eight pictures of 16 x 16: a colour and noise."""
    generator = torch.Generator().manual_seed(6)
    colours = torch.randint(40, 216, (8, 3, 1, 1), generator=generator)
    grain = torch.randint(-40, 40, (8, 3, 16, 16), generator=generator)
    pictures = (colours + grain).clamp(0, 255).to(torch.uint8)
    return SourceImages(pictures, [f"picture {k}" for k in range(8)])


def tiny_edit() -> Edit:
    """The whole pipeline: 16 x 16 pictures."""
    tokenizer = tiny_tokenizer()
    return Edit(tiny_unet(), tiny_clip(tokenizer), tiny_critic(tokenizer), tiny_examples())


def tiny_prior_edit() -> Edit:
    """Edit with `tiny_prior`: 32 x 32 pictures, 4 x 4 latents."""
    tokenizer = tiny_tokenizer()
    diffusion = tiny_prior(tiny_clip(tokenizer))
    return Edit(PriorDenoiser(diffusion), diffusion.clip, tiny_critic(tokenizer), tiny_examples())


def tiny_guide() -> Guide:
    """Guide by `tiny_prior`: 32 x 32 pictures, 4 x 4 latents."""
    tokenizer = tiny_tokenizer()
    diffusion = tiny_prior(tiny_clip(tokenizer))
    return Guide(PriorDenoiser(diffusion), diffusion.clip, tiny_critic(tokenizer))


def tiny_pixel_guide() -> Guide:
    """Guide by `tiny_unet`: 16 x 16 pixels."""
    tokenizer = tiny_tokenizer()
    return Guide(tiny_unet(), tiny_clip(tokenizer), tiny_critic(tokenizer))


# -------------------------------------------------------------------------------------------------- Stable Diffusion

CPU = torch.device("cpu")
SIDE = 64  # 8 x 8 latents
MODELS = TemporaryDirectory(prefix="atelier-tests-")  # gone when the tests are over


class TinyStudio:
    """Stands where Studio stands, on the command line."""

    pack, device = "tiny", "cpu"

    def __init__(self, **_: Any) -> None:
        pass

    def pipeline(self, name: str) -> Any:
        made = {"generate": tiny_generate, "optimize": tiny_optimize, "guide": tiny_guide, "edit": tiny_edit}
        made |= {"diffuse": tiny_prior_diffuse}
        return made[name]()

    def models(self, name: str) -> dict[str, dict[str, str]]:
        return {"clip": {"name": "tiny", "sha256": "ab" * 32}, "unet": {"name": "tiny", "sha256": "ab" * 32}}


def randomized(network: Any, seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return network.eval()


def letters() -> Any:
    """The letters of ASCII, alone or ending a word."""
    from transformers import CLIPTokenizer

    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer({word: k for k, word in enumerate(words)}, [], model_max_length=16)


def text_encoder(seed: int, projects: bool = False) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(seed)
    config = CLIPTextConfig(
        vocab_size=190, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=16, projection_dim=32, bos_token_id=188, eos_token_id=189, pad_token_id=189,
    )  # fmt: skip
    return randomized((CLIPTextModelWithProjection if projects else CLIPTextModel)(config), seed)


def _denoiser(channels: int = 4, large: bool = False) -> Any:
    from diffusers import UNet2DConditionModel

    torch.manual_seed(10)
    extra: dict[str, Any] = {}
    if large:
        extra = {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 32 + 6 * 8,
        }
    network = UNet2DConditionModel(
        sample_size=8, in_channels=channels, out_channels=4, block_out_channels=(16, 32), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=64 if large else 32, attention_head_dim=2, norm_num_groups=8, **extra,
    )  # fmt: skip
    return randomized(network, 11)


def _vae() -> Any:
    from diffusers import AutoencoderKL

    torch.manual_seed(20)
    kinds = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    sizes = {"block_out_channels": (8, 8, 16, 16), "layers_per_block": 1, "norm_num_groups": 4}
    return randomized(AutoencoderKL(latent_channels=4, sample_size=SIDE, **kinds, **sizes), 21)


@cache
def diffusion_folder(kind: str) -> Path:
    """A model with random weights as diffusers saves it: "1.5", "2.1", "turbo", "xl" or "inpainting"."""
    import diffusers

    noise: dict[str, Any] = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "steps_offset": 1,
    }
    schedulers = {
        "1.5": lambda: diffusers.PNDMScheduler(**noise, skip_prk_steps=True),
        "2.1": lambda: diffusers.DDIMScheduler(
            **noise, prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False
        ),
        "turbo": lambda: diffusers.EulerAncestralDiscreteScheduler(**noise, timestep_spacing="trailing"),
        "xl": lambda: diffusers.EulerDiscreteScheduler(**noise, timestep_spacing="leading"),
        "inpainting": lambda: diffusers.DPMSolverMultistepScheduler(**noise),
    }
    parts = {
        "vae": _vae(),
        "text_encoder": text_encoder(30),
        "tokenizer": letters(),
        "scheduler": schedulers[kind](),
    }
    if kind == "xl":
        parts |= {"text_encoder_2": text_encoder(31, projects=True), "tokenizer_2": letters()}
        pipe = diffusers.StableDiffusionXLPipeline(**parts, unet=_denoiser(large=True), add_watermarker=False)
    else:
        completes = kind == "inpainting"
        made: Any = (
            diffusers.StableDiffusionInpaintPipeline if completes else diffusers.StableDiffusionPipeline
        )
        pipe = made(
            **parts, unet=_denoiser(9 if completes else 4), safety_checker=None, feature_extractor=None,
            requires_safety_checker=False,
        )  # fmt: skip
    path = Path(MODELS.name) / kind
    pipe.save_pretrained(path)
    return path


@cache
def _loaded(kind: str) -> Any:
    return load_diffusers(diffusion_folder(kind), CPU)


def tiny_diffuse(kind: str = "turbo") -> Diffuse:
    """The whole pipeline: 64 x 64 pictures."""
    return Diffuse(StableDiffusion(_loaded(kind)), tiny_clip())
