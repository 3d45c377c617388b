"""The library: what was made, found again by words and by likeness."""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from starlette.applications import Starlette
from starlette.testclient import TestClient
from torch import Tensor

from app.library import Library, Query
from app.ui.html.library_pictures import Addresses, cells
from app.ui.pictures import Pictures
from pipelines.core.record import read_record
from pipelines.errors import BadInput
from tests.support.fakes import FAKES
from tests.support.library import COLOURS, ColourClip, index_file, put


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for age, (name, colour) in enumerate(COLOURS.items()):
        put(tmp_path, name, colour, age)
    Image.new("RGB", (9, 9)).save(tmp_path / "stranger.png")  # no record
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnonsense")
    return tmp_path


def test_recent_are_ours_newest_first(folder: Path) -> None:
    library = Library(folder)
    assert [entry.prompt for entry in library.recent()] == ["red", "green", "blue"]
    assert [entry.prompt for entry in library.recent(1, skip=1)] == ["green"]
    assert library.count() == 3
    assert library.find("blue").prompt == "blue"
    with pytest.raises(BadInput, match="no picture 'mauve'"):
        library.find("mauve")


def test_search_by_words_and_by_likeness(folder: Path) -> None:
    library, clip = Library(folder), ColourClip()
    found = library.search(clip, "green", 2)
    assert found[0][0].prompt == "green" and found[0][1] > found[1][1]
    alike = library.similar(clip, put(folder, "dark red", (90, 10, 10)), 2)
    assert alike[0][0].prompt in ("red", "dark red")


def test_vectors_are_kept_and_deleted_files_forgotten(folder: Path) -> None:
    clip = ColourClip()
    library = Library(folder)
    library.search(clip, "red")
    probe = clip.seen - 3  # what it costs to see that CLIP is still the same one
    library.close()
    clip = ColourClip()
    library = Library(folder)  # after a restart
    library.search(clip, "red")
    assert clip.seen == probe < 3
    clip.seen = 0
    (folder / "2026-01-01" / "red.png").unlink()
    put(folder, "pink", (250, 150, 160))
    assert "red" not in [entry.prompt for entry, _ in library.search(clip, "red")]
    assert clip.seen == 1


def test_a_damaged_index_is_made_anew(folder: Path) -> None:
    Library(folder).close()
    for file in index_file(folder).parent.glob("facts.sqlite*"):
        file.unlink()
    index_file(folder).write_bytes(b"not a database at all" * 200)
    assert Library(folder).count() == 3


def wall(library: Library, folder: Path) -> str:
    """The Library tab's HTML, as it is sent."""
    pictures = Pictures(lambda: folder, folder / "none")
    addresses = Addresses(*3 * [lambda entry: pictures.url(entry.path)])
    return cells(library.page(Query(stacked=False)).found, addresses).encode("utf-8").decode()


NAMES = [  # as archives from other systems leave them, and as nobody means them
    b"\xba\xec\xd0\xc4.png",
    b"\xff\xfe\xfd.png",
    b"a\nb.png",
    "ᵺ\U0001f600.png".encode(),
    b"x" * 240 + b".png",
    b"100% #1? &amp;.png",
]


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="the system itself allows no such names")
@pytest.mark.parametrize("name", NAMES)
def test_a_picture_of_any_name_is_shown_and_served(folder: Path, name: bytes) -> None:
    data = (folder / "2026-01-01" / "red.png").read_bytes()
    with open(os.path.join(os.fsencode(folder), name), "wb") as file:
        file.write(data)
    library, pictures = Library(folder), Pictures(lambda: folder, folder / "none")
    entries = library.recent()
    assert len(entries) == 4
    for entry in entries:
        address = unquote(pictures.url(entry.path)).removeprefix("picture/")
        assert pictures.path(address).read_bytes()[:4] == b"\x89PNG"
        assert library.find(entry.id).path == entry.path
    with TestClient(Starlette(routes=pictures.routes())) as client:
        addresses = [pictures.url(entry.path) for entry in entries]
        answers = [
            client.get(f"/{address}{form}") for address in addresses for form in ("", "?download=bare")
        ]
        assert [answer.status_code for answer in answers] == [200] * 8
    assert wall(library, folder).count("<button") == 4
    assert len(library.search(ColourClip(), "red")) == 4


def test_linked_folders_are_followed_once_and_loops_not_at_all(folder: Path, tmp_path: Path) -> None:
    other = tmp_path.with_name(f"{tmp_path.name}-other-disk")
    put(other, "moved", (9, 9, 9))
    (folder / "linked").symlink_to(other)
    (folder / "again").symlink_to(folder, target_is_directory=True)
    (folder / "nowhere").symlink_to(tmp_path / "gone")
    (folder / "nothing.png").symlink_to(tmp_path / "gone.png")
    (folder / "folder.png").mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe.png")
    library = Library(folder)
    assert sorted(entry.prompt for entry in library.recent()) == ["blue", "green", "moved", "red"]
    pictures = Pictures(lambda: folder, folder / "none")
    assert all(pictures.path(pictures.name(entry.path)) == entry.path for entry in library.recent())
    for bad in ("../x.png", "/etc/x.png", f"{tmp_path}/2026-01-01/red.png", "linked/../../x.png", ""):
        with pytest.raises(BadInput):
            pictures.path(bad)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="rights are other things there")
def test_what_may_not_be_read_is_passed_over(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir()
    put(folder, "mine", (1, 2, 3)).rename(closed / "mine.png")
    (closed / "mine.png").chmod(0)
    count = 3 if os.geteuid() else 4  # the administrator may read all
    assert Library(folder).count() == count
    closed.chmod(0)
    try:
        assert Library(folder).count() == count
    finally:
        closed.chmod(0o700)


STRANGE: dict[str, dict[str, object]] = {
    "half of a pair": {"prompt": "\ud800 heart"},
    "a list": {"prompt": ["a", {"b": 1}], "seed": [1]},
    "an unknown setting": {"prompt": "a heart", "no_such_thing": "²"},
    "a large number": {"prompt": "a heart", "seed": 10**3000},
    "nothing": {},
}


@pytest.mark.parametrize("settings", STRANGE.values(), ids=STRANGE)
def test_a_strange_record_takes_away_no_other_picture(folder: Path, settings: dict[str, object]) -> None:
    good = read_record(folder / "2026-01-01" / "red.png", FAKES)
    for pipeline in ("generate", "nobody's"):
        texts = PngInfo()
        texts.add_text("atelier", replace(good, pipeline=pipeline, settings=settings).to_json())
        Image.new("RGB", (9, 9)).save(folder / f"{pipeline[:3]}.png", pnginfo=texts)
    library = Library(folder)
    shown = wall(library, folder)
    assert all(f'alt="{name}"' in shown for name in COLOURS)
    assert {"red", "green"} <= {entry.prompt for entry, _ in library.search(ColourClip(), "red")}


def test_a_time_beyond_all_calendars_is_one_too(folder: Path) -> None:
    path = folder / "2026-01-01" / "red.png"
    try:
        os.utime(path, (13_000_000_000, 13_000_000_000))
    except (OSError, OverflowError):
        pytest.skip("the file system has no such time")
    assert Library(folder).recent()[0].prompt == "red"


def lock(file: Path) -> sqlite3.Connection:
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    return other


def test_an_index_that_is_locked_or_damaged_while_it_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.library.facts.LOCKED_SECONDS", 0.05)
    library = Library(folder)
    library.search(ColourClip(), "red")
    put(folder, "pink", (250, 150, 160))
    guard = lock(index_file(folder))
    assert library.count() == 4  # it goes on in memory
    assert Library(folder).count() == 4  # and so does one that starts now
    assert len(library.search(ColourClip(), "red")) == 4
    guard.close()
    library.close()
    library = Library(folder)
    assert library.count() == 4
    for ending in ("", "-wal"):
        file = index_file(folder).with_name(f"facts.sqlite{ending}")
        if file.exists():
            file.write_bytes(b"\0" * 20_000)
    put(folder, "brown", (90, 60, 20))
    assert library.count() == 5


FOREIGN = {
    "another table": "CREATE TABLE pictures (name TEXT)",
    "another form": "CREATE TABLE files (number INTEGER PRIMARY KEY); PRAGMA user_version = 1",
    "a later version": "CREATE TABLE files (number INTEGER PRIMARY KEY); PRAGMA user_version = 77",
}


@pytest.mark.parametrize("words", FOREIGN.values(), ids=FOREIGN)
def test_an_index_of_another_version(folder: Path, words: str) -> None:
    index_file(folder).parent.mkdir(parents=True)
    with sqlite3.connect(index_file(folder)) as db:
        db.executescript(words)
    db.close()
    library = Library(folder)
    assert library.count() == 3
    assert len(library.search(ColourClip(), "red")) == 3


def test_vectors_that_were_damaged_or_cut_off_are_made_again(folder: Path) -> None:
    library, clip = Library(folder), ColourClip()
    library.search(clip, "red")
    library.close()
    (vectors,) = index_file(folder).parent.glob("*.f16")
    data = vectors.read_bytes()
    for damaged in (data[:-6], b"\0" * 6 + data[6:], b"\xff" * len(data), b""):
        vectors.write_bytes(damaged)
        library = Library(folder)
        assert library.search(clip, "green")[0][0].prompt == "green"
        assert len(library.search(clip, "red")) == 3
        library.close()
        assert vectors.read_bytes() == data or len(vectors.read_bytes()) >= len(data)


def test_where_no_index_can_be_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index_file(folder).mkdir(parents=True)  # a folder in its place
    assert Library(folder).count() == 3
    nowhere = folder / "stranger.png" / "outputs"  # cannot be made: a file is in the way
    assert Library(nowhere).recent() == []


def test_a_search_ends_when_the_studio_closes(folder: Path) -> None:
    for number in range(100):
        put(folder, f"picture {number}", (number, 0, 0))

    class Slow(ColourClip):
        def encode_image(self, images: Tensor) -> Tensor:
            time.sleep(0.05 * len(images))
            return super().encode_image(images)

    library = Library(folder)
    ended: list[str] = []

    def search() -> None:
        with pytest.raises(BadInput) as problem:
            library.search(Slow(), "red")
        ended.append(problem.value.code)

    thread = threading.Thread(target=search)
    thread.start()
    time.sleep(0.3)
    begun = time.monotonic()
    library.close()
    thread.join(20)
    assert ended == ["app.closing"]
    assert time.monotonic() - begun < 2  # all of them would take five seconds
