"""The pictures that Edit learns from: how they are chosen and written, read back, and found by CLIP."""

from __future__ import annotations

import io
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.numpy import load_file, save_file

from pipelines.edit.source_images import CHUNK, SourceImages
from pipelines.errors import BadInput
from pipelines.models.checkpoint import read_header, save_checkpoint
from pipelines.models.clip.network import Clip
from pipelines.models.unet.network import Unet, UnetConfig
from pipelines.studio import Studio
from pipelines.training.data import cli as data_cli
from pipelines.training.data.dataset import Dataset, on_background
from pipelines.training.data.examples import pick_examples, write_examples
from pipelines.training.data.icons import ICON_SETS, VALIDATION_STYLE, Icon, may_be_mirrored
from pipelines.weights import catalog
from tests.support.tiny import tiny_clip

STYLES = ("noto", "twemoji", "fxemoji", "emojione")  # the last is never trained on


def many_icons() -> list[Icon]:
    """Every style's drawing of 20 faces, 20 foods and 60 other things, and of some that are no examples."""
    things = [(f"face {chr(97 + k)}", "face") for k in range(20)]
    things += [(f"dish {chr(97 + k)}", "food") for k in range(20)]
    things += [(f"thing {chr(97 + k % 20)}{chr(97 + k // 20)}x", "tool") for k in range(60)]
    things += [("flag japan", "face"), ("keycap 3", "tool"), ("blue square", "tool"), ("aries", "zodiac")]
    icons = [Icon(style, name, (), f"名{name}", (word,)) for style in STYLES for name, word in things]
    icons += [Icon("fxemoji", "faceside"), Icon("emojione", "face only here", (), "名", ("face",))]
    icons.append(Icon("fxemoji", "dish called otherwise", (), "名dish a", ("food",)))
    return icons


@pytest.fixture(scope="module")
def emoji(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Three discs in each style, half transparent canvas, as `build` writes them, read at 64 x 64."""
    blobs, records = [], []
    for k, style in enumerate(STYLES):
        for n, colour in enumerate(("red", "green", "blue")):
            picture = Image.new("RGBA", (128, 128))
            ImageDraw.Draw(picture).ellipse((8 * k, 8 * n, 90 + 8 * k, 90 + 8 * n), fill=colour)
            file = io.BytesIO()
            picture.save(file, "WEBP", lossless=True)
            blobs.append(file.getvalue())
            records.append([style, f"{colour} disc", [], f"{colour}圆", [], []])
    path = tmp_path_factory.mktemp("data") / "emoji.safetensors"
    tensors = {
        "webp": np.frombuffer(b"".join(blobs), np.uint8),
        "offset": np.cumsum([0, *map(len, blobs)]).astype(np.int64),
    }
    save_file(tensors, path, {"icons": json.dumps(records), "phrases": "a round thing"})
    return Dataset(path, size=64)


def some_examples(count: int = CHUNK + 6) -> SourceImages:
    """Pictures of noise, 16 x 16, each with its own tint; more than CLIP takes at once."""
    generator = torch.Generator().manual_seed(5)
    pictures = torch.rand(count, 3, 16, 16, generator=generator) * torch.rand(
        count, 3, 1, 1, generator=generator
    )
    return SourceImages((pictures * 255).to(torch.uint8), [f"picture {k}" for k in range(count)])


# ------------------------------------------------------------------------------------------------ choosing, writing


def test_examples_are_distinct_things_in_all_training_styles() -> None:
    icons = many_icons()
    picked = pick_examples(icons, 60)
    assert len(picked) == 60 and picked == pick_examples(icons, 60)
    assert picked != pick_examples(icons, 60, seed=1)
    chosen = [icons[k] for k in picked]
    assert len({icon.chinese for icon in chosen}) == len({icon.name for icon in chosen}) == 60
    assert all(may_be_mirrored(icon) and icon.chinese for icon in chosen)
    assert not {"flag japan", "keycap 3", "blue square", "aries", "face only here"} & {i.name for i in chosen}
    assert Counter(icon.style for icon in chosen) == {"noto": 20, "twemoji": 20, "fxemoji": 20}
    words = Counter(icon.keywords[0] for icon in chosen)
    assert words == {"face": 20, "food": 10, "tool": 30}  # 0.42 and 0.16 of 60, had there been more faces


def test_what_is_written_is_what_the_data_shows(emoji: Dataset, tmp_path: Path) -> None:
    path, again = tmp_path / "pictures.safetensors", tmp_path / "again.safetensors"
    write_examples(emoji, path)
    write_examples(emoji, again)
    assert path.read_bytes() == again.read_bytes()
    config, facts = read_header(path)
    assert config == {"image_size": 64, "count": 3}
    assert facts["data"] == emoji.hash and "CC-BY-4.0" in facts["licence"] and "emojione" not in str(facts)
    examples = SourceImages.load(path)
    assert len(examples) == 3 and sorted(examples.names) == ["blue disc", "green disc", "red disc"]
    assert sorted(facts["styles"]) == sorted(STYLES[:3])
    assert examples.pictures.shape == (3, 3, 64, 64) and examples.pictures.dtype == torch.uint8
    places = {(icon.style, icon.name): k for k, icon in enumerate(emoji.icons)}
    for picture, key in zip(
        examples.pictures, zip(facts["styles"], facts["names"], strict=True), strict=True
    ):
        true = on_background(emoji.rgba[places[key]]).astype(float)
        assert np.square(picture.permute(1, 2, 0).numpy() - true).mean() ** 0.5 < 12  # chroma is halved


def test_the_command_rewrites_the_examples_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], emoji: Dataset
) -> None:
    out = tmp_path / "pictures.safetensors"
    monkeypatch.setattr(data_cli, "EXAMPLES_FILE", out)
    monkeypatch.setattr(data_cli, "NAMES_FILE", tmp_path / "names.json")
    monkeypatch.setattr(data_cli, "build", lambda path: pytest.fail("nothing was to be fetched"))
    assert data_cli.main(["--examples", "--out", str(tmp_path / "none.safetensors")]) == 1
    assert "is not there" in capsys.readouterr().err and not out.exists()
    monkeypatch.setattr(data_cli, "Dataset", lambda path, size: emoji)
    assert data_cli.main(["--examples"]) == 0 and len(SourceImages.load(out)) == 3
    out.unlink()
    built: list[Path] = []
    monkeypatch.setattr(data_cli, "build", built.append)
    assert data_cli.main(["--out", str(tmp_path / "emoji")]) == 0
    assert built == [tmp_path / "emoji"] and len(SourceImages.load(out)) == 3


# ---------------------------------------------------------------------------------------------------------- reading


def _with_tensors(path: Path, **changes: np.ndarray) -> None:
    header = {
        name: json.dumps(value) for name, value in zip(("config", "facts"), read_header(path), strict=True)
    }
    save_file({**load_file(path), **changes}, path, header)


def _with_header(path: Path, **changes: Any) -> None:
    config, facts = read_header(path)
    facts["names"] = changes.pop("names", facts["names"])
    save_file(
        load_file(path), path, {"config": json.dumps({**config, **changes}), "facts": json.dumps(facts)}
    )


def _png() -> np.ndarray:
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "PNG")
    return np.frombuffer(file.getvalue(), np.uint8)


DAMAGES = {
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "a stranger": lambda path: path.write_bytes(b"\x80\x04pickle" * 9),
    "no header": lambda path: save_file(load_file(path), path),
    "no webp": lambda path: save_file({"x": np.zeros(2)}, path, {"config": "{}", "facts": "{}"}),
    "broken pixels": lambda path: _with_tensors(path, webp=np.zeros_like(load_file(path)["webp"])),
    "offsets that run back": lambda path: _with_tensors(path, offset=load_file(path)["offset"][[0, 2, 1, 3]]),
    "offsets too far": lambda path: _with_tensors(path, offset=load_file(path)["offset"] * 2),
    "another size": lambda path: _with_header(path, image_size=32),
    "another count": lambda path: _with_header(path, count=2),
    "names missing": lambda path: _with_header(path, names=["red disc"]),
    "not WebP": lambda path: _with_tensors(
        path, webp=np.tile(_png(), 3), offset=np.arange(4, dtype=np.int64) * len(_png())
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused_in_one_sentence(damage: str, emoji: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "pictures.safetensors"
    write_examples(emoji, path)
    DAMAGES[damage](path)
    with pytest.raises(
        BadInput, match=r"^the example pictures pictures\.safetensors are damaged .*restore the file$"
    ):
        SourceImages.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"pictures\.safetensors are missing"):
        SourceImages.load(tmp_path / "pictures.safetensors")


# ---------------------------------------------------------------------------------------------------------- finding


def test_rows_come_as_asked_and_between_minus_one_and_one() -> None:
    examples = some_examples(4)
    examples.pictures[2], examples.pictures[3] = 255, 0
    rows = examples.tensor([3, 2, 2])
    assert rows.shape == (3, 3, 16, 16) and rows.dtype == torch.float32
    assert (rows[0] == -1).all() and (rows[1] == 1).all() and (rows[2] == 1).all()


def test_the_nearest_are_those_of_the_greatest_cosine() -> None:
    clip, examples = tiny_clip(), some_examples()
    own = clip.encode_image(examples.tensor(list(range(len(examples)))))
    vectors = torch.stack([3 * own[7], own[7], own[66]])
    mean = vectors.mean(0) / vectors.mean(0).norm()
    cosines = examples.cosines(clip, vectors)
    assert torch.allclose(cosines, own @ mean, atol=1e-5) and not cosines.requires_grad
    rows = examples.nearest(clip, vectors, 10)
    assert rows == (own @ mean).argsort(descending=True)[:10].tolist()
    assert examples.nearest(clip, own[66:67], 1) == [66]  # one of the second chunk
    assert sorted(examples.nearest(clip, vectors, 1000)) == list(range(len(examples)))


def test_each_clip_sees_the_pictures_once(monkeypatch: pytest.MonkeyPatch) -> None:
    chunks: list[int] = []
    encode = Clip.encode_image

    def counted(clip: Clip, images: torch.Tensor) -> torch.Tensor:
        chunks.append(len(images))
        return encode(clip, images)

    monkeypatch.setattr(Clip, "encode_image", counted)
    one, examples = tiny_clip(), some_examples()
    vectors = torch.ones(2, 16)
    first = examples.cosines(one, vectors)
    examples.nearest(one, -vectors, 3)
    assert chunks == [CHUNK, 6]
    other = tiny_clip()
    with torch.no_grad():
        for parameter in other.image.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    assert not torch.allclose(examples.cosines(other, vectors), first)
    assert chunks == [CHUNK, 6] * 2
    assert torch.equal(examples.cosines(one, vectors), first) and len(chunks) == 4


# ---------------------------------------------------------------------------------------------------------- the pack


def test_the_pack_has_them_and_clip_finds_things_by_name() -> None:
    checkpoint = catalog.CHECKPOINTS["tiny-pictures"]
    assert checkpoint.size <= 1_200_000
    studio = Studio("tiny", "cpu")
    examples = studio.load("tiny-pictures")
    assert examples is studio.load("tiny-pictures")
    assert len(set(examples.names)) == len(examples) >= 600
    assert examples.pictures.shape == (len(examples), 3, 64, 64)
    styles = Counter(read_header(checkpoint.path)[1]["styles"])
    assert set(styles) == set(ICON_SETS) - {VALIDATION_STYLE}
    assert min(styles.values()) > 0.9 * max(styles.values())
    corners = examples.pictures[:, :, [0, 0, -1, -1], [0, -1, 0, -1]].float().mean((1, 2))
    assert (corners > 240).float().mean() > 0.9  # on white
    clip = studio.clip()
    found = [examples.names[k] for k in examples.nearest(clip, clip.encode_text(["a face", "face"]), 50)]
    assert sum("face" in name for name in found) >= 25


def test_the_studio_loads_the_diffusion_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "unet.safetensors"
    one = replace(catalog.CHECKPOINTS["tiny-unet"], file=str(file))
    monkeypatch.setitem(catalog.CHECKPOINTS, "tiny-unet", one)
    studio = Studio("tiny", "cpu")
    with pytest.raises(BadInput, match=r"unet\.safetensors are missing"):
        studio.load("tiny-unet")
    torch.manual_seed(4)
    unet = Unet(UnetConfig(16, widths=(8, 16), attention_count=1, head_size=8))
    save_checkpoint(file, unet, unet.config.to_dict(), {})
    loaded = studio.load("tiny-unet")
    assert loaded.config == unet.config and not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    weight = loaded.network.conv_in.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(weight, unet.network.conv_in.weight.half().float())
