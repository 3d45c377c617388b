"""A user's folder of pictures: every form of captions, everything odd, and the data file that is made of it."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.errors import BadInput
from pipelines.training.data.dataset import Dataset
from pipelines.training.data.folder import Check, check, squared
from pipelines.training.data.sources import MOST_CHARACTERS, clean_captions, words_of_name


def picture(k: int, size: tuple[int, int] = (40, 30), mode: str = "RGB") -> Image.Image:
    """A picture of its own colours, by its number."""
    pixels = np.random.default_rng(k).integers(0, 256, (4, 4, len(mode)), np.uint8)
    return Image.fromarray(pixels, mode).resize(size, Image.Resampling.NEAREST)


def png(k: int, **options: object) -> bytes:
    file = io.BytesIO()
    picture(k, **options).save(file, "PNG")  # type: ignore[arg-type]
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten pictures with captions beside them."""
    place = tmp_path / "my pictures"
    place.mkdir()
    for k in range(10):
        (place / f"{k}.png").write_bytes(png(k))
        (place / f"{k}.txt").write_text(f"picture number {k}")
    return place


def captions_of(found: Check) -> dict[str, tuple[str, ...]]:
    return {icon.name: icon.also for icon in Dataset(found.file, 32).icons}


def problems_of(found: Check) -> dict[str, str]:
    return {one.name: one.problem.code.removeprefix("training.") for one in found.skipped}


def test_captions_beside_pictures(folder: Path, tmp_path: Path) -> None:
    found = check(folder, tmp_path / "cache")
    assert (found.pictures, found.captions, found.sources) == (10, 10, {"txt": 10})
    assert (found.smallest, found.enlarged, found.skipped) == ((40, 30), 10, ())
    data = Dataset(found.file)
    assert data.rgba.shape == (10, 128, 128, 4) and data.opaque.all() and not data.of_things
    assert {icon.name for icon in data.icons} == {f"picture number {k}" for k in range(10)}
    assert len(data.validation) == found.held_out >= 1 and data.hash == found.hash
    assert sorted([*data.train, *data.validation]) == list(range(10))
    with Image.open(found.sheet) as sheet:
        assert sheet.width > 500


def test_an_unchanged_folder_is_not_read_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "broken.png").write_bytes(b"nothing")
    first = check(folder, tmp_path / "cache")
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.training.data.folder.open_picture", None)
        assert check(folder, tmp_path / "cache") == first
    assert "broken.png" in problems_of(first)
    (folder / "0.txt").write_text("another caption")
    second = check(folder, tmp_path / "cache")
    assert second.hash != first.hash and "another caption" in captions_of(second)


def test_pictures_are_held_out_by_what_they_show(folder: Path, tmp_path: Path) -> None:
    def held_out(place: Path) -> set[bytes]:
        data = Dataset(check(place, tmp_path / "cache").file)
        return {data.rgba[k].tobytes() for k in data.validation}

    other = tmp_path / "other"
    other.mkdir()
    for k in range(30):
        (other / f"called otherwise {29 - k}.png").write_bytes(png(k))
    few, more = held_out(folder), held_out(other)
    assert len(more) > 1
    for k in range(10):
        (other / f"called otherwise {29 - k}.png").unlink()
    assert held_out(other) <= more
    assert len(few) == 1 or few <= more


@pytest.mark.parametrize(
    ("table", "text"),
    [
        (
            "captions.jsonl",
            '{"image": "0.png", "caption": "a red cat"}\n{"image": "0.png", "caption": "猫"}\n',
        ),
        ("metadata.jsonl", '\ufeff{"file_name": "0.png", "text": ["a red cat", "猫"]}\n'),
        ("metadata.csv", 'file_name,text\r\n0.png,"a red cat"\r\n0.png,猫\r\n'),
        ("METADATA.CSV", "file_name,caption,other\n./0.png,a red cat,1\n0.png,猫,2\n"),
        ("metadata.csv", "sep=;\nfile_name;text\n\n0.png;a red cat\n0.png;猫\n"),
        ("metadata.csv", "File_Name\t Text\n0.png\ta red cat\n0.png\t猫\n"),
        ("captions.jsonl", '{"File": "0.png", "TEXT": [], "Caption": ["a red cat", "猫", null, 3]}\n'),
    ],
)
def test_tables_of_captions(folder: Path, tmp_path: Path, table: str, text: str) -> None:
    (folder / table).write_text(text, "utf-8")
    found = check(folder, tmp_path / "cache")
    assert captions_of(found)["a red cat"] == ("猫",)
    assert found.sources == {table.lower(): 1, "txt": 9} and found.chinese == 1


@pytest.mark.parametrize(
    ("table", "text", "problem"),
    [
        ("metadata.csv", "0.png,a cat\n1.png,a dog\n", "table_without_names"),
        ("metadata.csv", "file_name,words\n0.png,a cat\n", "table_without_texts"),
        ("metadata.jsonl", '{"file_name": "0.png"}\n{"file_name": "1.png"}\n', "table_without_texts"),
    ],
)
def test_a_table_without_its_columns_is_told_once(
    table: str, text: str, problem: str, folder: Path, tmp_path: Path
) -> None:
    (folder / table).write_text(text)
    found = check(folder, tmp_path / "cache")
    assert problems_of(found) == {table: problem} and found.sources == {"txt": 10}


def test_tables_may_lie_in_folders_and_be_damaged(folder: Path, tmp_path: Path) -> None:
    (folder / "inner").mkdir()
    (folder / "inner" / "a.png").write_bytes(png(50))
    (folder / "inner" / "metadata.jsonl").write_text(
        '{"file_name": "a.png", "text": "inside"}\nno json\n[1]\n{"text": "of nothing"}\n'
        '{"file_name": "gone.png", "text": "gone"}\n{"file_name": "../../../etc/passwd", "text": "outside"}\n'
    )
    found = check(folder, tmp_path / "cache")
    assert "inside" in captions_of(found) and found.pictures == 11
    wrong = problems_of(found)
    assert wrong["inner/metadata.jsonl:2"] == wrong["inner/metadata.jsonl:3"] == "row_damaged"
    assert wrong["inner/metadata.jsonl:4"] == "row_without_name"
    assert wrong["inner/gone.png"] == wrong["passwd"] == "row_without_picture"
    assert all("\n" not in one.problem.text(language) for one in found.skipped for language in ("en", "zh"))


def test_tars_are_read_and_not_unpacked(tmp_path: Path) -> None:
    shards, outside = tmp_path / "shards", tmp_path / "evil.png"
    shards.mkdir()
    with tarfile.open(shards / "shard-0.tar", "w") as tar:
        for k in range(8):
            members = {
                f"{k:03}.jpeg.no": b"",
                f"a/{k:03}.png": png(k),
                f"a/{k:03}.txt": f"thing {k}".encode(),
            }
            if k == 3:
                members |= {"a/003.txt": b"", "a/003.json": b'{"caption": "from json"}'}
            if k == 4:
                members = {"../evil.png": png(60), "a/green_hat.png": png(4), "a/green_hat.json": b"["}
            if k == 5:
                members = {"005.gif": b"GIF89a"}
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    found = check(shards, tmp_path / "cache")
    names = captions_of(found)
    assert "thing 1" in names and "green hat" in names and "evil" in names and not outside.exists()
    assert "thing 3" not in names and problems_of(found)["shard-0.tar/005.gif"] == "picture_form"
    whole = (shards / "shard-0.tar").read_bytes()
    assert check(shards / "shard-0.tar", tmp_path / "cache").pictures == found.pictures
    (shards / "shard-0.tar").write_bytes(whole[:-5000])
    (shards / "shard-1.tar").write_bytes(whole)
    (shards / "shard-2.tar").write_bytes(b"no tar" * 1000)
    assert problems_of(check(shards, tmp_path / "cache"))["shard-2.tar"] == "tar_damaged"


def tar_of(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def test_what_is_behind_the_damage_of_a_tar_is_told_missing(folder: Path, tmp_path: Path) -> None:
    tar_of(folder / "a.tar", {f"{k}.png": png(20 + k) for k in range(4)})
    whole = (folder / "a.tar").read_bytes()
    (folder / "a.tar").write_bytes(whole.replace(b"2.png\0", b"3.png\0", 1))  # its checksum is wrong now
    found = check(folder, tmp_path / "cache")
    assert found.pictures == 12 and problems_of(found) == {"a.tar": "tar_damaged"}


def test_odd_members_of_tars(folder: Path, tmp_path: Path) -> None:
    members = {
        "a.png": png(20),
        "a.txt": b"",
        "a.json": b'{"text": "from json"}',
        "b.jpg": png(21),
        "b.caption": b"from caption",
        "b.png": png(22),
        "c.v2.png": png(23),
        "c.v2.txt": b"two dots",
    }
    tar_of(folder / "a.tar", members)
    found = check(folder, tmp_path / "cache")
    assert {"from json", "from caption"} <= captions_of(found).keys() and found.sources["tar"] == 2
    assert problems_of(found) == {"a.tar/b.png": "other_member", "a.tar/c.v2.png": "other_member"}


def test_odd_files_are_told(folder: Path, tmp_path: Path) -> None:
    (folder / "lost.png").symlink_to("nowhere.png")
    (folder / "link").symlink_to(tmp_path, target_is_directory=True)
    (folder / "more.tar.gz").write_bytes(b"packed")
    (folder / "0.png").rename(folder / "0.jfif")
    (folder / "1.txt").rename(folder / "1.caption")
    found = check(folder, tmp_path / "cache")
    assert found.pictures == 10 and found.sources == {"txt": 10}
    told = {"lost.png": "file_unreadable", "link": "folder_link", "more.tar.gz": "archive_form"}
    assert problems_of(found) == told


def test_names_give_way_to_captions_of_the_same_picture(folder: Path, tmp_path: Path) -> None:
    (folder / "0.txt").unlink()
    for k, name in ((0, "z_copy"), (1, "copy")):
        (folder / f"{name}.png").write_bytes(png(k))
    (folder / "z_copy.txt").write_text("said elsewhere")
    names = captions_of(check(folder, tmp_path / "cache"))
    assert names["said elsewhere"] == () and names["picture number 1"] == ()


def test_odd_captions(folder: Path, tmp_path: Path) -> None:
    odd = {
        0: "一只戴眼镜的猫".encode(),
        1: b"",
        2: ("word " * 1000).encode(),
        3: b"a\x00b\x07 c\td\x1b[31m\n",
        4: "\ufeffwith a mark".encode(),
        5: "\ufeffin sixteen bits".encode("utf-16"),
        6: "戴帽子的猫".encode("gb18030"),
        7: b"two\n\n  captions \ntwo\n",
        8: ("x" * 5000).encode(),
    }
    for k, data in odd.items():
        (folder / f"{k}.txt").write_bytes(data)
    (folder / "1.png").rename(folder / "green_Dragon-3.png")
    (folder / "9.txt").rename(folder / "9.png.txt")
    found = check(folder, tmp_path / "cache")
    names = captions_of(found)
    assert found.pictures == 10 and found.chinese == 1 and found.shortened == 2
    assert "picture number 9" in names
    assert {"一只戴眼镜的猫", "a b c d [31m", "with a mark", "in sixteen bits"} <= set(names)
    assert names["two"] == ("captions",) and "green Dragon" in names
    assert max(map(len, names)) <= MOST_CHARACTERS and "my pictures" in names  # of 6.png
    assert problems_of(found) == {"6.txt": "text_not_utf8"} and found.sources["names"] == 2


def test_odd_pictures_are_skipped_each_with_a_sentence(folder: Path, tmp_path: Path) -> None:
    (folder / "cut.png").write_bytes(png(30)[:-30])
    (folder / "text.jpg").write_text("no picture")
    (folder / "huge.png").write_bytes(_png_of_size(60_000, 60_000))
    (folder / "tiny.png").write_bytes(png(31, size=(300, 3)))
    (folder / "clear.png").write_bytes(_file(Image.new("RGBA", (40, 40))))
    (folder / "again.png").write_bytes(png(3))
    (folder / "again.txt").write_text("known under another name")
    (folder / "live.heic").write_bytes(b"")
    (folder / "._0.png").write_bytes(b"of a Mac")
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / "1.png").write_bytes(b"of a Mac")
    found = check(folder, tmp_path / "cache")
    assert found.pictures == 10 and len(found.skipped) == 7
    wrong = problems_of(found)
    assert wrong["tiny.png"] == "picture_tiny" and wrong["clear.png"] == "picture_empty"
    assert wrong["again.png"] == "picture_again" and wrong["live.heic"] == "picture_form"
    assert {"cut.png", "text.jpg", "huge.png"} <= wrong.keys()
    assert captions_of(found)["picture number 3"] == ("known under another name",)
    told = json.loads(json.dumps(found.to_json()))
    assert all(one["en"] and one["zh"] != one["en"] for one in [*told["sentences"], *told["skipped"]])
    assert all("training." not in one["en"] for one in [*told["sentences"], *told["skipped"]])
    assert Check.from_json(told) == found


def test_transparent_pictures_are_kept_whole(folder: Path, tmp_path: Path) -> None:
    drawing = Image.new("RGBA", (90, 30))
    drawing.paste((200, 0, 0, 255), (0, 0, 90, 30))
    drawing.putpixel((45, 15), (0, 0, 0, 0))
    whole = np.asarray(squared(drawing))
    assert whole[64, 0, 3] == 255 and whole[10, 64, 3] == 0
    photograph = np.asarray(squared(drawing.convert("RGB")))
    assert photograph[..., 3].min() == 255 and tuple(photograph[10, 64]) == (200, 0, 0, 255)
    (folder / "drawing.png").write_bytes(_file(drawing))
    found = check(folder, tmp_path / "cache")
    assert found.transparent == 1
    assert Dataset(found.file).opaque.sum() == 10


def test_words_of_names() -> None:
    assert words_of_name(Path("cats/fluffy_kitten-03.jpg")) == ("fluffy kitten", "cats")
    assert words_of_name(Path("old cats/2021/IMG_2041.jpg")) == ("old cats",)
    assert words_of_name(Path("小猫/0001.jpg")) == ("小猫",)
    assert words_of_name(Path("DSC0001.jpg"), "holiday") == ("holiday",)
    assert words_of_name(Path("0001.jpg"), "1") == ("picture",)
    assert clean_captions(["", "  ", "\u200b"]).captions == ()


def test_more_than_memory_holds_is_one_sentence(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.training.data.folder.MEMORY_SHARE", 0.0)
    with pytest.raises(BadInput, match="more pictures than memory holds"):
        check(folder, tmp_path / "cache")


def test_three_pictures_and_one_picture_many_times_are_too_few(folder: Path, tmp_path: Path) -> None:
    for k in range(3, 10):
        (folder / f"{k}.png").unlink()
    with pytest.raises(BadInput, match=r"has 3 pictures .* 8 are needed; add pictures as PNG, JPEG or WebP"):
        check(folder, tmp_path / "cache")
    for k in range(20):
        (folder / f"{k}.png").write_bytes(png(0))
    with pytest.raises(BadInput, match=r"has 1 pictures .* skipped: the same picture as 0\.png"):
        check(folder, tmp_path / "cache")


def test_a_folder_that_changes_while_it_is_read_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    def lose(done: int, total: int) -> None:
        if done == 5:
            shutil.rmtree(folder)

    with pytest.raises(BadInput, match="changed while it was read"):
        check(folder, tmp_path / "cache", lose)
    assert not (tmp_path / "cache").exists()


def test_what_cannot_be_looked_into_is_told(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a user who may not read two folders; whoever runs the tests may be allowed everything."""
    for name in ("closed", "names alone"):
        (folder / name).mkdir()
        (folder / name / "1.png").write_bytes(png(20))
    scandir, is_file = os.scandir, Path.is_file

    def looked(place: str) -> object:
        if Path(place).name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", place)
        return scandir(place)

    def asked(path: Path) -> bool:
        if path.parent.name == "names alone":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.setattr("os.scandir", looked)
    monkeypatch.setattr(Path, "is_file", asked)
    found = check(folder, tmp_path / "cache")
    assert found.pictures == 10
    assert problems_of(found) == {"closed": "file_unreadable", "names alone/1.png": "file_unreadable"}
    assert "permission denied" in str(found.skipped[0].problem)


@pytest.mark.parametrize("texts", [["🎉🎉", "❤️", "🇩🇪"], ["猫", "一只狗", "红心"]])
def test_captions_of_one_kind_alone(texts: list[str], folder: Path, tmp_path: Path) -> None:
    for k in range(10):
        (folder / f"{k}.txt").write_text(texts[k % 3], "utf-8")
    found = check(folder, tmp_path / "cache")
    assert found.captions == 3 and found.sources == {"txt": 10}
    assert all("{" not in str(sentence) for sentence in found.sentences())


@pytest.mark.parametrize("name", ["nowhere", "empty", "long" * 1000])
def test_a_folder_of_nothing_is_one_sentence(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=r"there is no folder|has 0 pictures"):
        check(tmp_path / name, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def _file(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _png_of_size(width: int, height: int) -> bytes:
    """A PNG that says it is so large."""
    import struct
    import zlib

    data = bytearray(_file(Image.new("L", (1, 1))))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)
