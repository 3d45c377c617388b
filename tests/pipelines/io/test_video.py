"""Films: written whole or not at all, marked where the prompt changes, and read with distrust."""

from __future__ import annotations

import re
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from pipelines.errors import BadInput, CannotSave, Stopped
from pipelines.io import video
from pipelines.io.video import INK, PAPER, STRIP, VERMILION, Frame, read_frames, write_film

KINDS = ("mp4", "webp")


@pytest.fixture(autouse=True)
def nothing_is_enlarged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Films of 32 pixels: they cost a hundredth. The test of sizes takes this back."""
    monkeypatch.setattr(video, "SMALL", 32)
    monkeypatch.setattr(video, "GOOD", 32)


def soft(seed: int, size: tuple[int, int] = (32, 32)) -> Image.Image:
    """A picture of soft colours, which a film codec keeps well."""
    levels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(levels).resize(size, Image.Resampling.BICUBIC)


def plain(level: int) -> Image.Image:
    return Image.new("RGB", (32, 32), (level, level, level))


def some(count: int, size: tuple[int, int] = (32, 32), scenes: int = 1) -> list[Frame]:
    return [Frame(soft(number, size), number * scenes // count) for number in range(count)]


def taken(path: Path) -> tuple[list[np.ndarray], float]:
    """All frames of a film, read by the plainest means, and its seconds."""
    if path.suffix == ".mp4":
        with av.open(str(path)) as film:
            assert film.duration is not None
            seconds = film.duration / 1e6
            return [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)], seconds
    with Image.open(path) as film:
        frames, milliseconds = [], 0
        for number in range(getattr(film, "n_frames", 1)):
            film.seek(number)
            frames.append(np.asarray(film.convert("RGB")))
            milliseconds += film.info["duration"]
        return frames, milliseconds / 1000


def like(pixels: np.ndarray, colour: Sequence[int], most: int = 24) -> bool:
    return bool((np.abs(pixels.astype(int) - np.array(colour)) <= most).all())


def stream_of(path: Path, codec: str, size: tuple[int, int], count: int, turn: int = 0) -> Path:
    """A film from somewhere else: another codec, size or turn, and always with sound beside."""
    with av.open(str(path), "w") as film:
        stream = film.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.thread_count = *size, "yuv420p", 1
        if turn:
            stream.set_display_rotation(turn)
        sound = film.add_stream("aac" if path.suffix == ".mp4" else "libopus", rate=48000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 4800), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 48000
        picture = np.zeros((size[1], size[0], 3), np.uint8)
        picture[: size[1] // 2] = VERMILION
        for _ in range(count):
            film.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        film.mux(stream.encode())
        film.mux(sound.encode(silence))
        film.mux(sound.encode())
    return path


# Writing ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_film_holds_its_frames_and_lasts_as_long_as_asked(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"new folder/a.{kind.upper() if kind == 'webp' else kind}"
    frames = some(12)
    write_film(path, iter(frames), 12, seconds=1.0)
    path = path.rename(tmp_path / f"a.{kind}")
    got, seconds = taken(path)
    # A second of frames, of which the last one stays for a whole second.
    assert seconds == pytest.approx(12 / 12 + 11 / 12, abs=0.02)
    assert len(got) == (12 + 11 if kind == "mp4" else 12)
    for frame, picture in zip(frames, got, strict=False):
        assert picture.shape == (32 + STRIP, 32, 3)
        assert np.abs(picture[:32] - np.asarray(frame.image).astype(int)).mean() < 10  # other pictures: 80
    assert np.abs(got[-1].astype(int) - got[11]).mean() < 2


def test_the_mp4_is_one_that_browsers_play_while_it_loads(tmp_path: Path) -> None:
    write_film(tmp_path / "a.mp4", some(3), 3)
    data = (tmp_path / "a.mp4").read_bytes()
    assert data[4:8] == b"ftyp" and data.index(b"moov") < data.index(b"mdat")
    with av.open(str(tmp_path / "a.mp4")) as film:
        (stream,) = film.streams.video
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 10  # three frames do not fill eight seconds


def test_many_frames_are_thinned_but_the_first_the_last_and_new_scenes_stay(tmp_path: Path) -> None:
    given: list[weakref.ref[Image.Image]] = []

    def frames() -> Iterator[Frame]:
        for number in range(200):
            image = plain(20 + number)
            given.append(weakref.ref(image))
            assert sum(one() is not None for one in given) <= 3, "frames are piled up"
            yield Frame(image, (number >= 61) + (number >= 62))
            del image

    write_film(tmp_path / "a.mp4", frames(), 200, seconds=0.5, scenes=["a", "b", "c"])
    got, seconds = taken(tmp_path / "a.mp4")
    levels = [round(picture[:32].mean()) - 20 for picture in got]
    moving = levels[: len(got) - 29]
    assert 15 <= len(moving) <= 17 and seconds == pytest.approx(len(got) / 30, abs=0.02)
    for number in (0, 61, 62, 199):
        assert min(abs(level - number) for level in moving) <= 1
    assert moving == sorted(moving) and max(np.diff(moving)) <= 16


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((33, 25), (496, 376)),  # 15 times, then even
        ((128, 64), (512, 256)),
        ((300, 200), (600, 400)),
        ((401, 385), (402, 386)),  # large enough already
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_small_pictures_grow_and_sides_are_even(
    kind: str, size: tuple[int, int], wanted: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    write_film(tmp_path / f"a.{kind}", some(1, size), 1)
    picture = taken(tmp_path / f"a.{kind}")[0][0]
    assert picture.shape == (wanted[1] + STRIP, wanted[0], 3)
    picture = picture[: wanted[1]].astype(int)
    assert (
        np.abs(picture[:, -1] - picture[:, -2]).mean() < 4 and np.abs(picture[-1] - picture[-2]).mean() < 16
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_strip_marks_time_and_every_new_scene(kind: str, tmp_path: Path) -> None:
    frames = some(12, (192, 64), scenes=3)
    write_film(tmp_path / f"a.{kind}", frames, 12, scenes=["one", "two", "three"])
    strips = [picture[64:] for picture in taken(tmp_path / f"a.{kind}")[0]]
    for number in range(12):
        end = 192 * (number + 1) // 12
        assert like(strips[number][3:5, end - 8 : end - 2], VERMILION)
        assert like(strips[number][2:, end + 2 :], PAPER, 40) and like(
            strips[number][-1, 8:end:64], PAPER, 40
        )
    inks = [[at for at in range(192) if strip[:, at].max() < 90] for strip in strips]
    assert inks[0] == inks[3] == []  # that another scene will come is not known yet
    assert inks[4] == [0, 1, 64, 65]
    assert inks[-1] == [0, 1, 64, 65, 128, 129]
    assert like(strips[-1][:, 64:66], INK, 40)


def test_one_scene_has_no_ticks_and_no_chapters(tmp_path: Path) -> None:
    write_film(tmp_path / "a.mp4", some(2), 2, scenes=["a red cat"])
    assert taken(tmp_path / "a.mp4")[0][1][32:].max(axis=2).min() > 90
    with av.open(str(tmp_path / "a.mp4")) as film:
        assert film.metadata["title"] == "a red cat" and film.chapters() == []


def test_scenes_are_chapters_and_the_first_is_the_title(tmp_path: Path) -> None:
    scenes = ["a cat\nin \0 rain", "一只猫 " * 200]
    frames = [Frame(soft(number), scene) for number, scene in enumerate([0, 0, 1, 1, 1, 0, 7])]
    write_film(tmp_path / "a.mp4", frames, 7, scenes=scenes)
    with av.open(str(tmp_path / "a.mp4")) as film:
        assert film.metadata["title"] == "a cat in rain"
        chapters = film.chapters()
    titles = [chapter["metadata"]["title"] for chapter in chapters]
    assert titles[0] == titles[2] == "a cat in rain" and titles[1].startswith("一只猫") and titles[3] == "8"
    assert [(one["start"], one["end"]) for one in chapters] == [(0, 200), (200, 500), (500, 600), (600, 1600)]


@pytest.mark.parametrize("kind", KINDS)
def test_equal_frames_make_equal_bytes(kind: str, tmp_path: Path) -> None:
    made = set()
    for number in range(50):  # an encoder that reads memory nobody wrote differs about every twentieth time
        dirty = [np.random.default_rng(number + one).bytes(4000 - 97 * one) for one in range(30)]
        del dirty
        write_film(tmp_path / f"a.{kind}", some(8, scenes=2), 8, scenes=["one", "two"])
        made.add((tmp_path / f"a.{kind}").read_bytes())
    (data,) = made
    if kind == "mp4":  # nor does it say when it was made
        assert data[data.index(b"mvhd") + 8 :][:8] == bytes(8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("after", [0, 3])
def test_a_film_that_fails_leaves_the_older_one(
    kind: str, after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def frames() -> Iterator[Frame]:
        yield from some(after) if after else ()
        raise Stopped("enough")

    (tmp_path / "films").mkdir()
    (tmp_path / "drafts").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "drafts"))
    path = tmp_path / f"films/a.{kind}"
    path.write_bytes(b"older")
    with pytest.raises(Stopped):
        write_film(path, frames(), 6)
    assert path.read_bytes() == b"older"
    assert list((tmp_path / "films").iterdir()) == [path] and not list((tmp_path / "drafts").iterdir())


def test_what_makes_no_film_is_refused_in_one_sentence(tmp_path: Path) -> None:
    for name in ("a.gif", "mp4", "a"):
        with pytest.raises(BadInput, match=r"\.mp4 or \.webp"):
            write_film(tmp_path / name, some(2), 2)
    cases: list[tuple[list[Frame], int, float, str]] = [
        ([], 0, 8.0, "at least one frame"),
        ([], 3, 8.0, "3 frames was announced, and none came"),
        (some(2), 3, 8.0, "3 frames was announced, and 2 came"),
        (some(4), 3, 8.0, "and more came"),
        ([Frame(plain(9)), Frame(plain(9).resize((30, 32)))], 2, 8.0, "frame 2 is 30 x 32 .* 32 x 32"),
        (some(2), 2, 0.0, "more than 0"),
        (some(2), 2, float("nan"), "more than 0"),
    ]
    for frames, count, seconds, words in cases:
        with pytest.raises(BadInput, match=words):
            write_film(tmp_path / "a.mp4", frames, count, seconds=seconds)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_refuses_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotSave, match=r"a\.webp was not saved"):
        write_film(tmp_path / "file" / "a.webp", some(1), 1)

    def full(*_: object) -> None:
        raise av.error.OSError(28, "No space left on device")

    monkeypatch.setattr(video, "_encode", full)
    with pytest.raises(CannotSave, match="the disk is full"):
        write_film(tmp_path / "a.mp4", some(1), 1)


# Reading ------------------------------------------------------------------------------------------------------------


def test_a_film_is_read_again_and_reduced(tmp_path: Path) -> None:
    write_film(tmp_path / "a.mp4", some(3), 3)
    (tmp_path / "a.mp4").rename(tmp_path / "a.txt")  # what it is called does not matter
    frames = list(read_frames(tmp_path / "a.txt", longest=20))
    assert len(frames) == 3 + 9 and {(frame.mode, frame.size) for frame in frames} == {("RGB", (16, 20))}
    assert len(list(read_frames(str(tmp_path / "a.txt"), limit=12))) == 12


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.webm", "libvpx")])
def test_other_peoples_films_are_read_upright(name: str, codec: str, tmp_path: Path) -> None:
    path = stream_of(tmp_path / name, codec, (64, 32), 5)
    frames = list(read_frames(path))
    assert len(frames) == 5 and frames[0].size == (64, 32)
    assert like(np.asarray(frames[4])[:14], VERMILION) and like(np.asarray(frames[4])[18:], (0, 0, 0))
    with pytest.raises(BadInput, match=r"(5|more than 4) frames and the most is 4"):
        list(read_frames(path, limit=4))


def test_a_film_that_lies_on_its_side_is_turned(tmp_path: Path) -> None:
    (frame,) = read_frames(stream_of(tmp_path / "a.mp4", "libx264", (64, 32), 1, turn=90))
    assert frame.size == (32, 64)  # what was above is now to the left
    assert like(np.asarray(frame)[:, :14], VERMILION) and like(np.asarray(frame)[:, 18:], (0, 0, 0))


def test_giants_and_strange_codecs_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BadInput, match="4100 x 32 pixels"):
        read_frames(stream_of(tmp_path / "wide.mp4", "libx264", (4100, 32), 1))
    with pytest.raises(BadInput, match="coded as mpeg2video"):
        read_frames(stream_of(tmp_path / "old.mp4", "mpeg2video", (64, 32), 2))
    monkeypatch.setattr(video, "MAX_BYTES", 1000)
    with pytest.raises(BadInput, match="MB and the most is"):
        read_frames(tmp_path / "old.mp4")


def test_what_is_no_film_never_reaches_the_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*_: object, **__: object) -> None:
        raise AssertionError("it was opened")

    monkeypatch.setattr(av, "open", opened)
    soft(0).save(tmp_path / "picture.mp4", "PNG")
    (tmp_path / "text.mp4").write_text("#EXTM3U\nhttp://example.com/film.mp4\n")
    (tmp_path / "list.webm").write_text("ffconcat version 1.0\nfile /etc/passwd\n")
    (tmp_path / "empty.mp4").touch()
    for path in tmp_path.iterdir():
        with pytest.raises(BadInput, match="not an MP4, MOV or WebM film"):
            read_frames(path)
    for source in (tmp_path / "none.mp4", "", "http://example.com/a.mp4", "a\0b", "x" * 5000):
        with pytest.raises(BadInput, match="there is no film"):
            read_frames(source)


def test_damaged_films_are_one_sentence(tmp_path: Path) -> None:
    write_film(tmp_path / "a.mp4", some(6), 6)
    whole = (tmp_path / "a.mp4").read_bytes()
    film = stream_of(tmp_path / "a.webm", "libvpx", (64, 32), 5).read_bytes()
    middle = len(whole) // 2
    damaged = [
        *[whole[:size] for size in (12, 40, 700, middle, len(whole) - 1)],
        whole[:middle] + bytes(range(256)) * 20 + whole[middle + 5120 :],
        whole[:8] + bytes(2000),  # begins like MP4
        film[:40],
        film[:4] + bytes(500),  # begins like WebM
    ]
    for data in damaged:
        (tmp_path / "b").write_bytes(data)
        with pytest.raises(BadInput) as caught:
            list(read_frames(tmp_path / "b"))
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


def test_a_folder_is_read_in_the_order_in_which_people_count(tmp_path: Path) -> None:
    names = ["1.png", "2.JPG", "10.webp", "a2.png", "A10.png", "b².png"]
    for number, name in enumerate(reversed(names)):
        kind = {".jpg": "JPEG"}.get(Path(name).suffix.lower(), Path(name).suffix[1:].upper())
        plain(40 * (5 - number)).save(tmp_path / name, kind)
    Image.new("RGBA", (900, 30), (0, 0, 0, 0)).save(tmp_path / "z.png")
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden.png").write_bytes(b"no picture")
    (tmp_path / "folder.png").mkdir()
    frames = list(read_frames(tmp_path, longest=300))
    assert [round(np.asarray(frame).mean() / 40) for frame in frames[:-1]] == list(range(6))
    assert frames[-1].size == (300, 10) and frames[-1].getpixel((3, 3)) == (255, 255, 255)
    with pytest.raises(BadInput, match="7 pictures and the most is 6"):
        read_frames(tmp_path, limit=6)


def test_folders_without_pictures_or_with_damaged_ones_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(BadInput, match="no PNG, JPEG or WebP picture"):
        read_frames(tmp_path)
    plain(9).save(tmp_path / "1.png")
    (tmp_path / "2.png").write_bytes((tmp_path / "1.png").read_bytes()[:60])
    with pytest.raises(BadInput, match=r"^2\.png: the PNG picture is damaged"):
        list(read_frames(tmp_path))


def test_the_film_library_is_loaded_only_when_a_film_is() -> None:
    assert not re.search(r"^(import|from) av\b", Path(video.__file__).read_text("utf-8"), re.MULTILINE)
