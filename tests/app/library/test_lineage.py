"""What was made from what, by the records alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.library import Library, Lineage
from pipelines.errors import BadInput
from pipelines.io.images import picture_to_uri
from tests.support.library import put


def scene(seed: int, size: int = 64) -> Image.Image:
    """Blocks of colours."""
    blocks = np.random.default_rng(seed).integers(0, 255, (8, 8, 3)).astype(np.uint8)
    return Image.fromarray(blocks).resize((size, size), Image.Resampling.BICUBIC)


@pytest.fixture
def library(tmp_path: Path) -> Library:
    """A scene, two that were made from it (one resized before), one made from one of these, and a stranger."""
    first, second = scene(1), scene(2)
    put(tmp_path, "root", first, 50)
    put(tmp_path, "child", second, 40, settings={"image": picture_to_uri(first)})
    smaller = picture_to_uri(first.resize((40, 40), Image.Resampling.LANCZOS))
    put(tmp_path, "other child", scene(3), 30, settings={"image": smaller})
    put(tmp_path, "grandchild", scene(4), 20, settings={"image": picture_to_uri(second)})
    put(
        tmp_path,
        "twin",
        scene(5),
        20,
        prompt="grandchild",
        seed=2,
        settings={"image": picture_to_uri(second)},
    )
    put(tmp_path, "stranger", scene(6), 10)
    put(tmp_path, "nobody's", scene(7), 5, settings={"image": picture_to_uri(scene(99))})
    library = Library(tmp_path)
    library.fill()
    return library


def tree(lineage: Lineage) -> dict[str, object]:
    def names(relatives: object) -> dict[str, object]:
        return {each.entry.path.stem: names(each.relatives) for each in relatives}  # type: ignore[attr-defined]

    return {
        "parents": names(lineage.parents),
        "children": names(lineage.children),
        "siblings": sorted(entry.path.stem for entry in lineage.siblings),
    }


def test_up_down_and_beside(library: Library) -> None:
    assert tree(library.lineage("root")) == {
        "parents": {},
        "children": {"child": {"grandchild": {}, "twin": {}}, "other child": {}},
        "siblings": [],
    }
    assert tree(library.lineage("grandchild")) == {
        "parents": {"child": {"root": {}}}, "children": {}, "siblings": ["twin"],
    }  # fmt: skip
    assert library.lineage("grandchild").parents[0].setting == "image"
    for name in ("stranger", "nobody's"):
        assert tree(library.lineage(name)) == {"parents": {}, "children": {}, "siblings": []}
    with pytest.raises(BadInput):
        library.lineage("mauve")


def test_it_survives_a_deleted_parent_and_a_new_index(library: Library) -> None:
    library.find("child").path.unlink()
    assert tree(library.lineage("root"))["children"] == {"other child": {}}
    assert tree(library.lineage("grandchild"))["parents"] == {}


def test_the_middle_of_a_wide_parent_is_known(tmp_path: Path) -> None:
    wide = scene(1, 96).resize((96, 48))
    put(tmp_path, "wide", wide, 20)
    middle = picture_to_uri(wide.crop((24, 0, 72, 48)).resize((32, 32), Image.Resampling.LANCZOS))
    put(tmp_path, "square", scene(2), 10, settings={"image": middle})
    library = Library(tmp_path)
    library.fill()
    assert tree(library.lineage("square"))["parents"] == {"wide": {}}


def test_a_picture_made_before_is_no_child(tmp_path: Path) -> None:
    put(tmp_path, "later", scene(1), 10)
    put(tmp_path, "earlier", scene(2), 20, settings={"image": picture_to_uri(scene(1))})
    library = Library(tmp_path)
    library.fill()
    assert tree(library.lineage("earlier"))["parents"] == {}
