"""The axes of a sheet, as they are written and as they change settings."""

from __future__ import annotations

from typing import Any, cast

import pytest

from pipelines.core.axes import parse_axis
from pipelines.core.settings import Settings
from pipelines.diffuse.settings import DiffuseSettings
from pipelines.edit.settings import EditSettings
from pipelines.errors import BadInput
from pipelines.optimize.settings import OptimizeSettings


@pytest.mark.parametrize(
    ("text", "name", "values"),
    [
        ("guidance=1,3,5", "guidance", ("1", "3", "5")),
        (" seed = 1..4 ", "seed", ("1", "2", "3", "4")),
        ("seed=9..7", "seed", ("9", "8", "7")),
        ('words=cat, dog, "a, b"', "words", ("cat", "dog", "a, b")),
        ("negative-prompt=fog", "negative_prompt", ("fog",)),
        ("guidance＝1，3", "guidance", ("1", "3")),
        ("use.clip=tiny-clip,a-b", "use.clip", ("tiny-clip", "a-b")),
        ("seed=1-4", "seed", ("1", "2", "3", "4")),
        ("seed=1-10 (+3)", "seed", ("1", "4", "7", "10")),
        ("seed=5-1 (-2)", "seed", ("5", "3", "1")),
        ("guidance=1-2 (+0.5)", "guidance", ("1", "1.5", "2")),
        ("guidance=0.5..1.5 [3]", "guidance", ("0.5", "1", "1.5")),
        ("seed＝１．．４", "seed", ("1", "2", "3", "4")),
        ("seed=1…3", "seed", ("1", "2", "3")),
        ("Guidance=1.0,1.5,", "guidance", ("1.0", "1.5")),
        ("guidance=1,\n3", "guidance", ("1", "3")),
        ("words=cat,“a, b”", "words", ("cat", "a, b")),
        ("words=1-3,2-4", "words", ("1-3", "2-4")),
        ("prompt=1-3", "prompt", ("1-3",)),
    ],
)
def test_axes_are_read(text: str, name: str, values: tuple[str, ...]) -> None:
    axis = parse_axis(text)
    assert axis is not None and (axis.name, axis.values) == (name, values)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("guidance", "is no axis"),
        ("=1,2", "is no axis"),
        ("guidance=", "is no axis"),
        ("guidance=1,,2", "is no axis"),
        ("seed=" + "1" * 200_000, "is not a whole number"),
        ("guidance=0.5..1.5", "is not a number"),
        ("seed=1..9", "has 9 values; the most is 8"),
        ("seed=0..99999999999999999999", "has 9 values"),
        ("seed=1,2,1", "the value 1 twice"),
        ("guidance=1,99", "guidance 99 is too large"),
        ("guidance=one", "guidance 'one' is not a number"),
        ("colour=red", "no setting colour"),
        ("x=1,2", "no setting x"),
        ("image=a.png", "no setting image"),
        ("words=dog,cat", "'dog' are not in the prompt"),
        ("pace=fast,slow", "'slow'"),
    ],
)
def test_what_is_no_axis_is_told_before_the_run(text: str, reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        DiffuseSettings(prompt="a cat", x=text)


def test_a_sheet_has_a_cell_for_every_pair_of_values_row_by_row() -> None:
    settings = DiffuseSettings(prompt="a cat and a cat", x="guidance=1,2.5", y="words=cat,dog", seed=3)
    cells = settings.cells()
    assert [(cell.settings.prompt, cell.settings.guidance) for cell in cells] == [
        ("a cat and a cat", 1.0),
        ("a cat and a cat", 2.5),
        ("a dog and a dog", 1.0),
        ("a dog and a dog", 2.5),
    ]
    assert all(cell.settings.seed == 3 and not cell.settings.x and not cell.settings.y for cell in cells)
    cells = DiffuseSettings(y="use.clip=one,two", x="invert=yes,no").cells()
    assert [(cell.settings.invert, cell.use["clip"]) for cell in cells] == [
        (True, "one"),
        (False, "one"),
        (True, "two"),
        (False, "two"),
    ]


def test_values_are_read_as_keyboards_type_them() -> None:
    assert [cell.settings.guidance for cell in DiffuseSettings(x="guidance=１．５,2").cells()] == [1.5, 2]
    assert [cell.settings.invert for cell in DiffuseSettings(x="invert=True,False").cells()] == [True, False]
    assert DiffuseSettings(seed=cast(Any, "１２")).seed == DiffuseSettings(seed=cast(Any, "+12")).seed == 12


def test_the_axes_of_a_sheet_are_two_settings() -> None:
    with pytest.raises(BadInput, match="both axes are seed"):
        DiffuseSettings(x="seed=1,2", y="seed=3,4")


def test_between_two_prompts_are_their_weighted_sums() -> None:
    settings = DiffuseSettings(prompt="a red cat", x="between=cat,dog")
    assert [cell.settings.prompt for cell in settings.cells()] == [
        "a red cat",
        "a red cat:0.75 | a red dog:0.25",
        "a red cat:0.5 | a red dog:0.5",
        "a red cat:0.25 | a red dog:0.75",
        "a red dog",
    ]
    axis = settings.axes()[0]
    assert axis is not None and axis.labels() == ["cat", "25% dog", "50% dog", "75% dog", "dog"]
    assert len(OptimizeSettings(prompt="a cat", y="between=cat,dog").cells()) == 5


@pytest.mark.parametrize(
    ("kind", "prompt", "axis"),
    [
        (DiffuseSettings, "a cat", "between=cat"),
        (DiffuseSettings, "a cat", "between=cat,dog,bird"),
        (DiffuseSettings, "a cat | a hat", "between=cat,dog"),
        (OptimizeSettings, "a cat ^ a hat", "between=cat,dog"),
        (EditSettings, "a cat", "between=cat,dog"),
    ],
)
def test_between_needs_two_ends_and_a_plain_prompt(kind: type[Settings], prompt: str, axis: str) -> None:
    with pytest.raises(BadInput, match="the axis between"):
        kind(prompt=prompt, x=axis)
