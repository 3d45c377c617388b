"""Records: inside every PNG, whole or not at all, and never believed unchecked."""

from __future__ import annotations

import json
import os
import struct
import zlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pipelines.core.comparison import compare
from pipelines.core.pipeline import Picture
from pipelines.core.record import (
    Record,
    check_complete,
    read_record,
    read_texts,
    record_of,
    without_pictures,
    write_png,
)
from pipelines.errors import BadInput, CannotSave
from pipelines.io.files import write_atomically
from tests.support.fakes import FAKES, FakeSettings


def a_picture(colour: tuple[int, int, int] = (10, 20, 30)) -> Image.Image:
    return Image.new("RGB", (8, 6), colour)


def a_record(**changes: Any) -> Record:
    record = record_of(
        pipeline="fake",
        pack="tiny",
        device="cpu",
        models={"clip": {"name": "tiny-clip", "sha256": "ab" * 32}},
        settings=FakeSettings(prompt='红心, "quoted": yes', seed=7),
        picture=Picture(a_picture(), 7, 0.25, {"candidate": 3}),
        rank=1,
    )
    return replace(record, **changes)


def forged(path: Path, text: str) -> Path:
    texts = PngInfo()
    texts.add_text("atelier", text)
    a_picture().save(path, pnginfo=texts)
    return path


def test_a_record_comes_back_and_pixels_are_exact(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", a_picture(), a_record())
    assert read_record(tmp_path / "a.png", FAKES) == a_record(
        created=read_record(tmp_path / "a.png", FAKES).created
    )
    assert Image.open(tmp_path / "a.png").tobytes() == a_picture().tobytes()


def test_a_picture_can_be_saved_without_those_that_were_given(tmp_path: Path) -> None:
    from pipelines.io.images import picture_to_uri
    from pipelines.studio import PIPELINES

    given = picture_to_uri(a_picture())
    settings = {
        "generate": {"prompt": "x", "image": given, "keep_rows": 3},
        "optimize": {"prompt": "x", "image": given, "mask": given, "image_prompts": f"{given}:0.5"},
        "guide": {"prompt": "x", "image": given, "image_prompts": f"{given}:0.5"},
        "edit": {"prompt": "angry face", "source": "face", "image": given, "mask": given},
        "diffuse": {"prompt": "x", "image": given, "mask": given, "strength": 0.5},
    }
    assert settings.keys() == PIPELINES.keys()
    for name, values in settings.items():
        whole = PIPELINES[name].Settings.from_dict(values).to_dict()
        write_png(tmp_path / "a.png", a_picture(), a_record(pipeline=name, settings=whole))
        bare = without_pictures(tmp_path / "a.png")
        record = read_record(bare, PIPELINES)
        assert "data:image" not in record.to_json() and record.settings["prompt"] == whole["prompt"]
        assert record.picture["left_out"] == [one for one in whole if "data:image" in str(whole[one])]
        (tmp_path / "bare.png").write_bytes(bare)
        assert Image.open(tmp_path / "bare.png").tobytes() == a_picture().tobytes()
        with pytest.raises(
            BadInput, match=r"the pictures that were given \(.+\) were left out of this record"
        ):
            check_complete(record)
    check_complete(a_record())
    write_png(tmp_path / "a.png", a_picture(), a_record())
    assert read_record(without_pictures(tmp_path / "a.png"), FAKES) == read_record(tmp_path / "a.png", FAKES)


def test_other_studios_can_read_the_parameters(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", a_picture(), a_record())
    text = Image.open(tmp_path / "a.png").text["parameters"]  # type: ignore[attr-defined]
    assert text.startswith('红心, "quoted": yes\n')
    assert "Seed: 7" in text and "Size: 8x6" in text


def changed(**values: Any) -> str:
    return json.dumps({**asdict(a_record()), **values})


FORGERIES: dict[str, str] = {
    "not JSON": "{",
    "no object": "[1]",
    "nothing in it": "{}",
    "unknown pipeline": changed(pipeline="format-disk"),
    "pipeline of another type": changed(pipeline=["fake"]),
    "settings out of range": changed(settings={"prompt": "x", "candidates": 10**9}),
    "unknown setting": changed(settings={"prompt": "x", "__class__": "evil"}),
    "a file of this machine": changed(settings={"prompt": "x", "image": "/etc/hostname"}),
    "control characters": changed(settings={"prompt": "x\x00y"}),
    "prompt of another type": changed(settings={"prompt": {"a": 1}}),
    "negative seed": changed(picture={"seed": -1, "score": None, "rank": 1}),
    "score is a word": changed(picture={"seed": 1, "score": "high", "rank": 1}),
    "not a number": changed(picture={"seed": 1, "score": float("nan"), "rank": 1}),
    "hash is a path": changed(models={"clip": {"name": "x", "sha256": "../../etc"}}),
    "deep nest": changed(versions={}).replace('"versions": {}', '"versions": ' + "[" * 5000 + "]" * 5000),
    "very long": changed(device="x" * 9_000_000),
}


@pytest.mark.parametrize("text", FORGERIES.values(), ids=FORGERIES.keys())
def test_forged_records_are_refused_in_one_sentence(text: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as refused:
        read_record(forged(tmp_path / "a.png", text), FAKES)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 300


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_a_text_that_unpacks_to_a_giant_is_refused(tmp_path: Path) -> None:
    a_picture().save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    bomb = chunk(b"zTXt", b"atelier\0\0" + zlib.compress(b" " * 50_000_000))
    (tmp_path / "a.png").write_bytes(data[:33] + bomb + data[33:])
    with pytest.raises(BadInput, match="unpacks to more than"):
        read_record(tmp_path / "a.png", FAKES)


@pytest.mark.parametrize("keep", [0, 5, 20, 40, 200])
def test_cut_off_files_are_refused(keep: int, tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", a_picture(), a_record())
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:keep])
    with pytest.raises(BadInput):
        read_record(tmp_path / "a.png", FAKES)


@pytest.mark.parametrize("place", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomically(tmp_path / "a.txt", b"old")

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(f"pipelines.io.files.os.{place}", full)
    with pytest.raises(CannotSave, match="the disk is full"):
        write_atomically(tmp_path / "a.txt", b"new")
    assert (tmp_path / "a.txt").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_compare_says_identical_or_how_far(tmp_path: Path) -> None:
    same = compare(a_picture(), a_picture(), a_record(), a_record())
    assert same.identical and same.sentence() == "identical: every pixel is the same"
    other_record = a_record(versions={**a_record().versions, "torch": "9.9"}, device="cuda")
    other = compare(a_picture(), a_picture((10, 25, 30)), a_record(), other_record)
    assert (other.identical, other.largest, other.share) == (False, 5, 1.0)
    assert "5 of 255" in other.sentence() and "device was cpu, is cuda" in other.sentence()
    assert "torch was" in other.sentence()
    weights = a_record(models={"clip": {"name": "tiny-clip", "sha256": "cd" * 32}})
    said = compare(a_picture(), a_picture((0, 0, 0)), a_record(), weights).sentence()
    assert "the weights of clip were ababababab, are cdcdcdcdcd" in said
    assert "sizes differ" in compare(a_picture(), Image.new("RGB", (9, 9)), a_record(), a_record()).sentence()


def test_texts_are_utf8_or_latin_and_long_foreign_ones_hide_none_of_ours(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", a_picture(), a_record())
    data = (tmp_path / "a.png").read_bytes()

    def with_text(kind: bytes, body: bytes) -> bytes:
        return data[:33] + chunk(kind, body) + data[33:]

    steps = "\nSteps: 20, Sampler: Euler a, Seed: 18446744073709551615"
    chinese, french = f"红色的狐狸{steps}", f"un château{steps}"
    for body in (chinese.encode(), french.encode("latin-1")):
        told = read_texts(with_text(b"tEXt", b"parameters\0" + body))["parameters"]
        assert told in (chinese, french)
    packed = zlib.compress(chinese.encode())
    assert read_texts(with_text(b"zTXt", b"parameters\0\0" + packed))["parameters"] == chinese
    long = zlib.compress(b"x" * 9_000_000)
    assert read_record(with_text(b"zTXt", b"workflow\0\0" + long), FAKES).settings["seed"] == 7
    with pytest.raises(BadInput, match="unpacks to more"):
        read_record(with_text(b"zTXt", b"atelier\0\0" + long), FAKES)


def test_what_could_not_be_told_again_is_refused_and_settings_have_their_types(tmp_path: Path) -> None:
    text = a_record().to_json()
    for part in ('"curve": [1e999]', '"note": "\\ud800"', '"deep": ' + "[" * 9 + "]" * 9):
        forged_text = text.replace('"candidate": 3', part)
        assert forged_text != text
        with pytest.raises(BadInput):
            read_record(forged(tmp_path / "a.png", forged_text), FAKES)
        with pytest.raises(BadInput):
            without_pictures(tmp_path / "a.png")
    settings = {**a_record().settings, "seed": "7"}
    assert read_record(forged(tmp_path / "b.png", changed(settings=settings)), FAKES).settings["seed"] == 7


def test_texts_of_other_programs_take_no_more_than_so_much_and_damaged_ones_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.core.record.MAX_JSON", 20_000)
    monkeypatch.setattr("pipelines.core.record.MAX_UNPACKED", 80_000)
    write_png(tmp_path / "a.png", a_picture(), a_record())
    data = (tmp_path / "a.png").read_bytes()

    def read(*chunks: bytes) -> dict[str, str]:
        return read_texts(data[:33] + b"".join(chunks) + data[33:])

    def packed(number: int, size: int) -> bytes:
        return chunk(b"zTXt", b"text %d\0\0" % number + zlib.compress(b" " * size))

    many = read(*(packed(number, 19_000) for number in range(300)))
    assert sum(map(len, many.values())) < 80_000 + len(many["atelier"])
    counted: list[int] = []
    real = zlib.decompressobj
    monkeypatch.setattr("pipelines.core.record.zlib.decompressobj", lambda: counted.append(1) or real())
    assert "atelier" in read(*(packed(number, 50_000) for number in range(300))) and len(counted) < 10
    torn = chunk(b"zTXt", b"workflow\0\0" + b"no zlib")
    wrong = chunk(b"tEXt", b"Comment\0what was changed")[:-1] + b"!"
    assert set(read(torn, wrong)) == {"atelier", "parameters"}
    for text in (chunk(b"zTXt", b"atelier\0\0no zlib"), chunk(b"tEXt", b"atelier\0{}")[:-1] + b"!"):
        with pytest.raises(BadInput):
            read(text)
