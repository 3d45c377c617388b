"""The library as whoever asks sees it: his own pictures, whatever is called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from app.library import Library, Marks, read_query
from app.visitors import OwnLibrary
from pipelines.errors import BadInput
from tests.support.library import ColourClip, put


def test_no_call_of_the_library_reaches_another_visitors_pictures(tmp_path: Path) -> None:
    """Each of its methods, asked by Bob for the ids of Ann's pictures, answers as for pictures that never were."""
    asking = ["ann"]
    library = OwnLibrary(lambda: tmp_path / asking[0])
    clip = ColourClip()
    put(tmp_path / "ann", "secret", (220, 30, 30), prompt="ann's secret")
    put(tmp_path / "ann", "other", (30, 200, 30))
    put(tmp_path / "bob", "mine", (30, 30, 220))
    library.fill(clip)
    library.star(["secret"])
    library.tag(["secret"], add=["private"])
    library.bin(["other"])
    secret = library.find("secret")
    in_bin = library.page(read_query(binned=True)).found[0].entry.id
    thumbnail = library.thumbnail(secret.id)

    for who in ("bob", "carol"):  # Carol has made nothing yet
        asking[0] = who
        library.fill(clip)
        calls: dict[str, Callable[[str], object]] = {
            "find": library.find,
            "thumbnail": library.thumbnail,
            "lineage": library.lineage,
            "zip_of": lambda name: library.zip_of([name]),
            "star": lambda name: library.star([name]),
            "tag": lambda name: library.tag([name], add=["x"]),
            "note": lambda name: library.note([name], "x"),
            "bin": lambda name: library.bin([name]),
            "restore": lambda name: library.restore([name]),
            "like": lambda name: library.page(read_query(like=[name]), 0, 9, clip),
            "unlike": lambda name: library.page(read_query("red", unlike=[name]), 0, 9, clip),
            "given": lambda name: library.page(read_query(given=[str(tmp_path / "ann" / name)]), 0, 9, clip),
        }
        for name, call in calls.items():
            ways = [secret.id, "secret", in_bin, f"../ann/{secret.id}", str(secret.path), str(thumbnail)]
            for way in ways:
                if who == "carol" and name in ("like", "unlike"):
                    assert call(way).found == []  # type: ignore[attr-defined]
                    continue
                with pytest.raises(BadInput) as problem:
                    call(way)
                assert way[:20] in str(problem.value) or name == "given"
        queries = (read_query("red"), read_query(), read_query(starred=True), read_query(binned=True))
        for query in (*queries, read_query(tag="private")):
            names = [each.entry.prompt for each in library.page(query, 0, 48, clip).found]
            assert names == (
                ["mine"] if who == "bob" and not (query.starred or query.binned or query.tag) else []
            )
        assert library.choices()["tag"] == {} and library.acts() == [] and library.undo() is None
        assert library.empty_bin() == 0 and library.broken() == [] and library.progress().broken == 0
        assert [entry.prompt for entry in library.recent()] == (["mine"] if who == "bob" else [])
        assert len(library.search(clip, "red")) == library.count() == (1 if who == "bob" else 0)
        library.start_index(clip)
        library.stop_index()
    assert not (tmp_path / "carol").exists()

    asking[0] = "ann"
    assert library.find("secret").marks == Marks(True, ("private",))
    assert len(library.page(read_query(binned=True)).found) == 1
    library.close()


def test_every_call_of_the_library_is_a_visitors_too() -> None:
    """What is added to Library is asked of the visitor's own, and stands in the test above."""
    public = {name for name in dir(Library) if not name.startswith("_")}
    assert public - set(dir(OwnLibrary)) <= {"done", "end_soon", "write_zip"}


def test_few_libraries_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.visitors.KEPT_LIBRARIES", 2)
    asking = [0]
    library = OwnLibrary(lambda: tmp_path / str(asking[0]))
    for number in range(5):
        put(tmp_path / str(number), "one", (number, 0, 0))
    for number in (0, 1, 2, 3, 4, 0, 4, 3):
        asking[0] = number
        assert library.count() == 1 and len(library._open) <= 2
    library.close()
    with pytest.raises(BadInput):
        library.count()
