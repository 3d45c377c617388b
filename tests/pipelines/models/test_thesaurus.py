"""Words that a tiny CLIP takes for something else are read as names that it knows, and what is drawn by them says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.diffuse.settings import DiffuseSettings
from pipelines.errors import BadInput
from pipelines.generate.settings import GenerateSettings
from pipelines.models.thesaurus import THESAURUS, Thesaurus
from pipelines.see.names import known_names
from tests.support.diffuse import pictures_of
from tests.support.tiny import tiny_prior_diffuse

NAMES = {
    "dinosaur": "t rex",
    "infant": "person feeding baby",
    "race car": "racing car",
    "帽子": "礼帽",
    "eating": "pizza",
}
PACK = Path(__file__).parents[3] / "assets" / "tiny"


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("dinosaur", "t rex"),
        ("A Dinosaur!", "A t rex"),
        ("an infant", "a person feeding baby"),
        ("a small green dinosaur", "a small green t rex"),
        ("dinosaur face", "t rex face"),
        ("the red race car", "the red racing car"),
        ("a dinosaur on a red heart", "a dinosaur on a red heart"),  # it was read, and may be part of a name
        ("a cat eating a pizza", "a cat eating a pizza"),
        ("a infant in a house", "a person feeding baby in a house"),  # it was never read
        ("帽子", "礼帽"),
        ("一顶帽子", "礼帽"),
        ("红色的小帽子", "红色的小礼帽"),
        ("帽子脸", "礼帽脸"),
        ("猫", "猫"),
        ("", ""),
    ],
)
def test_a_text_in_known_words(text: str, known: str) -> None:
    assert Thesaurus(NAMES).known_as(text, frozenset({"infant", "eating"})) == known


def test_the_pack_has_one_and_a_damaged_one_is_told(tmp_path: Path) -> None:
    shipped = Thesaurus.load(PACK / THESAURUS)
    assert shipped.known_as("a dinosaur") == "a t rex" and len(shipped.names) > 3000
    names = [name for pair in known_names() for name in pair]
    assert "red heart" in names and "heart" in shipped.names
    assert [name for name in names if shipped.known_as(name) != name] == []
    assert Thesaurus.load(tmp_path / THESAURUS).names == {}
    (tmp_path / THESAURUS).write_text("dinosaur t rex\n")
    with pytest.raises(BadInput, match="thesaurus"):
        Thesaurus.load(tmp_path / THESAURUS)


@pytest.fixture
def pipeline():
    """Diffuse by a tiny prior whose CLIP has a thesaurus."""
    diffuse = tiny_prior_diffuse()
    diffuse.diffusion.clip.tokenizer.thesaurus = Thesaurus(NAMES)
    return diffuse


ASKED = DiffuseSettings(prompt="a dinosaur | fog:0.5", candidates=2, keep=2, steps=3, seed=4)


def test_a_prompt_is_drawn_and_ranked_by_known_words_and_recorded_as_it_was(pipeline) -> None:
    prepared = pipeline.prepare(ASKED)
    assert prepared.prompt == ASKED.prompt and prepared.read_as == "a t rex | fog:0.5"
    assert pipeline.read_prompt(ASKED.prompt).known_as == prepared.read_as
    said = replace(ASKED, prompt="a t rex | fog:0.5", read_as="")
    plain = replace(ASKED, read_as="")
    drawn, same, other = (pictures_of(pipeline, settings) for settings in (ASKED, said, plain))
    assert [one.image.tobytes() for one in drawn] == [one.image.tobytes() for one in same]
    assert [one.score for one in drawn] == [one.score for one in same]
    assert drawn[0].image.tobytes() != other[0].image.tobytes()
    assert drawn[0].facts["read"][0][0] == "a dinosaur"


def test_what_is_laid_is_drawn_by_known_words(pipeline) -> None:
    regions = pipeline.prepare(replace(ASKED, prompt="a cat and a dinosaur")).regions
    assert regions == "a cat @ 1/2 | a t rex @ 2/2"


@pytest.mark.parametrize("kind", [DiffuseSettings, GenerateSettings])
def test_records_of_before_are_drawn_by_their_own_words(kind) -> None:
    values = kind.recorded({"prompt": "a dinosaur"}, {})
    assert values["read_as"] == "" and kind(prompt="a dinosaur").read_as == "auto"


def test_a_prompt_that_is_rewritten_word_by_word_keeps_its_words(pipeline) -> None:
    weighted = replace(ASKED, prompt="a dinosaur", word_weights="dinosaur=2")
    assert pipeline.prepare(weighted).read_as == ""
