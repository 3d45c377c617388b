"""Scores as tables: a csv of pairs, broken files among them, both judges."""

from __future__ import annotations

import csv
import errno
import io
from pathlib import Path

import pytest
import torch
from PIL import Image

from pipelines.clip.ranking import text_vector
from pipelines.errors import BadInput
from pipelines.io.folders import picture_files
from pipelines.see.pictures import encode, open_square, pictures_below, see_all
from pipelines.see.score import read_pairs, score_pairs, to_csv
from tests.support.painter import PainterClip
from tests.support.tiny import tiny_clip, tiny_critic


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, colour, size in (
        ("a.png", "red", (16, 16)),
        ("b.JPG", "blue", (20, 10)),
        ("deep/c.webp", "lime", (16, 16)),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", size, colour).save(tmp_path / name)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n rest")
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def test_a_folder_that_may_not_be_read_takes_away_only_itself(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(inside: Path) -> list[Path]:
        if inside != folder:
            raise PermissionError(errno.EACCES, "Permission denied", str(inside))
        return picture_files(inside)

    monkeypatch.setattr("pipelines.see.pictures.picture_files", closed)
    assert [file.name for file in pictures_below(folder)] == ["a.png", "b.JPG", "broken.png"]


def test_pictures_of_a_folder_and_broken_ones_apart(folder: Path) -> None:
    files = pictures_below(folder)
    assert [file.name for file in files] == ["a.png", "b.JPG", "broken.png", "c.webp"]
    steps: list[tuple[int, int]] = []
    seen = see_all(PainterClip(), files, lambda step: steps.append((step.done, step.total)))
    assert [Path(source).name for source in seen.sources] == ["a.png", "b.JPG", "c.webp"] and steps == [
        (4, 4)
    ]
    assert Path(seen.broken[0][0]).name == "broken.png" and seen.vectors.shape == (3, 3)
    (folder / "none").mkdir()
    with pytest.raises(BadInput, match="holds no PNG"):
        pictures_below(folder / "none")
    with pytest.raises(BadInput, match="there is no folder"):
        pictures_below(folder / "nowhere")
    with pytest.raises(BadInput, match="none of the 2 pictures"):
        see_all(PainterClip(), [folder / "broken.png", folder / "notes.txt"])


def test_a_batch_changes_no_vector(folder: Path) -> None:
    """Pictures of other sizes between them or none, one at a time or all: the same to rounding."""
    clip = tiny_clip()
    images = [open_square(folder / name) for name in ("a.png", "b.JPG", "deep/c.webp", "a.png")]
    alone = torch.cat([encode(clip, [image]) for image in images])
    assert torch.allclose(encode(clip, images), alone, atol=1e-5)
    assert torch.allclose(encode(clip, [images[0], images[2]]), alone[[0, 2]], atol=1e-5)


def test_pairs_are_scored_by_both(folder: Path) -> None:
    pairs = [
        (str(folder / name), prompt)
        for name in ("a.png", "broken.png", "b.JPG")
        for prompt in ("a red heart", "two cats")
    ]
    clip, critic = tiny_clip(), tiny_critic()
    rows = score_pairs(clip, critic, pairs)
    assert [(row.file, row.prompt) for row in rows] == pairs
    expected = float(encode(clip, [open_square(folder / "b.JPG")])[0] @ text_vector(clip, "two cats"))
    assert rows[5].clip == pytest.approx(expected, abs=1e-5) and rows[5].critic != rows[5].clip
    assert rows[2].clip is None and rows[2].problem is not None and rows[2].to_json()["problem"]["code"]
    table = list(csv.DictReader(io.StringIO(to_csv(rows))))
    assert table[0]["prompt"] == "a red heart" and float(table[0]["clip"]) == pytest.approx(
        rows[0].clip, abs=1e-4
    )
    assert table[3]["clip"] == "" and table[3]["problem"]
    assert score_pairs(clip, None, pairs[:1])[0].critic is None


def test_a_csv_of_pairs(folder: Path) -> None:
    path = folder / "pairs.csv"
    path.write_text('prompt,seed,file\n"a cat, red",3,a.png\n\n红心,4,deep/c.webp\n', "utf-8")
    assert read_pairs(path) == [(str(folder / "a.png"), "a cat, red"), (str(folder / "deep/c.webp"), "红心")]
    path.write_text("a.png,a cat\n", "utf-8-sig")
    assert read_pairs(path) == [(str(folder / "a.png"), "a cat")]
    for text, code in (("", "csv_size"), ("file,prompt\n", "csv_size"), ("a.png\n", "csv_row")):
        path.write_text(text)
        with pytest.raises(BadInput) as raised:
            read_pairs(path)
        assert raised.value.code == f"see.{code}"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="UTF-8"):
        read_pairs(path)
