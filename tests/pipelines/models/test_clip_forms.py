"""CLIP in each published form, equal to the reference."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from pipelines.errors import BadInput
from pipelines.models.openai_clip.convert import (
    convert,
    write_tokenizer,
)
from pipelines.models.openai_clip.network import OpenaiClipConfig
from pipelines.models.openai_clip.tokenizer import ClipTokenizer, WordPieceTokenizer
from pipelines.models.source import SourceCheckpoint
from pipelines.weights.readers import read_original
from tests.support.openai_clip import (
    PROMPTS,
    WORDS,
    assert_same_images,
    chinese_clip,
    close,
    features,
    open_clip_code,
    openai_code,
    openai_resnet,
    openai_vit,
    ours,
    shuffled,
    simple_tokenizer,
    texts,
    transformers_clip,
)


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
    clip = ours(SourceCheckpoint("ViT.pt", reference.state_dict(), {"quick_gelu": True}), tmp_path)
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
        (SourceCheckpoint("ViT-B-32.pt", state, {}), "quick_gelu", "OpenAI's was taken"),
        (SourceCheckpoint("ViT-B-32.pt", state | {"vocab_size": torch.tensor(300)}, {}), "quick_gelu", ""),
        (SourceCheckpoint("ViT-B-32.pt", state, {"hidden_act": "gelu"}), "gelu", ""),
        (SourceCheckpoint("epoch_3.pt", nested, {}), "gelu", "open_clip's default"),
        (SourceCheckpoint("vit-quickgelu-laion.pt", nested, {}), "quick_gelu", ""),
        (SourceCheckpoint("open_clip_pytorch_model.bin", state, {}), "gelu", "open_clip's default"),
        (
            SourceCheckpoint("open_clip_pytorch_model.bin", state, {"model_cfg": {"quick_gelu": True}}),
            "quick_gelu",
            "",
        ),
    ):
        config = convert(original).config
        assert (config["image_activation"], config["text_activation"]) == (activation, activation)
        assert note in config["note"]
        assert bool(note) == bool(config["note"])


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
    original = replace(read_original(tmp_path / "open_clip_model.safetensors"), metadata=numbers)
    clip = ours(original, tmp_path)
    assert clip.config.image_activation == ("quick_gelu" if quick else "gelu")
    assert clip.config.note == ""
    assert_same_images(clip, reference)
    assert close(clip.text_features(texts(90, 10)), reference.encode_text(texts(90, 10)))


def test_a_preference_judge_in_its_published_form_is_a_clip(tmp_path: Path) -> None:
    """HPSv2.1: open_clip's ViT-H in half precision, without its hyperparameters, in a dictionary of its training."""
    code = open_clip_code()
    image = code.CLIPVisionCfg(
        layers=2, width=1280, head_width=80, mlp_ratio=0.1, patch_size=14, image_size=28
    )
    text = code.CLIPTextCfg(context_length=10, vocab_size=90, width=128, heads=2, layers=1)
    reference = shuffled(code.CLIP(16, image, text), seed=4).half()
    torch.save({"state_dict": reference.state_dict(), "epoch": 1}, tmp_path / "HPS_v2.1_compressed.pt")
    clip = ours(read_original(tmp_path / "HPS_v2.1_compressed.pt"), tmp_path)
    reference.float()
    assert (clip.config.image_head_count, clip.config.image_activation) == (16, "gelu")
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


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_transformers_clip_gives_its_features(activation: str, tmp_path: Path) -> None:
    reference = transformers_clip(activation, hidden_size=48, num_attention_heads=3, intermediate_size=112)
    state = reference.state_dict() | {"vision_model.embeddings.position_ids": torch.arange(10)[None]}
    save_file(state, tmp_path / "model.safetensors")
    numbers = json.loads(reference.config.to_json_string())
    clip = ours(replace(read_original(tmp_path / "model.safetensors"), metadata=numbers), tmp_path)
    assert (clip.config.image_head_count, clip.config.text_activation) == (3, activation)
    assert_same_images(clip, reference)
    tokens = texts(120, 11)
    assert close(clip.text_features(tokens), features(reference.get_text_features(input_ids=tokens)))


def test_without_a_config_the_sizes_of_published_models_are_assumed(tmp_path: Path) -> None:
    reference = transformers_clip("quick_gelu", hidden_size=128, num_attention_heads=2, intermediate_size=96)
    clip = ours(SourceCheckpoint("model.safetensors", reference.state_dict(), {}), tmp_path)
    assert "transformers' default" in clip.config.note
    assert_same_images(clip, reference)
    reference = transformers_clip("gelu", hidden_size=48, num_attention_heads=3, intermediate_size=96)
    with pytest.raises(
        BadInput, match=r"^model\.bin does not say how many heads its vision tower of width 48"
    ):
        convert(SourceCheckpoint("model.bin", reference.state_dict(), {}))
    with pytest.raises(BadInput, match=r"the activation 'relu'; only quick_gelu and gelu"):
        convert(
            SourceCheckpoint("model.bin", reference.state_dict(), {"vision_config": {"hidden_act": "relu"}})
        )


def test_chinese_clip_gives_its_features_and_reads_chinese(tmp_path: Path) -> None:
    reference = chinese_clip()
    state = reference.state_dict() | {"text_model.embeddings.position_ids": torch.arange(60)[None]}
    torch.save(state, tmp_path / "pytorch_model.bin")
    original = read_original(tmp_path / "pytorch_model.bin")
    clip = ours(replace(original, metadata=json.loads(reference.config.to_json_string())), tmp_path)
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
