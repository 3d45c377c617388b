"""What a query finds, in which order, with which stacks; zips; large libraries."""

from __future__ import annotations

import csv
import io
import os
import zipfile
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.library import Library, Query, read_query
from app.library import near as near_module
from app.library.sheet import KEPT_ZIPS
from app.library.vectors import Vectors
from pipelines.errors import BadInput
from pipelines.io.images import picture_to_uri
from tests.support.library import ColourClip, put

COLOURS = {
    "red": (230, 20, 20),
    "green": (20, 220, 20),
    "blue": (20, 20, 230),
    "yellow": (220, 220, 20),
    "pink": (240, 20, 200),
    "cyan": (20, 210, 220),
    "grey": (120, 120, 120),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for age, (name, colour) in enumerate(COLOURS.items()):
        put(tmp_path, f"x{name}", colour, age * 86_400, prompt=f"the {name}ish", seed=age, score=age / 10)
    return tmp_path


def found(library: Library, clip: ColourClip | None, text: str = "", **more: object) -> list[str]:
    library.fill(clip)  # a page alone answers soon, with what there is
    page = library.page(read_query(text, stacked=False, **more), 0, 48, clip)
    return [each.entry.prompt.removeprefix("the ").removesuffix("ish") for each in page.found]


def test_weights_combine_and_a_minus_takes_away(folder: Path) -> None:
    library, clip = Library(folder), ColourClip()
    assert found(library, clip, "red")[0] == "red"
    assert found(library, clip, "red:1 green:1")[0] == "yellow"
    assert set(found(library, clip, "red, green")[2:4]) == {"red", "green"}  # after grey
    assert found(library, clip, "red:1 green:0.1")[0] == "red"
    assert found(library, clip, "red -blue")[0] in ("red", "yellow")
    assert (
        set(found(library, clip, "-red")[:2]) == {"green", "blue"}
        and found(library, clip, "-red")[-1] == "red"
    )
    assert len(found(library, clip, "red")) == len(COLOURS)


def test_scores_are_cosines(folder: Path) -> None:
    library, clip = Library(folder), ColourClip()
    library.fill(clip)
    page = library.page(read_query("red"), 0, 48, clip)
    scores = {each.entry.prompt: each.score for each in page.found}
    assert scores["the redish"] == pytest.approx(np.dot((230, 20, 20), (220, 30, 30)) / 39_000 / 1.4, rel=0.2)
    assert all(-1.001 <= score <= 1.001 for score in scores.values() if score is not None)
    alone = library.page(read_query("-red"), 0, 48, clip)
    assert alone.found[-1].score == pytest.approx(scores["the redish"], abs=1e-3)


def test_like_and_unlike_pictures(folder: Path) -> None:
    library, clip = Library(folder), ColourClip()
    ids = {name: library.find(f"x{name}").id for name in COLOURS}
    assert found(library, clip, like=[ids["pink"]])[0] == "pink"
    assert found(library, clip, unlike=[ids["red"]])[-1] == "red"
    assert found(library, clip, like=[ids["red"], ids["green"]])[0] == "yellow"
    orange = picture_to_uri(Image.new("RGB", (30, 20), (250, 60, 20)))
    assert found(library, clip, given=[orange])[0] == "red"
    assert found(library, clip, "green", given=[orange])[0] == "yellow"
    with pytest.raises(BadInput) as problem:
        found(library, clip, like=["../x.png"])
    assert problem.value.code == "app.picture_not_in_library"
    with pytest.raises(BadInput):
        found(library, clip, given=["data:image/png;base64,AAAA"])


def test_filters_and_orders(folder: Path) -> None:
    library, clip = Library(folder), ColourClip()
    assert found(library, None) == list(COLOURS)
    assert found(library, None, sort="score") == list(COLOURS)[::-1]
    assert found(library, clip, "green", sort="date") == list(COLOURS)
    assert found(library, None, seed=2) == ["blue"] and found(library, None, seed="3") == ["yellow"]
    assert found(library, None, tool="fake") == list(COLOURS) and found(library, None, tool="other") == []
    assert found(library, None, words="PINKish") == ["pink"] and found(library, None, words="xgrey") == [
        "grey"
    ]
    assert found(library, None, words="pin") == []  # whole words
    assert found(library, None, model="TINY") == list(COLOURS)
    days = [datetime.fromtimestamp(1_700_000_000 - age * 86_400).strftime("%Y-%m-%d") for age in range(7)]
    assert found(library, None, date=days[1]) == ["green"]
    assert found(library, None, date=f"..{days[5]}") == ["cyan", "grey"]
    assert found(library, clip, "red", date=f"{days[1]}..{days[0]}")[0] == "red"


def test_those_whose_own_words_say_it_come_first(folder: Path) -> None:
    library, clip = Library(folder), ColourClip()
    put(folder, "fraud", (10, 10, 240), prompt="red and green")
    library.fill(clip)
    page = library.page(read_query("red"), 0, 48, clip)
    assert page.found[0].entry.prompt == "red and green" and page.found[0].told
    assert not page.found[1].told and page.found[1].entry.prompt == "the redish"
    assert library.search(clip, "red", 1)[0][0].prompt == "the redish"  # for programs: by the looks alone


def test_pages_follow_one_another(folder: Path) -> None:
    library = Library(folder)
    library.fill()
    names: list[str] = []
    for skip in range(0, 9, 3):
        page = library.page(Query(), skip, 3)
        names += [each.entry.id for each in page.found]
        assert page.total == 7 and page.more == (skip < 6)
    assert len(set(names)) == 7


def test_near_duplicates_stand_on_one_stack(tmp_path: Path) -> None:
    library, clip = Library(tmp_path), ColourClip()
    put(tmp_path, "a", (200, 40, 40), 0, prompt="heart")
    put(tmp_path, "a again", (199, 41, 40), 1, prompt="another text")  # the same to the eye
    put(tmp_path, "b", (200, 40, 90), 2, prompt="heart")  # near, and of the same prompt
    put(tmp_path, "c", (200, 40, 91), 3, prompt="tree")  # as near, but of another
    put(tmp_path, "d", (40, 200, 40), 4, prompt="heart")
    (tmp_path / "copy.png").write_bytes((tmp_path / "2026-01-01" / "d.png").read_bytes())
    library.fill(clip)
    for query, model in ((Query(), None), (Query(), clip), (read_query("red"), clip)):
        found = library.page(query, 0, 48, model).found
        stacks = [{Path(name).stem for name in (each.entry.id, *each.stack)} for each in found]
        assert sorted(map(sorted, stacks)) == [["a", "a again", "b"], ["c"], ["copy", "d"]]
    flat = library.page(read_query(stacked=False), 0, 48)
    assert len(flat.found) == 6 and not any(each.stack for each in flat.found)


def test_a_zip_holds_files_sheets_and_a_list(folder: Path) -> None:
    library = Library(folder)
    put(folder, "xred", (1, 2, 3), day="2026-02-02", prompt="=1+1")
    library.fill()
    library.note([library.find("xgreen").id], "好")
    ids = [each.entry.id for each in library.page(Query(stacked=False)).found]
    file = library.zip_of(ids)
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        assert {"contact-sheet-1.jpg", "pictures.csv", "xred.png", "xred (2).png"} <= set(names)
        assert len(names) == 10 and not any("/" in name or "\\" in name for name in names)
        assert archive.read("xgreen.png") == (folder / "2026-01-01" / "xgreen.png").read_bytes()
        rows = list(csv.DictReader(io.StringIO(archive.read("pictures.csv").decode("utf-8-sig"))))
        sheet = Image.open(io.BytesIO(archive.read("contact-sheet-1.jpg")))
        assert sheet.width > 8 * 160 and np.asarray(sheet).std() > 5
    assert len(rows) == 8 and {"'=1+1", "the greenish"} <= {row["prompt"] for row in rows}
    assert [row["note"] for row in rows if row["note"]] == ["好"]
    with pytest.raises(BadInput):
        library.zip_of([*ids, "nobody.png"])


def test_too_much_for_a_zip_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.library.sheet.MOST_BYTES", 100)
    library = Library(folder)
    with pytest.raises(BadInput) as problem:
        library.zip_of(["xred"])
    assert problem.value.code == "library.zip_too_large"
    assert not list((folder / "library").rglob("*.zip")) and not list((folder / "library").rglob("*.part"))


def test_a_graph_answers_for_large_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("usearch", reason="it is an extra")
    generator = np.random.default_rng(0)
    values = generator.standard_normal((500, 32)).astype(np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    vectors = Vectors(tmp_path / "a.f16", 32)
    vectors.write(0, values[:400])
    graph = near_module.NearIndex(tmp_path / "a.usearch", 32)
    graph.add(vectors, 400)
    vectors.write(400, values[400:])
    graph.add(vectors, 500)
    again = near_module.NearIndex(tmp_path / "a.usearch", 32)
    assert len(graph) == len(again) == 500
    best = np.argsort(-(values @ values[:50].T), axis=0)[:10].T
    hits = sum(len(np.intersect1d(again.search(values[k], 10)[0], best[k])) for k in range(50))
    assert hits / 500 >= 0.95
    (tmp_path / "a.usearch").write_bytes(b"nonsense")
    assert len(near_module.NearIndex(tmp_path / "a.usearch", 32)) == 0


def test_a_library_with_a_graph_finds_what_one_without_finds(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("usearch", reason="it is an extra")
    clip = ColourClip()
    exact = [found(Library(folder), clip, text) for text in ("red", "red:1 green:1", "-blue")]
    monkeypatch.setattr("app.library.near.LARGE", 3)
    library = Library(folder)
    library.fill(clip)
    assert list((folder / "library" / "index").glob("*.usearch"))
    monkeypatch.setattr("app.library.ranking.scores_of", lambda *_: pytest.fail("the graph was not asked"))
    monkeypatch.setattr("app.library.finding.scores_of", lambda *_: pytest.fail("the graph was not asked"))
    assert [found(library, clip, text) for text in ("red", "red:1 green:1", "-blue")] == exact


def test_zips_know_any_time_and_few_are_kept(folder: Path) -> None:
    file = folder / "2026-01-01" / "xred.png"
    os.utime(file, (3600, 3600))  # 1970, as of a camera without a clock
    library = Library(folder)
    zips = [library.zip_of(["xred"]) for _ in range(KEPT_ZIPS + 2)]
    with zipfile.ZipFile(zips[-1]) as archive:
        assert archive.read("xred.png") == file.read_bytes()
    assert sum(one.exists() for one in zips) == KEPT_ZIPS
