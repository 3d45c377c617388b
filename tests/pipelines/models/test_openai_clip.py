"""The published CLIPs: every layout against the package that it comes from, on random weights; and the vocabularies."""

from __future__ import annotations

import gzip
import importlib.util
import json
import sys
import types
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from pipelines.errors import BadInput
from pipelines.models.checkpoint import load_weights
from pipelines.models.chinese_clip.network import ChineseClip, ChineseClipConfig
from pipelines.models.openai_clip.convert import (
    convert,
    tokenizer_from_merges,
    tokenizer_from_words,
    write_tokenizer,
)
from pipelines.models.openai_clip.network import DEVIATION, MEAN, OpenaiClip, OpenaiClipConfig
from pipelines.models.openai_clip.tokenizer import ClipTokenizer, WordPieceTokenizer
from pipelines.models.source import Original
from pipelines.weights.readers import read_original

PROMPTS = ["a watercolor of a fox", "Ein schöner Tag, 3 °C", "红心 🎨", "", "very " * 100 + "long"]
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    *"一只红色的心狐狸画",
    "fox",
    "##es",
    "a",
    "un",
    "##known",
    ",",
    "3",
]


# ----------------------------------------------------------------------------------------------------- reference code


def load_alone(package: str, file: str, name: str) -> Any:
    """One file of an installed package, without the package's own beginning, which may ask for torchvision."""
    package_spec = importlib.util.find_spec(package)
    assert package_spec is not None
    assert package_spec.submodule_search_locations is not None
    path = Path(package_spec.submodule_search_locations[0]) / file
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@cache
def openai_code() -> Any:
    return load_alone("clip", "model.py", "reference_clip_model")


@cache
def simple_tokenizer() -> Any:
    return load_alone("clip", "simple_tokenizer.py", "reference_clip_tokenizer").SimpleTokenizer()


@cache
def open_clip_code() -> Any:
    """open_clip's model.py; what it takes from files that need torchvision or timm is not used by these towers."""
    spec = importlib.util.find_spec("open_clip")
    assert spec is not None
    package = types.ModuleType("reference_open_clip")
    package.__path__ = list(spec.submodule_search_locations or [])
    sys.modules[package.__name__] = package
    for name, values in {
        "utils": {"to_2tuple": lambda x: (x, x), "freeze_batch_norm_2d": None, "feature_take_indices": None},
        "hf_model": {"HFTextEncoder": None},
        "timm_model": {"TimmModel": None},
    }.items():
        module = types.ModuleType(f"{package.__name__}.{name}")
        vars(module).update(values)
        sys.modules[module.__name__] = module
    return load_alone("open_clip", "model.py", f"{package.__name__}.model")


def shuffled(network: nn.Module, seed: int = 0) -> Any:
    """Random weights for everything, norms and biases too, which begin as 0 or 1 and would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if not value.is_floating_point() or name.endswith("attn_mask"):
                continue
            noise = torch.randn(value.shape, generator=generator)
            if name.endswith("running_var"):
                value.copy_(0.5 + noise.abs())
            elif name == "logit_scale":
                value.copy_(2.0 + noise)
            elif "embedding" in name:
                value.copy_(0.5 * noise)
            elif value.dim() > 1:
                value.copy_(noise * 1.5 * value[0].numel() ** -0.5)
            else:
                value.add_(0.3 * noise)
    return network.float().eval()


def openai_vit(vocabulary_size: int = 300, context_length: int = 13) -> Any:
    return shuffled(
        openai_code().CLIP(24, 35, 3, 128, 7, context_length, vocabulary_size, 64, 1, 2)
    )  # 5 x 5 patches


def openai_resnet() -> Any:
    return shuffled(openai_code().CLIP(24, 96, (2, 1, 3, 1), 16, None, 9, 200, 128, 2, 3))


def transformers_clip(activation: str, **sizes: int) -> Any:
    from transformers import CLIPConfig, CLIPModel

    layers = {"hidden_act": activation, "num_hidden_layers": 2} | sizes
    config = CLIPConfig(
        projection_dim=20,
        text_config=layers | {"vocab_size": 120, "max_position_embeddings": 11, "eos_token_id": 119},
        vision_config=layers | {"image_size": 27, "patch_size": 9},
    )
    return shuffled(CLIPModel(config))


def chinese_clip() -> Any:
    from transformers import ChineseCLIPConfig, ChineseCLIPModel

    sizes = {"hidden_size": 48, "num_attention_heads": 3, "intermediate_size": 80}
    config = ChineseCLIPConfig(
        projection_dim=20,
        text_config=sizes | {"num_hidden_layers": 3, "vocab_size": len(WORDS), "max_position_embeddings": 60},
        vision_config=sizes | {"num_hidden_layers": 2, "image_size": 24, "patch_size": 6},
    )
    return shuffled(ChineseCLIPModel(config))


# ------------------------------------------------------------------------------------------------------------- helpers


@cache
def table() -> Path:
    spec = importlib.util.find_spec("clip")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / "bpe_simple_vocab_16e6.txt.gz"


@cache
def book() -> ClipTokenizer:
    return ClipTokenizer(tokenizer_from_merges(gzip.decompress(table().read_bytes()).decode().split("\n")))


@cache
def chinese_book() -> WordPieceTokenizer:
    return WordPieceTokenizer(tokenizer_from_words(WORDS))


def ours(original: Original, folder: Path) -> Any:
    """Converted, written as safetensors, read back into our network."""
    converted = convert(original)
    path = folder / "ours.safetensors"
    save_file(converted.tensors, path)
    values = json.loads(json.dumps(converted.config))
    network: nn.Module
    if converted.kind == "openai-clip":
        network = OpenaiClip(OpenaiClipConfig.from_dict(values), book())
    else:
        assert converted.kind == "chinese-clip"
        network = ChineseClip(ChineseClipConfig.from_dict(values), chinese_book())
    load_weights(path, network)
    return network.eval()


def close(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).abs().max() <= 1e-4 * expected.abs().max())


def pictures(size: int, count: int = 2) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(5)) * 2 - 1


def normalized(images: Tensor) -> Tensor:
    return ((images + 1) / 2 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(DEVIATION).view(3, 1, 1)


def texts(vocabulary_size: int, length: int) -> Tensor:
    """Two texts of different lengths; the largest id ends them, 0 fills up."""
    tokens = torch.randint(1, vocabulary_size - 1, (2, length), generator=torch.Generator().manual_seed(6))
    tokens[0, 4], tokens[0, 5:], tokens[1, -1] = vocabulary_size - 1, 0, vocabulary_size - 1
    return tokens


def features(output: Any) -> Tensor:
    return output if torch.is_tensor(output) else output.pooler_output


def assert_same_images(clip: Any, reference: Any) -> None:
    """Features; and the gradient that reaches the pixels, in float64 where there are ReLUs, since those have an edge."""

    def expected(x: Tensor) -> Tensor:
        hugging = hasattr(reference, "get_image_features")
        return reference.get_image_features(x).pooler_output if hugging else reference.encode_image(x)

    images = pictures(clip.config.image_size)
    assert close(clip.image_features(clip.prepare(images)), expected(normalized(images)))
    gradients = []
    direction = torch.randn(clip.config.embedding_size, generator=torch.Generator().manual_seed(7))
    dtype = torch.float64 if clip.config.image_block_counts else torch.float32
    for network in (clip, reference):
        network.to(dtype)
    for encode in (clip.encode_image, lambda x: F.normalize(expected(clip.prepare(x).to(dtype)), dim=-1)):
        pixels = images.clone().requires_grad_()
        (encode(pixels) * direction).sum().backward()
        gradients.append(pixels.grad)
    for network in (clip, reference):
        network.float()
    assert gradients[1].abs().max() > 1e-4
    assert close(*gradients)


# ------------------------------------------------------------------------------------------------------- OpenAI's layout


def test_openais_archive_gives_openais_features(tmp_path: Path) -> None:
    reference = openai_vit()
    for name, value in {"input_resolution": 35, "context_length": 13, "vocab_size": 300}.items():
        delattr(reference, name) if hasattr(reference, name) else None
        reference.register_buffer(name, torch.tensor(value))
    archive = torch.jit.trace(reference, (torch.zeros(1, 3, 35, 35), texts(300, 13)), check_trace=False)
    torch.jit.save(archive, tmp_path / "ViT.pt")
    clip = ours(read_original(tmp_path / "ViT.pt"), tmp_path)
    assert clip.config == OpenaiClipConfig(
        image_size=35,
        image_width=128,
        image_head_count=2,
        embedding_size=24,
        text_width=64,
        text_layer_count=2,
        text_head_count=1,
        text_inner_width=256,
        patch_size=7,
        image_layer_count=3,
        image_inner_width=512,
        context_length=13,
        vocabulary_size=300,
    )
    assert_same_images(clip, reference)
    tokens = texts(300, 13)
    assert close(clip.text_features(tokens), reference.encode_text(tokens))
    assert torch.equal(clip.log_scale, reference.logit_scale)


def test_a_mixed_precision_state_dict_of_a_resnet_gives_its_features(tmp_path: Path) -> None:
    reference = openai_resnet()
    openai_code().convert_weights(reference)
    numbers = {"input_resolution": torch.tensor(96), "vocab_size": torch.tensor(200)}
    torch.save(reference.state_dict() | numbers, tmp_path / "RN.pt")
    reference.float()
    clip = ours(read_original(tmp_path / "RN.pt"), tmp_path)
    assert (clip.config.image_block_counts, clip.config.image_size) == ((2, 1, 3, 1), 96)
    assert (clip.config.image_head_count, clip.config.text_activation) == (8, "quick_gelu")
    assert_same_images(clip, reference)
    assert close(clip.text_features(texts(200, 9)), reference.encode_text(texts(200, 9)))


def test_prompts_go_through_both_implementations_alike(tmp_path: Path) -> None:
    reference = openai_vit(49408, 21)
    clip = ours(Original("ViT.pt", reference.state_dict(), {"quick_gelu": True}), tmp_path)
    rows = torch.zeros(len(PROMPTS), 21, dtype=torch.long)
    for row, prompt in zip(rows, PROMPTS, strict=True):
        ids = [49406, *simple_tokenizer().encode(prompt), 49407]
        row[: len(ids)] = torch.tensor(ids[:21])
        row[min(len(ids), 21) - 1] = 49407
    with torch.no_grad():
        expected = F.normalize(reference.encode_text(rows), dim=-1)
    found = clip.encode_text(PROMPTS)
    assert clip.tokenize(PROMPTS).equal(rows)
    assert clip.tokenize(PROMPTS[:1]).shape[1] < 21  # what is not there is not computed
    assert close(found, expected)
    assert not found.requires_grad
    with torch.no_grad():
        clip.text_projection += 1
    assert torch.equal(found, clip.encode_text(PROMPTS))  # remembered


def test_the_activation_comes_from_the_numbers_the_name_or_the_layout() -> None:
    state = openai_vit().state_dict()
    nested = {f"state_dict.module.{name}": value for name, value in state.items()}
    for original, activation, note in (
        (Original("ViT-B-32.pt", state, {}), "quick_gelu", "OpenAI's was taken"),
        (Original("ViT-B-32.pt", state | {"vocab_size": torch.tensor(300)}, {}), "quick_gelu", ""),
        (Original("ViT-B-32.pt", state, {"hidden_act": "gelu"}), "gelu", ""),
        (Original("epoch_3.pt", nested, {}), "gelu", "open_clip's default"),
        (Original("vit-quickgelu-laion.pt", nested, {}), "quick_gelu", ""),
        (Original("open_clip_pytorch_model.bin", state, {}), "gelu", "open_clip's default"),
        (
            Original("open_clip_pytorch_model.bin", state, {"model_cfg": {"quick_gelu": True}}),
            "quick_gelu",
            "",
        ),
    ):
        config = convert(original).config
        assert (config["image_activation"], config["text_activation"]) == (activation, activation)
        assert note in config["note"]
        assert bool(note) == bool(config["note"])


# ----------------------------------------------------------------------------------------------------- open_clip's layout


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("nested", [True, False])
def test_open_clips_towers_give_its_features(quick: bool, nested: bool, tmp_path: Path) -> None:
    code = open_clip_code()
    kind = code.CustomTextCLIP if nested else code.CLIP
    image = {"layers": 2, "width": 96, "head_width": 24, "mlp_ratio": 3.0, "patch_size": 11, "image_size": 44}
    text = {"context_length": 10, "vocab_size": 90, "width": 60, "heads": 3, "layers": 2}
    reference = shuffled(
        kind(16, code.CLIPVisionCfg(**image), code.CLIPTextCfg(**text), quick_gelu=quick), seed=1
    )
    save_file(reference.state_dict(), tmp_path / "open_clip_model.safetensors")
    numbers = {"model_cfg": {"vision_cfg": image, "text_cfg": text, "quick_gelu": quick}}
    original = replace(read_original(tmp_path / "open_clip_model.safetensors"), numbers=numbers)
    clip = ours(original, tmp_path)
    assert clip.config.image_activation == ("quick_gelu" if quick else "gelu")
    assert clip.config.note == ""
    assert_same_images(clip, reference)
    assert close(clip.text_features(texts(90, 10)), reference.encode_text(texts(90, 10)))


def test_open_clips_resnet_inside_a_training_checkpoint(tmp_path: Path) -> None:
    code = open_clip_code()
    image = code.CLIPVisionCfg(layers=(1, 2, 1, 1), width=16, image_size=64)
    text = code.CLIPTextCfg(context_length=10, vocab_size=90, width=64, heads=1, layers=1)
    reference = shuffled(code.CLIP(16, image, text), seed=2)
    state = {f"module.{name}": value for name, value in reference.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "epoch_3.pt")
    clip = ours(read_original(tmp_path / "epoch_3.pt"), tmp_path)
    assert clip.config.text_activation == "gelu"
    assert "open_clip's default" in clip.config.note
    assert_same_images(clip, reference)
    assert close(clip.text_features(texts(90, 10)), reference.encode_text(texts(90, 10)))


# -------------------------------------------------------------------------------------------------- transformers' layout


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_transformers_clip_gives_its_features(activation: str, tmp_path: Path) -> None:
    reference = transformers_clip(activation, hidden_size=48, num_attention_heads=3, intermediate_size=112)
    state = reference.state_dict() | {"vision_model.embeddings.position_ids": torch.arange(10)[None]}
    save_file(state, tmp_path / "model.safetensors")
    numbers = json.loads(reference.config.to_json_string())
    clip = ours(replace(read_original(tmp_path / "model.safetensors"), numbers=numbers), tmp_path)
    assert (clip.config.image_head_count, clip.config.text_activation) == (3, activation)
    assert_same_images(clip, reference)
    tokens = texts(120, 11)
    assert close(clip.text_features(tokens), features(reference.get_text_features(input_ids=tokens)))


def test_without_a_config_the_sizes_of_published_models_are_assumed(tmp_path: Path) -> None:
    reference = transformers_clip("quick_gelu", hidden_size=128, num_attention_heads=2, intermediate_size=96)
    clip = ours(Original("model.safetensors", reference.state_dict(), {}), tmp_path)
    assert "transformers' default" in clip.config.note
    assert_same_images(clip, reference)
    reference = transformers_clip("gelu", hidden_size=48, num_attention_heads=3, intermediate_size=96)
    with pytest.raises(
        BadInput, match=r"^model\.bin does not say how many heads its vision tower of width 48"
    ):
        convert(Original("model.bin", reference.state_dict(), {}))
    with pytest.raises(BadInput, match=r"the activation 'relu'; only quick_gelu and gelu"):
        convert(Original("model.bin", reference.state_dict(), {"vision_config": {"hidden_act": "relu"}}))


# ------------------------------------------------------------------------------------------------------------ in Chinese


def test_chinese_clip_gives_its_features_and_reads_chinese(tmp_path: Path) -> None:
    reference = chinese_clip()
    state = reference.state_dict() | {"text_model.embeddings.position_ids": torch.arange(60)[None]}
    torch.save(state, tmp_path / "pytorch_model.bin")
    original = read_original(tmp_path / "pytorch_model.bin")
    clip = ours(replace(original, numbers=json.loads(reference.config.to_json_string())), tmp_path)
    assert (clip.config.context_length, clip.config.text_activation) == (52, "gelu")
    assert_same_images(clip, reference)
    assert torch.equal(clip.log_scale, reference.logit_scale)

    from transformers import BertTokenizer

    prompts = ["一只红色的狐狸", "红心, 3 FOXES 龙", "", "狐狸" * 60]
    theirs = BertTokenizer(vocab={word: k for k, word in enumerate(WORDS)})
    batch = theirs(prompts, padding=True, truncation=True, max_length=52, return_tensors="pt")
    assert clip.tokenize(prompts).equal(batch["input_ids"])
    with torch.no_grad():
        expected = F.normalize(features(reference.get_text_features(**batch)), dim=-1)
    assert close(clip.encode_text(prompts), expected)
    assert close(clip.encode_text(prompts[:1]), expected[:1])


def test_wordpiece_shows_its_pieces_and_what_it_cannot_read(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n", "utf-8")
    write_tokenizer(tmp_path / "vocab.txt", tmp_path / "tokenizer.json")
    tokenizer = WordPieceTokenizer.load(tmp_path / "tokenizer.json")
    assert tokenizer.pieces("红 Foxes, 龙 unknown") == ["红", "fox", "es", ",", "龙", "un", "known"]
    assert tokenizer.unknown_words("龙 fox 龙 zebra") == ["龙", "zebra"]
    assert tokenizer.vocabulary_size == len(WORDS)
    with pytest.raises(BadInput, match=r"^the vocabulary tokenizer\.json is .* of another model"):
        ClipTokenizer.load(tmp_path / "tokenizer.json")


# ------------------------------------------------------------------------------------------------------- what goes in


def test_pictures_of_any_size_are_resized_like_a_photograph(tmp_path: Path) -> None:
    from PIL import Image

    clip = ours(Original("ViT.pt", openai_vit().state_dict(), {"quick_gelu": True}), tmp_path)
    assert clip.config.small_size == clip.config.image_size == 35
    assert close(clip.prepare(pictures(35)), normalized(pictures(35)))
    for height, width in ((150, 90), (20, 50)):
        smooth = F.interpolate(pictures(6), (height, width), mode="bilinear").mul(0.8).requires_grad_()
        bytes_ = ((smooth[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
        resized = Image.fromarray(bytes_).resize((35, 35), Image.Resampling.BICUBIC)
        expected = torch.tensor(list(resized.tobytes())).view(35, 35, 3).permute(2, 0, 1) / 127.5 - 1
        assert (clip.prepare(smooth)[0] - normalized(expected)).abs().max() < 0.05
        clip.encode_image(smooth)[:, 0].sum().backward()
        assert smooth.grad is not None
        assert (smooth.grad.abs().amax((1, 2, 3)) > 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_as_long_weights_give_nearly_the_same_float32_vectors(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    originals = [
        Original("ViT.pt", openai_vit().state_dict(), {"quick_gelu": True}),
        Original("RN.pt", openai_resnet().state_dict(), {"quick_gelu": True}),
        Original("C.bin", chinese_clip().state_dict(), {"num_attention_heads": 3}),
    ]
    for original in originals:
        clip = ours(original, tmp_path)
        if isinstance(clip, OpenaiClip):
            clip.token_embedding = nn.Embedding(49408, clip.config.text_width)
        images, prompts = pictures(clip.config.image_size), ["a fox", "红"]
        with torch.no_grad():
            whole = clip.encode_image(images), clip.encode_text(prompts)
            clip._remembered.clear()
            clip.to(dtype)
            rounded = clip.encode_image(images), clip.encode_text(prompts)
        for one, other in zip(whole, rounded, strict=True):
            assert other.dtype == torch.float32
            assert ((one * other).sum(1) > 0.995).all()
            assert torch.allclose(other.norm(dim=1), torch.ones(2), atol=1e-5)


# ------------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "name",
    ["visual.proj", "visual.transformer.resblocks.1.mlp.c_proj.bias", "text_projection", "logit_scale"],
)
def test_a_file_that_lacks_a_tensor_is_refused(name: str) -> None:
    state = openai_vit().state_dict()
    del state[name]
    shown = name.replace("logit", "log")
    with pytest.raises(BadInput, match=rf"^ViT\.pt (does not fit|is not a whole CLIP): {shown} .*absent"):
        convert(Original("ViT.pt", state, {}))


def test_files_of_other_shapes_and_kinds_are_refused() -> None:
    state = openai_vit().state_dict()
    for name, value, words in (
        ("visual.proj", torch.zeros(128, 23), r"visual.proj should be \(128, 24\) and is \(128, 23\)"),
        ("visual.positional_embedding", torch.zeros(25, 128), "does not look at squares"),
        ("visual.conv1.weight", torch.zeros(128), r"visual.conv1.weight has the shape \(128,\)"),
        ("visual.transformer.resblocks.0.ls_1.gamma", torch.zeros(128), "should be absent"),
    ):
        with pytest.raises(BadInput, match=rf"^ViT\.pt .*{words}"):
            convert(Original("ViT.pt", state | {name: value}, {}))
    for name, words in {
        "visual.trunk.norm.weight": "an image tower of timm",
        "text.transformer.embeddings.word_embeddings.weight": "a text tower of transformers inside open_clip",
        "logit_bias": "a SigLIP",
        "bert.embeddings.word_embeddings.weight": "the original layout of Chinese CLIP",
    }.items():
        with pytest.raises(BadInput, match=rf"^X\.pt is {words}, which is not supported"):
            convert(Original("X.pt", {name: torch.zeros(1), "token_embedding.weight": torch.zeros(2, 2)}, {}))
    with pytest.raises(BadInput, match=r"^unet\.pt is not a CLIP: expected .* and found conv_in\.weight$"):
        convert(Original("unet.pt", {"conv_in.weight": torch.zeros(1)}, {}))
    state = openai_resnet().state_dict()
    del state["visual.layer3.1.bn2.running_var"]
    with pytest.raises(
        BadInput, match=r"^RN\.pt does not fit: visual\.layer3\.1\.bn2\.bias should be absent"
    ):
        convert(Original("RN.pt", state, {}))
    state = transformers_clip("gelu", hidden_size=64, num_attention_heads=1, intermediate_size=8).state_dict()
    del state["text_model.encoder.layers.1.self_attn.k_proj.bias"]
    with pytest.raises(
        BadInput, match=r"^m\.bin does not fit: transformer.*1\.attn\.in_proj_bias should be .* and is absent"
    ):
        convert(Original("m.bin", state, {}))


def test_a_truncated_file_is_refused_in_one_sentence(tmp_path: Path) -> None:
    torch.save(openai_vit().state_dict(), tmp_path / "ViT.pt")
    data = (tmp_path / "ViT.pt").read_bytes()
    (tmp_path / "ViT.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(BadInput, match=r"^ViT\.pt [^\n]*$"):
        convert(read_original(tmp_path / "ViT.pt"))


# ----------------------------------------------------------------------------------------------------------- vocabulary

HARD = [
    *PROMPTS,
    "",
    "  Café\tE\u0301clair\n naïve  ÅNGSTRÖM straße İstanbul ΣΊΣΥΦΟΣ",
    "一只戴着红帽子的狐狸，水彩画。漢字かなカナ한국어",
    "👩‍🎨🏳️‍🌈🦊 ❤️ ☃",
    "&lt;b&gt;AT&amp;T&lt;/b&gt; &amp;amp; <i>tags</i> &eacute;",
    "3.14159 1/2 ½ Ⅷ 2024-05-06 10,000",
    "it's I'M we'LL they'd y'all've don’t “quoted” ‘single’ ...?! --- #hash_tag @x C++ $5 %",
    "ﬁne ﬂow Ｆｕｌｌ－ｗｉｄｔｈ！ \u3000 \u200b zero",
    "نص عربي हिन्दी ไทย עברית",
    "<|startoftext|> a <|endoftext|> b",
    "supercalifragilisticexpialidocious" * 40,
    "a photo of a cat, " * 300,
]


def test_ids_and_pieces_are_openais() -> None:
    theirs = simple_tokenizer()
    for text in HARD:
        ids = theirs.encode(text)
        assert book().encode(text) == ids, text
        assert book().pieces(text) == [theirs.decode([one]).replace("\ufffd", "?") for one in ids], text
        assert book().unknown_words(text) == []
    assert (book().vocabulary_size, book().start, book().end) == (49408, 49406, 49407)


def test_every_published_form_of_the_vocabulary_gives_the_same_file(tmp_path: Path) -> None:
    lines = gzip.decompress(table().read_bytes()).decode().split("\n")
    forms = {"gz": table(), "vocab": tmp_path / "b" / "vocab.json", "json": tmp_path / "c" / "tokenizer.json"}
    forms["vocab"].parent.mkdir()
    forms["vocab"].write_text(json.dumps(book().book.get_vocab()), "utf-8")
    (tmp_path / "b" / "merges.txt").write_text("\n".join(["#version: 0.2", *lines[1:48895]]) + "\n", "utf-8")

    from transformers import CLIPTokenizer

    merges: Any = [tuple(line.split()) for line in lines[1:48895]]
    CLIPTokenizer(vocab=book().book.get_vocab(), merges=merges).save_pretrained(tmp_path / "c")
    written = []
    for name, path in forms.items():
        write_tokenizer(path, tmp_path / f"{name}.json")
        written.append(json.loads((tmp_path / f"{name}.json").read_text("utf-8")))
    assert written[0] == written[1] == written[2]
    tokenizer = ClipTokenizer.load(tmp_path / "gz.json")
    assert [tokenizer.encode(text) for text in HARD] == [book().encode(text) for text in HARD]


def test_a_damaged_vocabulary_is_refused(tmp_path: Path) -> None:
    path, target = tmp_path / "bpe.txt.gz", tmp_path / "tokenizer.json"
    damaged = (
        table().read_bytes()[:5000],
        b"one two three\n",
        b"{}",
        b'{"model": {"vocab": {"a": 0}, "merges": ["a b"]}}',
        b"\xff\xfe\xfd",
    )
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(BadInput, match=r"^bpe\.txt\.gz is not a CLIP's vocabulary"):
            write_tokenizer(path, target)
    with pytest.raises(BadInput, match=r"^bpe2\.txt is not a CLIP's vocabulary"):
        write_tokenizer(tmp_path / "bpe2.txt", target)
    for text in (None, "{", '{"model": 1}'):
        if text is not None:
            target.write_text(text)
        with pytest.raises(BadInput, match=r"^the vocabulary tokenizer\.json is missing, damaged"):
            ClipTokenizer.load(target)
