"""Judges, compositions and synonyms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pipelines.evaluation import judges
from pipelines.evaluation.compositions import compositions, paint
from pipelines.evaluation.synonyms import (
    ASKED_FOR,
    Entry,
    Sense,
    WordNet,
    choose,
    description,
    letters,
    make,
    read_entries,
    read_icons,
)
from pipelines.training.data.captions import COLOURS
from pipelines.training.data.icons import VALIDATION_STYLE, Icon


def unit(*rows: list[float]) -> torch.Tensor:
    return F.normalize(torch.tensor(rows, dtype=torch.float32), dim=-1)


def test_a_names_rank_counts_only_names_of_other_things() -> None:
    icons = [
        Icon("noto", "dog", ("hound",), "狗"),
        Icon("twemoji", "dog face", (), "狗"),
        Icon("noto", "cat", (), "猫"),
        Icon("noto", "oak", (), ""),
    ]
    book = judges.Book(icons)
    assert book.texts == ["cat", "dog", "dog face", "hound", "oak"]
    scores = torch.tensor([0.5, 0.3, 0.9, 0.8, 0.4])
    assert book.rank("dog", scores) == 2  # cat and oak; a hound is a dog
    assert book.rank("cat", scores) == 2  # both other names of the dog are rivals here
    assert book.rank("dog face", scores) == 0
    assert book.rank("oak", torch.zeros(5)) == 0


def test_shares_within_the_first() -> None:
    assert judges.share_within([0, 1, 4, 5], 1) == 0.25
    assert judges.share_within([0, 1, 4, 5], 5) == 0.75


def test_likeness_is_the_mean_cosine_of_pairs() -> None:
    same, across = [1.0, 0.0], [0.0, 1.0]
    assert judges.likeness(unit(same, same, same)) == pytest.approx(1)
    assert judges.likeness(unit(same, across)) == pytest.approx(0, abs=1e-6)
    assert judges.likeness(unit(same, same, across)) == pytest.approx(1 / 3)
    assert judges.likeness(unit(same)) == 1


def test_words_find_pictures_among_the_nearest() -> None:
    pictures = unit([1, 0, 0], [0.9, 0.1, 0], [0, 1, 0], [0, 0, 1])
    names = ["cat", "tiger", "car", "cake"]
    entries = [Entry("kitty", "synonym", ("cat",)), Entry("pussy", "synonym", ("cake", "tiger"))]
    texts = unit([1, 0, 0], [1, 0, 0])
    assert judges.found(entries, texts, names, pictures, top=1) == [True, False]
    assert judges.found(entries, texts, names, pictures, top=2) == [True, True]
    assert judges.found(entries, -texts, names, pictures, top=1) == [False, False]


def test_a_prompt_must_beat_every_contrast() -> None:
    picture = unit([1, 0.2])[0]
    assert judges.prefers(picture, unit([1, 0], [0, 1], [-1, 0]))
    assert not judges.prefers(picture, unit([1, 0], [1, 0.2], [0, 1]))
    assert not judges.prefers(picture, unit([1, 0], [1, 0]))  # a tie is no preference


def test_nearest_pictures_and_how_far_two_styles_usually_are() -> None:
    vectors = torch.tensor([[0.0], [0.1], [1.0], [3.0], [10.0]])
    styles = ["a", "a", "b", "b", "c"]
    # each one's nearest of another style: 1, 0.9, 0.9, 2.9, 7
    assert judges.usual_distance(vectors, styles) == pytest.approx(1.0)
    distance, index = judges.nearest(torch.tensor([[2.8], [0.04]]), vectors)
    assert index.tolist() == [3, 0]
    assert distance.tolist() == pytest.approx([0.2, 0.04], abs=1e-5)


def test_distances_of_thumbnails_are_root_mean_squares() -> None:
    black, white = -torch.ones(1, 3, 32, 32), torch.ones(1, 3, 48, 48)
    assert torch.cdist(judges.thumbnails(black), judges.thumbnails(white)).item() == pytest.approx(
        2, rel=1e-5
    )


def test_contrasts_change_exactly_one_part() -> None:
    asked = compositions()
    assert len(asked) == 40 and len({one.prompt for one in asked}) == 40
    assert {"red heart on a blue background", "a small dog left of a car", "three apples"} <= {
        one.prompt for one in asked
    }
    for one in asked:
        assert len(set(one.texts)) == 4
        parts = parts_of(one.prompt)
        for contrast in one.contrasts:
            changed = [a != b for a, b in zip(parts, parts_of(contrast), strict=True)]
            assert sum(changed) == 1, (one.prompt, contrast)


def parts_of(prompt: str) -> list[str]:
    for word in (" on a ", " left of a ", " right of a "):
        if word in prompt:
            first, second = prompt.split(word)
            return [first, word, second]
    return prompt.split()


def test_true_pictures_show_what_their_prompts_say() -> None:
    size = 48
    red, green = (np.full((size, size, 4), (*rgb, 255), np.uint8) for rgb in ((200, 0, 0), (0, 200, 0)))
    red[:8] = red[-8:] = 0
    asked = {one.prompt: one for one in compositions()}
    icons = {"red heart": red, "dog face": red, "automobile": green, "red apple": red}
    heart = paint(asked["red heart on a blue background"], icons)
    assert tuple(heart[0, 0]) == COLOURS["blue"][1] and tuple(heart[24, 24]) == (200, 0, 0)
    dog = paint(asked["a small dog left of a car"], icons)
    reds, greens = ((dog == rgb).all(-1) for rgb in ((200, 0, 0), (0, 200, 0)))
    assert reds.nonzero()[1].max() < greens.nonzero()[1].min() and 0 < reds.sum() < greens.sum()
    apples = paint(asked["three apples"], {"red apple": np.pad(red[:, 8:-8], ((0, 0), (8, 8), (0, 0)))})
    row = (apples[24] == (200, 0, 0)).all(-1).astype(int)
    assert (np.diff(row) == 1).sum() == 3


def wordnet(folder: Path, synsets: list[tuple[str, list[str], list[int], str]]) -> WordNet:
    """The two files of WordNet's nouns, of (field, words, places of wider terms, gloss), most common senses first."""
    width = 8
    lines: list[str] = []
    for final in (False, True):  # the first time only to learn where the lines begin
        offsets = [sum(len(line) + 1 for line in lines[:k]) for k in range(len(synsets))] if final else []
        made = []
        for k, (field, words, wider, gloss) in enumerate(synsets):
            where = offsets or [0] * len(synsets)
            spelt = " ".join(f"{word.replace(' ', '_')} 0" for word in words)
            pointers = "".join(f" @ {where[w]:0{width}} n 0000" for w in wider)
            made.append(
                f"{where[k]:0{width}} {field} n {len(words):02x} {spelt} {len(wider):03}{pointers} | {gloss}  "
            )
        lines = made
    (folder / "data.noun").write_text("\n".join(lines) + "\n")
    senses: dict[str, list[int]] = {}
    for k, (_, words, _, _) in enumerate(synsets):
        for word in words:
            senses.setdefault(word.lower().replace(" ", "_"), []).append(offsets[k])
    index = ["  1 a licence stands here"]
    for word, found in sorted(senses.items()):
        places = " ".join(f"{offset:0{width}}" for offset in found)
        index.append(f"{word} n {len(found)} 1 @ {len(found)} 0 {places}  ")
    (folder / "index.noun").write_text("\n".join(index) + "\n")
    return WordNet(folder)


SYNSETS: list[tuple[str, list[str], list[int], str]] = [
    ("05", ["animal", "beast"], [], "a living organism"),
    ("06", ["bat", "lumber"], [], "a club used for hitting a ball"),
    ("05", ["bat", "chiropteran", "flittermouse", "Pteropus"], [0], "nocturnal mouselike mammal, with wings"),
    ("06", ["vehicle"], [], "a conveyance"),
    ("06", ["bus", "autobus", "coach"], [3], "a large road vehicle that carries many passengers; a long one"),
    ("18", ["coach"], [], "someone in charge of training"),
    ("06", ["minibus", "microbus"], [4], "a light bus (4 to 10 passengers)"),
    ("10", ["love"], [], "a word that cannot be drawn"),
]


ICON_LIST = [
    Icon(VALIDATION_STYLE, "bat", (), "蝙蝠", ("animal", "vampire")),
    Icon(VALIDATION_STYLE, "bus", (), "", ("vehicle",)),
    Icon(VALIDATION_STYLE, "oncoming bus", (), "", ("vehicle",)),
    Icon(VALIDATION_STYLE, "minibus", (), "", ("vehicle",)),
    Icon(VALIDATION_STYLE, "love", (), "", ()),
    Icon("noto", "auto-bus", (), "", ()),
    Icon("noto", "ball", ("Flitter Mouses",), "", ()),
]


def strays(entries: list[Entry], icons: list[Icon]) -> list[str]:
    """Texts that are in some caption, and right answers that no validation picture has."""
    said = {letters(word) for icon in icons for word in (icon.name, *icon.also, *icon.keywords)}
    names = {icon.name for icon in icons if icon.style == VALIDATION_STYLE}
    wrong = [entry.text for entry in entries if letters(entry.text) in said]
    return wrong + [name for entry in entries for name in entry.accepted if name not in names]


def test_the_keywords_decide_which_sense_an_icon_shows(tmp_path: Path) -> None:
    made = {one.text: one for one in make(ICON_LIST, wordnet(tmp_path, SYNSETS))}
    assert made["nocturnal mouselike mammal"].accepted == ("bat",)  # not "lumber", the club
    assert made["nocturnal mouselike mammal"].kind == "description"
    assert "lumber" not in made and "Pteropus" not in made
    assert "chiropteran" not in made  # too learned
    assert not strays(list(made.values()), ICON_LIST)


def test_captions_words_are_left_out_however_spelt_and_other_first_senses(tmp_path: Path) -> None:
    synsets = [*SYNSETS[:4], SYNSETS[5], SYNSETS[4], *SYNSETS[6:]]  # now a coach is first of all a person
    synsets[6] = ("06", ["minibus", "microbus"], [5], synsets[6][3])
    made = {one.text: one for one in make(ICON_LIST, wordnet(tmp_path, synsets))}
    assert {"autobus", "flittermouse", "coach"} & set(made) == set()
    assert made["microbus"].accepted == ("minibus",)


def test_narrower_things_and_last_words_are_right_answers(tmp_path: Path) -> None:
    made = {one.text: one for one in make(ICON_LIST, wordnet(tmp_path, SYNSETS))}
    assert made["coach"].accepted == ("bus", "minibus", "oncoming bus")
    assert made["large road vehicle that carries many passengers"].accepted == made["coach"].accepted


@pytest.mark.parametrize(
    ("words", "gloss", "said"),
    [
        (["canoe"], "small and light boat; pointed at both ends", "small and light boat"),
        (["pen"], "a writing implement having a point (of metal)", "writing implement with a point"),
        (["aries"], "the first sign", None),  # too short
        (["wine glass"], "a glass that has a stem", None),  # holds the name
        (["tulip"], "any of numerous plants of the genus Tulipa", None),
        (["octopus"], "a cephalopod with eight arms", None),  # learned
        (
            ["eye"],
            "one two three four five six seven and eight nine ten",
            "one two three four five six seven",
        ),
    ],
)
def test_descriptions_are_short_and_do_not_hold_the_name(
    words: list[str], gloss: str, said: str | None
) -> None:
    assert description(Sense(0, tuple(words), (), "06", gloss)) == said


def test_the_choice_is_the_same_in_any_order_and_keeps_its_counts() -> None:
    entries = [Entry(f"word {k}", ("synonym", "description")[k % 2], (f"thing {k // 8}",)) for k in range(80)]
    chosen = choose(entries, {"synonym": 12, "description": 5})
    assert chosen == choose(entries[::-1], {"synonym": 12, "description": 5})
    assert [one.text for one in chosen] == sorted(one.text for one in chosen)
    assert sum(one.kind == "synonym" for one in chosen) == 12 and len(chosen) == 17
    assert len(choose(entries, {"synonym": 99, "description": 0})) == 30  # at most three a thing


def test_the_shipped_list_holds_its_promises() -> None:
    entries = read_entries()
    assert len(entries) == 300 and len({entry.text for entry in entries}) == 300
    assert sum(entry.kind == "synonym" for entry in entries) == 200
    assert all(entry.accepted and entry.text == entry.text.strip() for entry in entries)
    assert entries == sorted(entries, key=lambda entry: entry.text)
    assert all(1 <= len(entry.text.split()) <= 9 for entry in entries)
    # against the icons themselves where the data is there, else against the names that the answers name
    answers = {name for entry in entries for name in entry.accepted}
    icons = [Icon(VALIDATION_STYLE, name) for name in answers]
    built = Path("data/emoji.safetensors")
    if built.exists():
        icons = read_icons(built)
        assert {name for one in ASKED_FOR for name in one.accepted} <= {icon.name for icon in icons}
    assert not strays(entries, icons)
