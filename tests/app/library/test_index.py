"""The index: keyed by content, filled in the background, rebuilt when deleted, safe when it is killed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from app.library import Library, Query, read_query
from app.library.thumbnails import THUMBNAIL
from app.library.vectors import Vectors, _widened
from pipelines.errors import BadInput
from tests.support.library import COLOURS, ColourClip, index_file, put

ROOT = Path(__file__).parents[3]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(30):
        put(tmp_path, f"picture {number}", (8 * number, 255 - 8 * number, 90), age=number)
    return tmp_path


def wait(library: Library) -> None:
    end = time.monotonic() + 20
    while library.progress().running:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_renamed_and_copied_files_are_not_seen_again(folder: Path) -> None:
    library, clip = Library(folder), ColourClip()
    library.fill(clip)
    seen = clip.seen
    (folder / "2026-01-01").rename(folder / "2026-02-02")
    shutil.copy(folder / "2026-02-02" / "picture 3.png", folder / "copy.png")
    library.fill(clip)
    assert clip.seen == seen and library.count() == 31
    assert library.find("picture 7").id == "2026-02-02/picture 7.png"
    library.fill(clip)
    copies = library.page(read_query("picture 3"), 0, 48, clip).found[0]
    assert {copies.entry.id, *copies.stack} >= {"copy.png", "2026-02-02/picture 3.png"}


def test_each_clip_has_an_index_of_its_own(folder: Path) -> None:
    class OtherClip(ColourClip):
        def encode_image(self, images: Tensor) -> Tensor:
            return F.normalize(super().encode_image(images) * torch.tensor([1, 0.5, 0.2]), dim=1)

    library, one, other = Library(folder), ColourClip(), OtherClip()
    first = library.search(one, "green", 5)
    assert len(library.search(other, "green", 5)) == 5
    seen = one.seen
    assert library.search(one, "green", 5) == first
    assert one.seen == seen
    assert len(list(index_file(folder).parent.glob("vectors-*.f16"))) == 2


def test_a_deleted_index_is_filled_again_from_the_files(folder: Path) -> None:
    library, clip = Library(folder), ColourClip()
    before = [entry.id for entry, _ in library.search(clip, "red")]
    library.close()
    shutil.rmtree(folder / "library")
    library = Library(folder)
    assert [entry.id for entry, _ in library.search(ColourClip(), "red")] == before


def test_the_job_in_the_background_fills_and_can_be_stopped(folder: Path) -> None:
    go = threading.Event()

    class Waiting(ColourClip):
        def encode_image(self, images: Tensor) -> Tensor:
            if images.shape[-1] == 224:
                go.wait(10)
            return super().encode_image(images)

    library, clip = Library(folder), Waiting()
    library.start_index(clip)
    end = time.monotonic() + 10
    while library.progress().stage != "see" and library.progress().running and time.monotonic() < end:
        time.sleep(0.01)
        if library.count() == 30:
            break
    library.stop_index()
    go.set()
    wait(library)
    assert library.progress().stage == "stopped"
    page = library.page(Query(), 0, 5)
    assert len(page.found) == 5 and not page.progress.running  # it does not begin again by itself
    library.start_index(clip)
    wait(library)
    assert library.progress().stage == "done"
    assert clip.seen == 30 + 2  # each once, and the picture by which a CLIP is known
    library.close()


def test_a_page_answers_while_the_rest_is_filled(folder: Path) -> None:
    class Slow(ColourClip):
        def encode_image(self, images: Tensor) -> Tensor:
            time.sleep(0.06 * len(images))
            return super().encode_image(images)

    library, clip = Library(folder), Slow()
    begun = time.monotonic()
    page = library.page(read_query("red", stacked=False), 0, 48, clip)
    assert time.monotonic() - begun < 1.5 < 0.06 * 30
    assert page.progress.running and len(page.found) < 30
    wait(library)
    assert len(library.page(read_query("red", stacked=False), 0, 48, clip).found) == 30
    library.close()


def test_broken_files_are_listed_with_their_reasons(folder: Path) -> None:
    good = (folder / "2026-01-01" / "picture 1.png").read_bytes()
    Image.new("RGB", (40, 40), "red").save(folder / "photo.JPG")
    ours = good.index(b"atelier\0") + 20  # a byte of our own record
    broken = {
        "cut.png": good[:-30],
        "empty.jpg": b"",
        "words.webp": b"no picture",
        "flipped.png": good[:ours] + bytes([good[ours] ^ 255]) + good[ours + 1 :],
        "half.jpg": (folder / "photo.JPG").read_bytes()[:200],
        "wide.png": good[:16] + b"\0\1\0\0\0\1\0\0" + good[24:],
    }
    for name, data in broken.items():
        (folder / name).write_bytes(data)
    library = Library(folder, outputs=folder.with_name(folder.name + "-outputs"))
    library.fill(ColourClip())
    assert [one.id for one in library.broken()] == sorted(broken)
    assert all(
        str(one.problem) and one.problem.message.text("zh") != str(one.problem) for one in library.broken()
    )
    assert library.count() == 31 and library.find("photo").record is None
    for name in broken:
        with pytest.raises(BadInput):
            library.find(name)


def test_thumbnails_are_made_once_and_again_when_they_are_damaged(folder: Path) -> None:
    put(folder, "large", Image.new("RGB", (900, 300), "red"))
    library = Library(folder)
    file = library.thumbnail("large")
    with Image.open(file) as image:
        assert (image.format, image.size) == ("WEBP", (THUMBNAIL, round(THUMBNAIL / 3)))
    made = file.stat().st_mtime_ns
    assert library.thumbnail("large") == file and file.stat().st_mtime_ns == made
    file.write_bytes(file.read_bytes()[:40])
    with Image.open(library.thumbnail("large")) as image:
        image.load()
    library.fill()
    assert len(list((folder / "library" / "index" / "thumbnails").rglob("*.webp"))) == 31


def test_thumbnails_of_deleted_files_go_with_the_next_run(folder: Path) -> None:
    library = Library(folder)
    library.fill()
    file = library.thumbnail("picture 1")
    library.find("picture 1").path.unlink()
    library.start_index()
    wait(library)
    assert not file.exists() and len(list((folder / "library").rglob("*.webp"))) == 29
    library.close()


def test_rows_are_products_whatever_the_chunks_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.library.vectors.CHUNK", 7)
    values = np.random.default_rng(0).standard_normal((50, 16)).astype(np.float16)
    for file in (tmp_path / "a.f16", None):
        vectors = Vectors(file, 16)
        vectors.write(0, values[:20])
        vectors.write(20, values[20:])
        vectors.write(3, values[3:5])
        assert vectors.count() == 50 and (vectors.rows(50) == values).all() and len(vectors.rows(9)) == 9
        wanted = values[:3].T.astype(np.float32)
        assert np.allclose(vectors.dot(wanted, 50), values.astype(np.float32) @ wanted, atol=1e-4)


def test_every_finite_half_is_widened_exactly() -> None:
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)][:, None]
    wide = _widened(halves).astype(np.float64) * 2.0**112
    assert (wide == halves.astype(np.float64)).all()


def test_rows_are_checked(tmp_path: Path) -> None:
    vectors = Vectors(tmp_path / "a.f16", 4)
    vectors.write(0, np.eye(4, dtype=np.float16))
    vectors.write(2, np.zeros((1, 4), np.float16))
    assert vectors.bad(6).tolist() == [2, 4, 5]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="children are made by forking")
def test_killed_at_twenty_points_nothing_is_lost_and_nothing_is_twice(tmp_path: Path) -> None:
    for number in range(12):
        put(tmp_path / "start", f"picture {number}", (20 * number, 255 - 20 * number, 90), age=number)
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.killed_index", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert len(told) == 20
    kinds = {one["at"] for one in told}
    assert kinds >= {"vectors", "half of vectors", "transaction", "thumbnail", "marks"}
    for one in told:
        assert one["killed"], one
        assert one["count"] == 12 and one["rows"] == 12 and one["distinct"] == 12, one
        assert one["order"] == told[0]["order"] and one["left"] == [], one
        assert one["best"] == "picture 1" and one["whole"], one
        assert one["stars"] in ([], ["picture 2"]), one


def test_a_file_that_vanishes_while_it_is_seen_is_not_called_broken(folder: Path) -> None:
    library, clip = Library(folder), ColourClip()
    library.count()
    (folder / "2026-01-01").rename(folder / "elsewhere")
    library._filling.see(clip)  # by names that are no more
    assert library.broken() == []
    assert len(library.search(clip, "red", 99)) == 30


def test_two_thousand_and_a_hundred_broken_at_a_small_scale(tmp_path: Path) -> None:
    source = put(tmp_path / "made", "one", COLOURS["red"]).read_bytes()
    for number in range(100):
        (tmp_path / f"{number}.png").write_bytes(source if number % 10 else source[: number * 3 + 9])
    library = Library(tmp_path, outputs=tmp_path.with_name(tmp_path.name + "-home"))
    library.fill(ColourClip())
    assert library.count() == 91 and len(library.broken()) == 10
