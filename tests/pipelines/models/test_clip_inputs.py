"""What goes into a published CLIP, and what is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pipelines.errors import BadInput
from pipelines.models.openai_clip.convert import (
    convert,
    write_tokenizer,
)
from pipelines.models.openai_clip.network import OpenaiClip
from pipelines.models.openai_clip.tokenizer import ClipTokenizer
from pipelines.models.source import SourceCheckpoint
from pipelines.weights.readers import read_original
from tests.support.openai_clip import (
    PROMPTS,
    book,
    chinese_clip,
    close,
    normalized,
    openai_resnet,
    openai_vit,
    ours,
    pictures,
    simple_tokenizer,
    table,
    transformers_clip,
)


def test_pictures_of_any_size_are_resized_like_a_photograph(tmp_path: Path) -> None:
    from PIL import Image

    clip = ours(SourceCheckpoint("ViT.pt", openai_vit().state_dict(), {"quick_gelu": True}), tmp_path)
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
        SourceCheckpoint("ViT.pt", openai_vit().state_dict(), {"quick_gelu": True}),
        SourceCheckpoint("RN.pt", openai_resnet().state_dict(), {"quick_gelu": True}),
        SourceCheckpoint("C.bin", chinese_clip().state_dict(), {"num_attention_heads": 3}),
    ]
    for original in originals:
        clip = ours(original, tmp_path)
        if isinstance(clip, OpenaiClip):
            clip.token_embedding = nn.Embedding(49408, clip.config.text_width)
        images, prompts = pictures(clip.config.image_size), ["a fox", "红"]
        with torch.no_grad():
            whole = clip.encode_image(images), clip.encode_text(prompts)
            clip.forget_texts()
            clip.to(dtype)
            rounded = clip.encode_image(images), clip.encode_text(prompts)
        for one, other in zip(whole, rounded, strict=True):
            assert other.dtype == torch.float32
            assert ((one * other).sum(1) > 0.995).all()
            assert torch.allclose(other.norm(dim=1), torch.ones(2), atol=1e-5)


@pytest.mark.parametrize(
    "name",
    ["visual.proj", "visual.transformer.resblocks.1.mlp.c_proj.bias", "text_projection", "logit_scale"],
)
def test_a_file_that_lacks_a_tensor_is_refused(name: str) -> None:
    state = openai_vit().state_dict()
    del state[name]
    shown = name.replace("logit", "log")
    with pytest.raises(BadInput, match=rf"^ViT\.pt (does not fit|is not a whole CLIP): {shown} .*absent"):
        convert(SourceCheckpoint("ViT.pt", state, {}))


def test_files_of_other_shapes_and_kinds_are_refused() -> None:
    state = openai_vit().state_dict()
    for name, value, words in (
        ("visual.proj", torch.zeros(128, 23), r"visual.proj should be \(128, 24\) and is \(128, 23\)"),
        ("visual.positional_embedding", torch.zeros(25, 128), "does not look at squares"),
        ("visual.conv1.weight", torch.zeros(128), r"visual.conv1.weight has the shape \(128,\)"),
        ("visual.transformer.resblocks.0.ls_1.gamma", torch.zeros(128), "should be absent"),
    ):
        with pytest.raises(BadInput, match=rf"^ViT\.pt .*{words}"):
            convert(SourceCheckpoint("ViT.pt", state | {name: value}, {}))
    for name, words in {
        "visual.trunk.norm.weight": "an image tower of timm",
        "text.transformer.embeddings.word_embeddings.weight": "a text tower of transformers inside open_clip",
        "bert.embeddings.word_embeddings.weight": "the original layout of Chinese CLIP",
    }.items():
        with pytest.raises(BadInput, match=rf"^X\.pt is {words}, which is not supported"):
            convert(
                SourceCheckpoint(
                    "X.pt", {name: torch.zeros(1), "token_embedding.weight": torch.zeros(2, 2)}, {}
                )
            )
    with pytest.raises(BadInput, match=r"^unet\.pt is not a CLIP: expected .* and found conv_in\.weight$"):
        convert(SourceCheckpoint("unet.pt", {"conv_in.weight": torch.zeros(1)}, {}))
    state = openai_resnet().state_dict()
    del state["visual.layer3.1.bn2.running_var"]
    with pytest.raises(
        BadInput, match=r"^RN\.pt does not fit: visual\.layer3\.1\.bn2\.bias should be absent"
    ):
        convert(SourceCheckpoint("RN.pt", state, {}))
    state = transformers_clip("gelu", hidden_size=64, num_attention_heads=1, intermediate_size=8).state_dict()
    del state["text_model.encoder.layers.1.self_attn.k_proj.bias"]
    with pytest.raises(
        BadInput, match=r"^m\.bin does not fit: transformer.*1\.attn\.in_proj_bias should be .* and is absent"
    ):
        convert(SourceCheckpoint("m.bin", state, {}))


def test_a_truncated_file_is_refused_in_one_sentence(tmp_path: Path) -> None:
    torch.save(openai_vit().state_dict(), tmp_path / "ViT.pt")
    data = (tmp_path / "ViT.pt").read_bytes()
    (tmp_path / "ViT.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(BadInput, match=r"^ViT\.pt [^\n]*$"):
        convert(read_original(tmp_path / "ViT.pt"))


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
    forms["vocab"].write_text(json.dumps(book().vocabulary.get_vocab()), "utf-8")
    (tmp_path / "b" / "merges.txt").write_text("\n".join(["#version: 0.2", *lines[1:48895]]) + "\n", "utf-8")

    from transformers import CLIPTokenizer

    merges: Any = [tuple(line.split()) for line in lines[1:48895]]
    CLIPTokenizer(vocab=book().vocabulary.get_vocab(), merges=merges).save_pretrained(tmp_path / "c")
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
