"""Things in parts of the canvas: what prompts place, how the places are written, and how each thing is drawn and laid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.clip.ranking import score, score_terms
from pipelines.core.candidates import candidate_seed
from pipelines.core.execute import run
from pipelines.core.generators import finished
from pipelines.core.pipeline import Result, Step
from pipelines.core.regions import Placed, places_in, read_regions
from pipelines.diffuse.collage import Collage
from pipelines.diffuse.settings import DiffuseSettings
from pipelines.diffuse.walkthrough import explain
from pipelines.errors import BadInput
from pipelines.io.images import picture_to_uri, to_tensor
from tests.support.diffuse import pictures_of
from tests.support.tiny import tiny_diffuse, tiny_prior_diffuse

KNOWN = {"cat", "dog", "cherry", "fox", "wolf", "knife", "apple", "heart", "glass", "pair"}
ASKED = DiffuseSettings(prompt="a cat and a dog", candidates=3, keep=8, steps=6, seed=3)


@pytest.mark.parametrize(
    ("prompt", "places"),
    [
        ("a cat and a dog", "a cat @ 1/2 | a dog @ 2/2"),
        ("two cats and a dog", "a cat @ 1/3 | a cat @ 2/3 | a dog @ 3/3"),
        ("A cat, a dog, and a fox.", "A cat @ 1/3 | a dog @ 2/3 | a fox @ 3/3"),
        ("three red cherries", "a red cherry @ 1/3 | a red cherry @ 2/3 | a red cherry @ 3/3"),
        ("2 apples", "an apple @ 1/2 | an apple @ 2/2"),
        ("two foxes", "a fox @ 1/2 | a fox @ 2/2"),
        ("two wolves", "a wolf @ 1/2 | a wolf @ 2/2"),
        ("two knives", "a knife @ 1/2 | a knife @ 2/2"),
        ("two glasses", "a glass @ 1/2 | a glass @ 2/2"),
        ("two pairs of shoes", "a pair of shoes @ 1/2 | a pair of shoes @ 2/2"),
        ("two sheep", "a sheep @ 1/2 | a sheep @ 2/2"),
        ("a small dog left of a car", "a small dog @ left | a car @ right"),
        ("the dog is to the right of the house", "the dog @ right | the house @ left"),
        ("a sun above a house", "a sun @ top | a house @ bottom"),
        ("a cat under a table", "a cat @ bottom | a table @ top"),
        ("a star next to a moon", "a star @ left | a moon @ right"),
        ("两只猫", "猫 @ 1/2 | 猫 @ 2/2"),
        ("一只猫和一只狗", "猫 @ 1/2 | 狗 @ 2/2"),
        ("cat and dog", "cat @ 1/2 | dog @ 2/2"),
        ("the cat and the dog", "the cat @ 1/2 | the dog @ 2/2"),
        ("猫和狗", "猫 @ 1/2 | 狗 @ 2/2"),
        ("a cat wearing a hat", "cat face @ low | a hat @ on"),
        ("the dog with red sunglasses", "dog face @ fill | red sunglasses @ eyes"),
        ("a bear is holding a balloon", "a bear @ main | a balloon @ held"),
        ("a bird on a tree", "a tree @ low | a bird @ on"),
        ("戴帽子的猫", "猫脸 @ low | 帽子 @ on"),
        ("一只戴帽子的猫", "猫脸 @ low | 帽子 @ on"),
        ("戴着墨镜的狗", "狗脸 @ fill | 墨镜 @ eyes"),
        ("吃香蕉的猴子", "猴子 @ main | 香蕉 @ held"),
        ("猫在房子的左边", "猫 @ left | 房子 @ right"),
        ("太阳在房子上面", "太阳 @ top | 房子 @ bottom"),
    ],
)
def test_what_a_prompt_places(prompt: str, places: str) -> None:
    assert places_in(prompt, KNOWN.__contains__) == places
    assert len(read_regions(places)) == places.count("@")


@pytest.mark.parametrize(
    "prompt",
    [
        "a cat", "cat", "black and white cat", "red and cat", "fork and knife", "fish under water", "红和蓝的心",
        "cat, dog", "猫，可爱",
        "two women holding hands", "people holding hands", "two dogs wearing a hat", "smiling face with sunglasses",
        "a cake with candles",
        "a man on fire", "three o'clock", "two gnus", "seven cats", "two",
        "a cat and a dog on a blue background", "two cats left of a dog", "a cat | a dog", "a cat and", "",
    ],
)  # fmt: skip
def test_what_places_nothing(prompt: str) -> None:
    assert places_in(prompt or " . ", KNOWN.__contains__) == ""


def test_places_are_squares_on_the_canvas() -> None:
    def squares(text: str) -> list[tuple[int, int, int]]:
        return [thing.square(240, 120) for thing in read_regions(text)]

    assert squares("a @ left | b @ right") == [(0, 0, 120), (120, 0, 120)]
    assert squares("a @ top | b @ bottom-left") == [(90, 0, 60), (30, 60, 60)]
    assert squares("a @ 1/3 | b @ 3/3") == [(0, 20, 80), (160, 20, 80)]
    assert squares("a @ 4/5 | b @ 5/5") == [(50, 60, 60), (130, 60, 60)]  # the second row is centred
    assert squares("a small cat @ left") == [(15, 15, 90)]
    assert read_regions("a small cat @ left")[0].text == "a cat"
    assert read_regions("小小的猫 @ left")[0] == Placed("猫", (0.0625, 0.125, 0.375, 0.75))


@pytest.mark.parametrize("regions", ["a cat @ nowhere", "a cat @ 3/2", "a cat @ 1/9", "a cat", "@ left"])
def test_a_place_that_there_is_not_is_told(regions: str) -> None:
    with pytest.raises(BadInput, match="place"):
        DiffuseSettings(prompt="a cat", regions=regions)
    with pytest.raises(BadInput, match="upon the thing before it"):
        DiffuseSettings(prompt="a cat", regions="a cat @ low | a hat @ on | a bow @ eyes")
    with pytest.raises(BadInput, match="7 things are placed"):
        DiffuseSettings(prompt="a cat", regions=" | ".join(["a cat @ left"] * 7))


def test_prepared_settings_say_what_lies_where() -> None:
    pipeline = tiny_prior_diffuse()
    picture = picture_to_uri(Image.new("RGB", (32, 32), "red"))
    assert pipeline.prepare(ASKED).regions == "a cat @ 1/2 | a dog @ 2/2"
    assert pipeline.prepare(replace(ASKED, regions="")).regions == ""
    assert pipeline.prepare(replace(ASKED, image=picture)).regions == ""
    assert tiny_diffuse("1.5").prepare(ASKED).regions == ""  # it draws several things at once
    with pytest.raises(BadInput, match="leave out image or regions"):
        pipeline.prepare(replace(ASKED, image=picture, regions="a cat @ left"))
    assert DiffuseSettings.recorded({"prompt": "a cat and a dog"}, {})["regions"] == ""


@torch.no_grad()
def test_each_thing_is_drawn_alone_and_laid_in_its_place() -> None:
    pipeline = tiny_prior_diffuse()
    settings = pipeline.prepare(replace(ASKED, regions="a cat @ left | a dog @ 4/4 | a cat @ 2/4"))
    collage = Collage.of(pipeline.diffusion, settings)
    assert collage is not None and collage.texts == ["a cat", "a dog"]
    drawn = {text: finished(collage.draw(text, [5, 6], ["", ""])) for text in collage.texts}
    alone = replace(
        settings,
        prompt="a dog",
        regions="",
        windows="never",
        steps=3,
        candidates=1,
        seed=candidate_seed(6, 2),
    )
    (picture,) = pictures_of(pipeline, alone)
    assert np.abs(np.asarray(picture.image, int) - np.asarray(drawn["a dog"][1], int)).max() <= 1
    known = collage.laid(drawn)
    width, height = settings.width or 0, settings.height or 0
    canvas = Image.new("RGB", (width, height), "white")
    for thing in collage.things:
        left, top, side = thing.square(width, height)
        small = drawn[thing.text][1].resize((side, side), Image.Resampling.LANCZOS)
        box = (left, top, left + side, top + side)
        canvas.paste(Image.fromarray(np.minimum(np.asarray(small), np.asarray(canvas.crop(box)))), box)
    expected = pipeline.diffusion.encode(to_tensor([canvas]))
    assert known.strength == pytest.approx(0.3) and torch.allclose(
        known.distribution[1:], expected, atol=1e-4
    )


@torch.no_grad()
def test_things_count_in_the_ranking() -> None:
    pipeline = tiny_prior_diffuse()
    settings = pipeline.prepare(ASKED)
    found = pictures_of(pipeline, ASKED)
    collage = Collage.of(pipeline.diffusion, settings)
    assert collage is not None and len(found) == 3
    for picture in found:
        whole, _ = score_terms(
            pipeline.clip, settings.terms(), pipeline.clip.encode_image(to_tensor([picture.image]))
        )
        parts = [
            score(
                pipeline.clip,
                text,
                pipeline.clip.encode_image(to_tensor(finished(collage.draw(text, [picture.seed], [""])))),
            )[0]
            for text in collage.texts
        ]
        assert picture.score == pytest.approx((whole + sum(parts) / 2).item() / 2, abs=2e-3)


def test_a_candidate_redrawn_alone_is_the_same() -> None:
    pipeline = tiny_prior_diffuse()
    asked = replace(ASKED, candidates=5, style="flat, 3d", width=64, height=64)
    found = pictures_of(pipeline, asked)
    assert len({one.image.tobytes() for one in found}) == 5
    for one in found:
        alone = replace(
            asked,
            candidates=1,
            seed=one.seed,
            style=str(one.facts["style"]),
            regions=pipeline.prepare(asked).regions,
        )
        (again,) = pictures_of(pipeline, alone)
        assert again.image.tobytes() == one.image.tobytes()


def test_steps_are_counted_over_all_walks() -> None:
    shares = [
        event.done / event.total
        for event in run(tiny_prior_diffuse(), ASKED)
        if isinstance(event, Step) and event.stage == "draw"
    ]
    assert shares == sorted(shares) and shares[-1] == 1.0
    assert len(shares) >= 3 + 3 + 1
    assert isinstance(list(run(tiny_prior_diffuse(), ASKED))[-1], Result)


def test_a_walkthrough_ends_in_the_same_picture() -> None:
    pipeline = tiny_prior_diffuse()
    asked = replace(ASKED, candidates=1, regions="a cat @ left | a dog @ right")
    (picture,) = pictures_of(pipeline, asked)
    explained = finished(explain(pipeline, asked, asked.seed or 0))
    apart = np.abs(np.asarray(explained.picture, int) - np.asarray(picture.image, int))
    assert apart.max() <= 8 and apart.mean() < 1  # drawn alone, so it is rounded otherwise
    (whole,) = pictures_of(pipeline, replace(asked, regions=""))
    assert np.abs(np.asarray(whole.image, int) - np.asarray(picture.image, int)).mean() > 1


def test_what_is_laid_follows_the_words_of_a_sheet() -> None:
    found = pictures_of(tiny_prior_diffuse(), replace(ASKED, candidates=1, x="words=cat,fox,cat and a dog"))
    prepared = [one.settings.regions for one in found if one.settings is not None]
    assert prepared[:2] == ["a cat @ 1/2 | a dog @ 2/2", "a fox @ 1/2 | a dog @ 2/2"]
