"""Tars that are read in a stream: who reads what, going on from any place, and everything odd."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from pipelines.errors import BadInput
from pipelines.models.pack_card import PackCard
from pipelines.training import own
from pipelines.training.cli import main
from pipelines.training.data import stream as stream_module
from pipelines.training.data.folder import check
from pipelines.training.data.stream import Journey, Mark, Rates, Reader, Stream
from pipelines.training.data.tars import expanded, tars_of
from pipelines.training.loop import Budget, fit
from pipelines.training.vqvae import VqvaeTrainer
from tests.support.training import SIZES, trainer_for

TARS, EACH = 5, 12


def jpeg(k: int) -> bytes:
    """A small photograph of its own colours."""
    file = io.BytesIO()
    pixels = np.random.default_rng(k).integers(0, 256, (2, 2, 3), np.uint8)
    Image.fromarray(pixels).resize((40, 30)).save(file, "JPEG")
    return file.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty captioned pictures in five tars, with a broken one in each and things that nobody reads."""
    folder = tmp_path_factory.mktemp("shards")
    for number in range(TARS):
        members: dict[str, bytes] = {}
        for k in range(number * EACH, (number + 1) * EACH):
            members[f"{k:04}.jpg"] = jpeg(k)
            members[f"{k:04}.txt" if k % 2 else f"{k:04}.json"] = (
                f"caption {k}".encode() if k % 2 else json.dumps({"caption": f"caption {k}"}).encode()
            )
            members[f"{k:04}.pyd"] = pickle.dumps(print)
        members["broken.jpg"] = b"no picture"
        write_tar(folder / f"shard-{number:03}.tar", members)
    return folder


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that end within tars and go over their ends."""
    monkeypatch.setattr(stream_module, "BLOCK", 7)


@pytest.fixture(scope="module")
def sample(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = check(shards, tmp_path_factory.mktemp("cache"), tars=tars_of(shards))
    assert found.tars == TARS and found.tar_bytes > 0 and found.sources == {"tar": TARS * EACH}
    assert "5 tars of together 0.0 GB are read in a stream" in str(found.sentences()[0])
    return found.file


def stream_of(sample: Path, shards: Path, seed: int = 0) -> Stream:
    return Stream(sample, tars_of(shards), seed, 32)


def captions(reader: Reader, count: int) -> list[str]:
    return [icon.name for icon in reader.read(count).icons]


def usable(stream: Stream) -> set[str]:
    held_out = {stream.icons[k].name for k in stream.validation}
    assert held_out
    return {f"caption {k}" for k in range(TARS * EACH)} - held_out


# ------------------------------------------------------------------------------------------------------------- readers


def test_readers_share_an_epoch_in_an_order_of_their_own(sample: Path, shards: Path, blocks: None) -> None:
    stream = stream_of(sample, shards)
    journey = stream.journey(2, 1)
    seen = []
    for number in range(2):
        reader, own_part = Reader(stream, journey, number), list[str]()
        while reader.mark.lap == 0:
            own_part += captions(reader, 1)
        assert own_part != sorted(own_part, key=lambda words: int(words.split()[1])), "it is shuffled"
        assert reader.mark.skipped == len(stream.part(journey, 0, number)), "a broken one in each"
        seen.append(own_part)
    assert Counter(seen[0] + seen[1]) == Counter(usable(stream)), "each picture once"
    second = captions(Reader(stream, Journey(stream.names, 2, 1, epoch=1), 0), 8)
    assert second != seen[0][:8], "every epoch has an order of its own"
    assert captions(Reader(stream_of(sample, shards, seed=1), journey, 0), 8) != seen[0][:8]
    assert captions(Reader(stream_of(sample, shards), journey, 0), 8) == seen[0][:8]


def test_a_reader_goes_on_from_every_mark(sample: Path, shards: Path, blocks: None) -> None:
    stream = stream_of(sample, shards)
    whole = Reader(stream, stream.journey(1, 1), 0)
    for step in range(40):  # over the ends of blocks, tars and epochs
        mark = whole.mark
        again = Reader(stream, Journey(stream.names, 1, 1, marks=[list(mark)]), 0)
        assert again.mark == mark
        pictures, repeated = whole.read(3), again.read(3)
        assert [icon.name for icon in pictures.icons] == [icon.name for icon in repeated.icons]
        assert np.array_equal(pictures.rgba, repeated.rgba) and whole.mark == again.mark, step
    assert whole.mark.lap > 1 and whole.mark.samples == 120


@pytest.mark.parametrize("ranks", [1, 3])
def test_another_number_of_readers_goes_on_without_a_gap(
    ranks: int, sample: Path, shards: Path, blocks: None
) -> None:
    stream = stream_of(sample, shards)
    before = stream.journey(2, 1)
    seen = Counter[str]()
    for number, count in enumerate((9, 20)):
        reader = Reader(stream, before, number)
        seen.update(captions(reader, count))
        before.marks[number] = list(reader.mark)
    assert stream.journey(2, 1, before) is before
    after = stream.journey(ranks, 1, before)
    assert after.read() == before.read() and after.read()[0] == 29
    for number in range(ranks):
        reader = Reader(stream, after, number)
        while reader.mark.lap == 0:
            seen.update(captions(reader, 1))
    assert set(seen) == usable(stream)
    again = stream.journey(ranks, 1, Journey(**json.loads(json.dumps(after.to_json()))))
    assert again.rest == after.rest and stream.part(again, 1, 0) == stream.part(after, 1, 0)


def test_other_tars_begin_a_new_epoch(sample: Path, shards: Path) -> None:
    stream = stream_of(sample, shards)
    before = Journey("other", 1, 1, epoch=3, marks=[list(Mark(lap=2, samples=5))])
    after = stream.journey(1, 1, before)
    assert (after.epoch, after.rest, after.read()) == (6, None, (5, 0, 0))


def test_a_damaged_tar_gives_what_is_before_the_damage(
    sample: Path, shards: Path, tmp_path: Path, blocks: None
) -> None:
    whole = (shards / "shard-000.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b.tar").write_bytes(b"no tar at all" * 1000)
    (tmp_path / "c.tar").write_bytes(whole)
    stream = Stream(sample, tars_of(tmp_path), 0, 32)
    reader, seen = Reader(stream, stream.journey(1, 1), 0), Counter[str]()
    while reader.mark.lap == 0:
        seen.update(captions(reader, 1))
    assert set(seen) == {f"caption {k}" for k in range(EACH)} & usable(stream)
    assert 1 < sum(count == 2 for count in seen.values()) < len(seen), "the first half is in two tars"
    assert reader.mark.skipped == 3  # two damages, and the broken one of the whole tar


def test_tars_of_nothing_end_with_a_sentence(sample: Path, shards: Path, tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"a.jpg": b"no picture"})
    stream = Stream(sample, tars_of(tmp_path), 0)
    with pytest.raises(BadInput, match="no picture of the 1 tars can be used"):
        Reader(stream, stream.journey(1, 1), 0).read(1)
    with pytest.raises(BadInput, match="1 tars cannot be shared by 2 processes"):
        stream.journey(2, 1)
    assert stream_of(sample, shards).journey(2, 16).workers == 2, "no more readers than tars"


# --------------------------------------------------------------------------------------------------------------- names


def test_names_of_tars(shards: Path) -> None:
    assert expanded("a-{08..11}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]
    assert expanded("{a,b}-{1..0}") == ["a-1", "a-0", "b-1", "b-0"]
    for name in ("shard-{000..004}.tar", "shard-*.tar", "shard-00[0-9].tar", "."):
        assert [path.name for path in tars_of(shards / name)] == [f"shard-00{k}.tar" for k in range(TARS)]
    with pytest.raises(BadInput, match="and with it 2 of 7 tars"):
        tars_of(shards / "shard-{000..006}.tar")
    with pytest.raises(BadInput, match="more than 100,000 tars"):
        tars_of(shards / "shard-{0..9999999}.tar")
    for name in ("nothing-*.tar", "nowhere"):
        with pytest.raises(BadInput, match="names no tar"):
            tars_of(shards / name)


# ----------------------------------------------------------------------------------------------------------- trainings


def test_rates_are_those_of_all_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, journey, rates = [0.0], Journey("", 2, 1), Rates()
    monkeypatch.setattr("pipelines.training.data.stream.time.perf_counter", lambda: clock[0])
    assert rates.of(None) == {} and rates.of(journey)["samples/s"] == 0
    journey.note(0, [Mark(samples=6, bytes=3_000_000), Mark(samples=4, bytes=1_000_000, skipped=2)])
    clock[0] = 2.0
    assert rates.of(journey) == {"samples/s": 5.0, "MB/s": 2.0, "skipped": 2.0}


@pytest.mark.parametrize(("name", "workers"), [("clip", 0), ("vqvae", 2), ("dalle", 0)])
def test_a_streamed_training_goes_on_as_if_nothing_had_been(
    name: str, workers: int, sample: Path, shards: Path, trained: Path, tmp_path: Path, blocks: None
) -> None:
    def trainer() -> Any:
        made = trainer_for(name, sample, trained, tmp_path, stream=tars_of(shards))
        assert made.stream is not None
        return made

    for folder in (tmp_path / "whole", tmp_path / "resumed"):
        training = fit(trainer(), folder, Budget(steps=6), save_every=-1.0, workers=workers)
        if folder.name == "resumed":
            for _ in range(4):
                next(training)
            training.close()  # the state of step 3 was saved
            training = fit(trainer(), folder, Budget(steps=6), workers=workers)
        steps = list(training)
    whole, resumed = (load_file(tmp_path / one / "state.safetensors") for one in ("whole", "resumed"))
    for key, value in whole.items():
        assert torch.equal(value, resumed[key]), key
    assert steps[-1].metrics["samples/s"] > 0 and steps[-1].metrics["skipped"] >= 0


def test_the_command_streams(
    shards: Path,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(own, "TINY", trained)
    monkeypatch.setattr(own, "MEASURED_SECONDS", 0.05)
    monkeypatch.setenv("ATELIER_PACKS", str(tmp_path / "packs"))
    monkeypatch.setitem(VqvaeTrainer.SIZES, "tiny", {**SIZES["vqvae"], "rate": 1e-3})
    command = ["vqvae", "--data", str(shards / "shard-{000..004}.tar"), "--stream", "--steps", "2"]
    command += [
        "--state",
        str(tmp_path / "runs"),
        "--out",
        str(tmp_path / "packs" / "mine"),
        "--precision",
        "no",
    ]
    assert main([*command, "--check"]) == 0
    assert "one process reads" in capsys.readouterr().err
    assert main(command) == 0
    said = capsys.readouterr().err
    assert "samples/s" in said and "MB/s" in said and "are read in a stream" in said
    card = PackCard.read(tmp_path / "packs" / "mine")
    assert card is not None and card.data["tars"] == TARS
    assert main(["prior", *command[1:]]) == 2
    assert "prior needs all pictures before it begins" in capsys.readouterr().err
