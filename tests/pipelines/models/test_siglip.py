"""SigLIP 2 in its published form, equal to transformers' model and tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from pipelines.errors import BadInput
from pipelines.models.checkpoint import load_weights
from pipelines.models.siglip.convert import convert, write_tokenizer
from pipelines.models.siglip.network import Siglip, SiglipConfig
from pipelines.models.siglip.tokenizer import SiglipTokenizer
from pipelines.models.source import SourceCheckpoint
from pipelines.weights.convert import convert_file
from tests.support.openai_clip import assert_same_images, close, pictures, shuffled

LENGTH = 12
PROMPTS = ["A Red Fox", "a red fox", "红色的狐狸 🎨", "", "fox " * 40]


def their_tokenizer() -> Any:
    """Gemma's form: special tokens, 256 bytes, a few letters and merges."""
    from transformers import Siglip2Tokenizer

    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words += [*"▁abcdefghijklmnopqrstuvwxyz红色的", "ed", "red", "▁red", "ox", "fox", "红色"]
    merges: Any = [("e", "d"), ("r", "ed"), ("▁", "red"), ("o", "x"), ("f", "ox"), ("红", "色")]
    vocabulary = {word: k for k, word in enumerate(words)}
    return Siglip2Tokenizer(vocabulary, merges, add_bos_token=False, add_eos_token=True)


def their_ids(prompts: list[str]) -> torch.Tensor:
    theirs = their_tokenizer()
    theirs.padding_side = "right"
    batch = theirs(prompts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
    return batch["input_ids"]


@pytest.fixture
def book(tmp_path: Path) -> SiglipTokenizer:
    their_tokenizer().save_pretrained(tmp_path / "published")
    write_tokenizer(tmp_path / "published" / "tokenizer.json", tmp_path / "siglip-tokenizer.json")
    return SiglipTokenizer.load(tmp_path / "siglip-tokenizer.json")


WIDE = {"hidden_size": 48, "num_attention_heads": 3, "intermediate_size": 80, "num_hidden_layers": 2}
FLAT = {
    "hidden_size": 36,
    "num_attention_heads": 2,
    "intermediate_size": 129,
    "num_hidden_layers": 1,
}  # as SO400M


def their_model(sizes: dict[str, int] = WIDE, side: int = 29, patch: int = 7, **text: int) -> Any:
    from transformers import SiglipConfig as Sizes
    from transformers import SiglipModel

    special: dict[str, Any] = {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
    return shuffled(
        SiglipModel(
            Sizes(
                text_config=sizes | {"vocab_size": 320, "max_position_embeddings": LENGTH} | special | text,
                vision_config=sizes | {"image_size": side, "patch_size": patch, "num_hidden_layers": 3},
            )
        )
    )


@pytest.mark.parametrize(("sizes", "side", "patch"), [(WIDE, 29, 7), (FLAT, 24, 8), (FLAT, 33, 4)])
def test_the_published_files_give_the_same_vectors(
    sizes: dict[str, int], side: int, patch: int, tmp_path: Path, book: SiglipTokenizer
) -> None:
    reference = their_model(sizes, side, patch)
    with torch.no_grad():
        reference.logit_bias.fill_(-7.5)
    reference.save_pretrained(tmp_path / "model")
    assert convert_file([tmp_path / "model"], tmp_path / "ours.safetensors") == "siglip"
    config = convert(
        SourceCheckpoint("a", reference.state_dict(), json.loads(reference.config.to_json_string()))
    ).config
    heads = sizes["num_attention_heads"]
    assert (config["image_size"], config["image_head_count"], config["context_length"]) == (
        side,
        heads,
        LENGTH,
    )
    clip = Siglip(SiglipConfig.from_dict(config), book)
    load_weights(tmp_path / "ours.safetensors", clip)
    clip.eval()
    assert_same_images(clip, reference, lambda images: images)
    assert clip.bias.item() == -7.5 and clip.log_scale.equal(reference.logit_scale[0])

    ids = their_ids(PROMPTS)
    assert clip.tokenize(PROMPTS).equal(ids)
    images = pictures(side)
    with torch.no_grad():
        theirs = reference(input_ids=ids, pixel_values=images)
        found, seen = clip.encode_text(PROMPTS), clip.encode_image(images)
        logits = seen @ found.T * clip.log_scale.exp() + clip.bias
    assert close(found, theirs.text_embeds) and close(logits, theirs.logits_per_image)
    assert found[0].equal(found[1])  # read in lower case
    assert close(clip.encode_text(PROMPTS[2:3]), theirs.text_embeds[2:3])  # alone, as in a batch


def test_other_sizes_of_pictures_are_made_smaller_bilinearly(book: SiglipTokenizer) -> None:
    config = convert(SourceCheckpoint("a", their_model().state_dict(), {"num_attention_heads": 3})).config
    assert config["image_size"] == 28  # without a config, what the patches cover
    clip = Siglip(SiglipConfig.from_dict(config), book)
    large = pictures(64)
    expected = F.interpolate(large, (28, 28), mode="bilinear", antialias=True)
    assert clip.prepare(large).equal(expected) and clip.prepare(expected) is expected


def test_the_vocabulary_shows_its_pieces(book: SiglipTokenizer) -> None:
    assert book.pieces("A RED fox 红色é") == ["a", " red", " ", "fox", " ", "红色", "?", "?"]
    assert book.unknown_words("Ж") == [] and book.vocabulary_size == len(their_tokenizer())


def test_what_is_no_siglip_2_is_refused(tmp_path: Path) -> None:
    state = their_model().state_dict()
    patches = "vision_model.embeddings.patch_embedding.weight"
    words = "text_model.embeddings.token_embedding.weight"
    for change, sentence in (
        ({patches: torch.zeros(48, 147)}, "pictures of any shape"),
        ({words: torch.zeros(32_000, 48)}, "a SigLIP of the first version"),
        ({"visual.trunk.norm.weight": torch.zeros(48)}, "an image tower of timm"),
        ({"text_model.head.bias": torch.zeros(47)}, r"head\.bias should be \(48,\) and is \(47,\)"),
    ):
        with pytest.raises(BadInput, match=sentence):
            convert(SourceCheckpoint("X.pt", state | change, {"num_attention_heads": 3}))
    with pytest.raises(BadInput, match="the activation 'relu'"):
        convert(SourceCheckpoint("X.pt", state, {"num_attention_heads": 3, "hidden_act": "relu"}))
    with pytest.raises(BadInput, match="heads its vision tower of width 48"):
        convert(SourceCheckpoint("X.pt", state, {}))
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "BPE", "vocab": {}}}')
    with pytest.raises(BadInput, match=r"^tokenizer\.json is not the vocabulary of SigLIP 2"):
        write_tokenizer(tmp_path / "tokenizer.json", tmp_path / "out.json")
