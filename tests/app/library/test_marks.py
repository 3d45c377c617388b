"""Stars, tags, notes, the bin and undo: the user's work, which outlives the index and follows renamed files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from app.library import Library, Marks, Query, read_query
from app.library.marks import MarksFile
from pipelines.errors import BadInput, CannotSave
from tests.support.library import COLOURS, ColourClip, put


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for age, (name, colour) in enumerate(COLOURS.items()):
        put(tmp_path, name, colour, age)
    return tmp_path


def names(library: Library, query: Query) -> list[str]:
    library.fill()
    return [found.entry.prompt for found in library.page(query).found]


def test_many_at_once_are_one_act_that_can_be_undone(folder: Path) -> None:
    library = Library(folder)
    library.star(["red", "green"])
    library.tag(["red", "blue"], add=["warm, 海", "old"])
    library.tag(["red"], remove=["old"])
    library.note(["red"], "  the best \n of them ")
    assert library.find("red").marks == Marks(True, ("warm", "海"), "the best\nof them")
    assert names(library, read_query(starred=True)) == ["red", "green"]
    assert names(library, read_query(tag="OLD")) == ["blue"]
    assert names(library, read_query(words="best")) == ["red"]
    assert library.choices()["tag"] == {"warm": 2, "海": 2, "old": 1}
    kinds = []
    while act := library.undo():
        kinds.append((act.kind, act.count))
    assert kinds == [("note", 1), ("tag", 1), ("tag", 2), ("star", 2)]
    assert library.find("red").marks == library.find("blue").marks == Marks()


def test_what_changes_nothing_is_no_act(folder: Path) -> None:
    library = Library(folder)
    library.star(["red"])
    library.star(["red"])
    library.star(["blue"], on=False)
    assert [act.count for act in library.acts()] == [1]


def test_marks_outlive_the_index_and_follow_a_renamed_file(folder: Path) -> None:
    library = Library(folder)
    library.star(["red"])
    library.note(["red"], "mine")
    library.close()
    shutil.rmtree(folder / "library" / "index")
    (folder / "2026-01-01" / "red.png").rename(folder / "other.png")
    library = Library(folder)
    assert library.find("other").marks == Marks(True, (), "mine")
    assert library.undo() is not None and library.find("other").marks.star


def test_a_line_that_was_cut_off_takes_away_itself_only(folder: Path) -> None:
    library = Library(folder)
    library.star(["red"])
    library.star(["green"])
    library.close()
    file = folder / "library" / "marks.jsonl"
    file.write_bytes(file.read_bytes()[:-20])  # a crash while the second was written
    library = Library(folder)
    library.star(["blue"])
    assert names(library, read_query(starred=True)) == ["red", "blue"]
    library.undo()
    assert names(library, read_query(starred=True)) == ["red"]
    file.write_bytes(file.read_bytes() + b'nonsense\n[1]\n{"act": "star"}\n\xff\n')
    assert names(Library(folder), read_query(starred=True)) == ["red"]


def test_two_processes_see_each_others_marks(folder: Path) -> None:
    one, two = Library(folder), Library(folder)
    one.star(["red"])
    assert two.find("red").marks.star
    two.star(["red"], on=False)
    assert not one.find("red").marks.star
    assert names(one, read_query(starred=True)) == []


def test_limits_of_marks(folder: Path) -> None:
    library = Library(folder)
    for work in (
        lambda: library.tag(["red"], add=["x" * 41]),
        lambda: library.tag(["red"], add=[str(k) for k in range(60)]),
        lambda: library.note(["red"], "x" * 2001),
        lambda: library.star(["red", "mauve"]),
    ):
        with pytest.raises(BadInput):
            work()
    assert library.acts() == [] and not (folder / "library" / "marks.jsonl").exists()


def test_into_the_bin_and_back(folder: Path) -> None:
    library, clip = Library(folder), ColourClip()
    library.search(clip, "red")
    seen = clip.seen
    library.star(["red"])
    library.bin(["red", "green"])
    assert names(library, Query()) == ["blue"] and library.count() == 1
    assert "red" not in [entry.prompt for entry, _ in library.search(clip, "red")]
    assert not (folder / "2026-01-01" / "red.png").exists()
    binned = library.page(read_query(binned=True)).found
    assert sorted(found.entry.prompt for found in binned) == ["green", "red"]
    put(folder, "red", (9, 9, 9), age=9, prompt="a new one")  # takes the name meanwhile
    library.restore([found.entry.id for found in binned if found.entry.prompt == "red"])
    assert library.find("red (2)").marks.star and library.find("red").prompt == "a new one"
    assert library.undo().kind == "restore"  # type: ignore[union-attr]
    assert library.undo().kind == "bin"  # type: ignore[union-attr]
    assert sorted(names(library, Query())) == ["a new one", "blue", "green", "red"]
    assert not any((folder / "library" / "bin").rglob("*.png"))
    library.search(clip, "red")
    assert clip.seen == seen + 1  # only the new picture: those from the bin were seen before


def test_an_emptied_bin_leaves_nothing_and_cannot_be_undone(folder: Path) -> None:
    library = Library(folder)
    library.fill(ColourClip())
    library.star(["blue"])
    thumbnail = library.thumbnail("red")
    library.bin(["red"])
    assert thumbnail.exists()
    assert library.empty_bin() == 1 and library.empty_bin() == 0
    assert not thumbnail.exists() and not (folder / "library" / "bin").exists()
    assert [act.kind for act in library.acts()] == ["star"]
    assert library.count() == 2 and library.page(read_query(binned=True)).found == []


def test_a_folder_from_elsewhere_is_never_written_to(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("outputs")
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))
    library = Library(folder, outputs=home)
    library.fill(ColourClip())
    library.star(["red"])
    library.thumbnail("red")
    library.zip_of(["red"])
    assert library.empty_bin() == 0
    for work in (library.bin, library.restore):
        with pytest.raises(BadInput) as problem:
            work(["red"])
        assert problem.value.code == "library.only_read"
    library.close()
    assert sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*")) == before
    assert Library(folder, outputs=home).find("red").marks.star


def test_names_lead_nowhere_else(folder: Path) -> None:
    library = Library(folder)
    (folder.parent / f"{folder.name}.png").write_bytes((folder / "2026-01-01" / "red.png").read_bytes())
    for bad in (
        f"../{folder.name}.png",
        f"{folder}/2026-01-01/red.png",
        "library/bin/x/../../red.png",
        "",
        "\0",
    ):
        for work in (library.bin, library.restore, library.star, library.zip_of):
            with pytest.raises(BadInput):
                work([bad])
        with pytest.raises(BadInput):
            library.thumbnail(bad)


def test_a_marks_file_in_memory_of_its_lines(tmp_path: Path) -> None:
    marks = MarksFile(tmp_path / "marks.jsonl")
    marks.star(["aa"], True)
    changes = marks.changes
    assert marks.all() == {"aa": Marks(True)} and marks.changes == changes
    (tmp_path / "marks.jsonl").unlink()
    assert marks.all() == {} and marks.changes > changes


def test_marks_that_cannot_be_read_are_none(folder: Path) -> None:
    (folder / "library" / "marks.jsonl").mkdir(parents=True)
    library = Library(folder)
    assert {entry.prompt for entry in library.recent()} == {"red", "green", "blue"}
    with pytest.raises(CannotSave):
        library.star(["red"])
