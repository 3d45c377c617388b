"""The looks of the training data as settings, in words and in batches."""

from __future__ import annotations

import pytest

from pipelines.core.candidates import spread
from pipelines.core.looks import LOOKS, in_words, parse_looks, prompt_in_words
from pipelines.errors import BadInput
from pipelines.generate.settings import GenerateSettings
from pipelines.training.data.icons import ICON_SETS


def test_the_looks_are_those_of_the_captions() -> None:
    known = {name: (icons.english, icons.chinese) for name, icons in ICON_SETS.items() if icons.english}
    assert {look.slot: (look.english, look.chinese) for look in LOOKS.values()} == known


@pytest.mark.parametrize(
    ("text", "looks"),
    [
        ("", []), ("any", []), ("flat", ["flat"]), ("3D, flat,flat", ["3d", "flat"]), ("扁平、立体", ["flat", "3d"]),
        ("all", list(LOOKS)),
    ],
)  # fmt: skip
def test_looks_are_read_in_both_languages(text: str, looks: list[str]) -> None:
    assert parse_looks(text) == looks
    assert GenerateSettings(style=text).style == ", ".join(looks)


def test_unknown_looks_are_named_with_those_there_are() -> None:
    with pytest.raises(BadInput, match=r"'oil'.*cartoon"):
        GenerateSettings(style="oil")


@pytest.mark.parametrize(
    ("text", "look", "words"),
    [
        ("cat face", "flat", "flat cat face"), ("a cat", "3d", "a 3d cat"), ("an apple", "retro", "a retro apple"),
        ("a 3d cat", "3d", "a 3d cat"), ("猫脸", "cartoon", "卡通的猫脸"), ("the moon", "", "the moon"),
    ],
)  # fmt: skip
def test_words_stand_where_captions_had_them(text: str, look: str, words: str) -> None:
    assert in_words(text, look) == words


def test_only_what_is_wanted_gets_the_word() -> None:
    assert (
        prompt_in_words("a castle | fog:0.5 | people:-0.4", "flat")
        == "a flat castle | flat fog:0.5 | people:-0.4"
    )


def test_candidates_take_turns_and_are_put_together_where_words_are_needed() -> None:
    seeds = list(range(10, 17))
    mixed = spread(seeds, ["flat", "3d", "retro"], 4, alike=False)
    assert [batch.seeds for batch in mixed] == [[10, 11, 12, 13], [14, 15, 16]]
    assert mixed[1].row_looks == ["3d", "retro", "flat", "3d"]
    alike = spread(seeds, ["flat", "3d", "retro"], 4, alike=True)
    assert [(batch.seeds, set(batch.row_looks)) for batch in alike] == [
        ([10, 13, 16], {"flat"}), ([11, 14], {"3d"}), ([12, 15], {"retro"}),
    ]  # fmt: skip
    assert [batch.finished for batch in alike] == [3, 5, 7]
    assert [batch.looks for batch in spread(seeds, [], 4, alike=False)] == [(), ()]
