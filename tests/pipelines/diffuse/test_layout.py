"""Prompt-to-Prompt in Diffuse: what stays the same bit for bit, what changes, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pipelines.core.execute import run
from pipelines.core.generators import finished
from pipelines.core.pipeline import Result
from pipelines.diffuse.layout import Layout, Walk, read_layout
from pipelines.diffuse.pipeline import Diffuse
from pipelines.diffuse.settings import DiffuseSettings
from pipelines.diffuse.word_weights import parse_word_weights
from pipelines.errors import BadInput
from pipelines.io.images import picture_to_uri, to_pil
from pipelines.models.latent_diffusion import Course, walk
from pipelines.models.words import align
from tests.support.tiny import WithoutAttention, tiny_diffuse, tiny_prior, tiny_prior_diffuse

BOTH: Any = pytest.mark.parametrize("make", [tiny_prior_diffuse, lambda: tiny_diffuse("1.5")])


@pytest.fixture(autouse=True)
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.models.prior.diffusion.PriorDiffusion.rows", lambda *_: 2)


def drawn(pipeline: Diffuse, **settings: Any) -> dict[int, bytes]:
    """Seed -> pixels of the candidates of a short run."""
    settings = {
        "prompt": "two cats",
        "seed": 3,
        "candidates": 2,
        "keep": 9,
        "steps": 4,
        "guidance": 3.0,
        **settings,
    }
    *_, result = run(pipeline, DiffuseSettings(**settings))
    assert isinstance(result, Result)
    return {picture.seed: picture.image.tobytes() for picture in result.pictures}


@BOTH
def test_equal_prompts_give_the_source_and_a_share_of_zero_the_plain_target(
    make: Callable[[], Diffuse],
) -> None:
    pipeline = make()
    source, target = drawn(pipeline, prompt="a red heart"), drawn(pipeline)
    assert drawn(pipeline, prompt="a red heart", source_prompt="a red heart") == source
    assert drawn(pipeline, source_prompt="a red heart", layout=0.0) == target
    assert drawn(pipeline, source_prompt="a red heart", layout=0.05) == target  # less than half a step
    kept = drawn(pipeline, source_prompt="a red heart", layout=1.0)
    assert all(kept[seed] not in (source[seed], target[seed]) for seed in kept)
    assert drawn(pipeline, source_prompt="a red heart", layout=0.5) != kept


@torch.no_grad()
def test_attention_taken_over_from_the_same_prompt_is_its_own() -> None:
    """Without the shortcut: every weight of the walk comes from the other walk, and no bit differs."""
    model = tiny_prior()
    condition = model.condition("two cats", "", 32, 32, 2, True)

    def begin(condition: Any, course: Course) -> Walk:
        return walk(model, [3, 4], (32, 32), condition, 4, 3.0, None, course)

    plain = finished(begin(condition, Course()))
    tokens = model.prompt_tokens("two cats")
    for share in (0.5, 1.0):
        layout = Layout(model, (condition, Course()), 2, share, align(tokens, tokens), None)
        assert torch.equal(finished(layout.walk(begin, condition, Course())), plain)


@torch.no_grad()
def test_the_source_lends_for_its_share_of_the_steps_only() -> None:
    model, calls = tiny_prior(), list[str]()
    source, target = (model.condition(prompt, "", 32, 32, 1, False) for prompt in ("a red heart", "two cats"))

    def begin(condition: Any, course: Course) -> Walk:
        name = "source" if condition.condition is source else "target"
        for tick in walk(model, [3], (32, 32), condition, 4, 1.0):
            calls.append(name)
            yield tick
        return torch.zeros(0)

    tokens = [model.prompt_tokens(prompt) for prompt in ("a red heart", "two cats")]
    layout = Layout(model, (source, Course()), 1, 0.5, align(tokens[0], tokens[1]), None)
    finished(layout.walk(begin, target, Course()))
    assert calls == ["source", "target"] * 2 + ["target"] * 2


@BOTH
def test_a_candidate_redrawn_alone_is_the_same(make: Callable[[], Diffuse]) -> None:
    pipeline = make()
    changes = {"source_prompt": "a red heart", "layout": 0.6, "word_weights": "cats=2"}
    together = drawn(pipeline, candidates=3, **changes)
    assert len(set(together.values())) == 3 and drawn(pipeline, candidates=3, **changes) == together
    for seed, picture in together.items():
        assert drawn(pipeline, candidates=1, seed=seed, **changes) == {seed: picture}


@BOTH
def test_words_have_weights(make: Callable[[], Diffuse]) -> None:
    pipeline = make()
    plain = drawn(pipeline)
    assert drawn(pipeline, word_weights="cats=1, two=1") == plain
    more = drawn(pipeline, word_weights="cats=3")
    assert more != plain and drawn(pipeline, word_weights="CATS＝3") == more
    assert drawn(pipeline, word_weights="two=3") not in (plain, more)
    assert drawn(pipeline, word_weights="cats=3", layout=0.0) not in (plain, more)
    assert drawn(pipeline, word_weights="cats=3", guidance=1.0) != drawn(pipeline, guidance=1.0)


def test_a_weight_is_of_the_tokens_of_its_word() -> None:
    pipeline = tiny_prior_diffuse()
    settings = pipeline.prepare(DiffuseSettings(prompt="two cats", word_weights="cats=2.5"))
    layout = read_layout(pipeline.diffusion, settings, 2)
    assert layout is not None and layout.scale is not None
    word = tiny_prior().prompt_tokens("two cats").words[1]
    assert [k for k, weight in enumerate(layout.scale.tolist()) if weight == 2.5] == list(word.keys)
    assert set(layout.scale.tolist()) == {1.0, 2.5}


def test_the_rest_of_the_text_tells_of_a_word_by_its_weight() -> None:
    prior = tiny_prior()
    tokens, real = condition = prior.condition("two cats", "", 0, 0, rows=2, guided=True)
    bare = prior.condition_of(["two"])[0][0]

    def told(weight: float) -> Tensor:
        weighed, same = prior.weighed(condition, "two cats", [("cats", weight)], 2)
        assert same is real and torch.equal(weighed[:2], tokens[:2])  # the rows without the text
        assert torch.equal(weighed[2], weighed[3])
        return weighed[2]

    cats = list(prior.prompt_tokens("two cats").words[1].keys)
    two = list(prior.prompt_tokens("two cats").words[0].keys)
    assert not torch.allclose(tokens[2, 1], bare[1])  # the text's vector
    assert torch.allclose(told(1), tokens[2]) and torch.equal(told(2), told(5))
    assert torch.allclose(told(0)[[1, *two]], bare[[1, *two]], atol=1e-6)
    assert torch.allclose(told(2) - tokens[2], tokens[2] - told(0), atol=1e-6)
    assert torch.equal(told(0)[cats], tokens[2, cats])  # its own tokens are weighed by attention


def test_a_layout_goes_with_a_picture_and_a_mask() -> None:
    pipeline = tiny_prior_diffuse()
    image = to_pil(torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1)[0]
    given = {"image": picture_to_uri(image), "strength": 0.5}
    found = drawn(pipeline, source_prompt="a red heart", layout=1.0, **given)
    assert found != drawn(pipeline, **given)


@pytest.mark.parametrize("changes", [{"windows": "always", "width": 64}, {"guidance_start": 0.5}])
def test_windows_and_steps_without_guidance_keep_it_too(changes: dict[str, Any]) -> None:
    pipeline = tiny_prior_diffuse()
    target = drawn(pipeline, height=64, **changes)
    assert drawn(pipeline, height=64, source_prompt="a red heart", layout=0.0, **changes) == target
    changes |= {"source_prompt": "a red heart", "layout": 1.0, "height": 64, "word_weights": "cats=2"}
    found = drawn(pipeline, **changes)
    assert all(found[seed] != target[seed] for seed in found)
    seed = list(found)[-1]
    assert drawn(pipeline, candidates=1, **{**changes, "seed": seed}) == {seed: found[seed]}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"word_weights": "big:1.5"}, "big:1.5 is no weight of a word; write it as big=1.5"),
        ({"word_weights": "=2"}, "=2 is no weight"),
        ({"word_weights": "cats=x"}, "no weight"),
        ({"word_weights": "cats=9"}, "the weight 9 of cats is too large; use -5 to 5"),
        ({"word_weights": "cats=2, Cats=3"}, "Cats has two weights"),
        ({"word_weights": "dogs=2"}, "the prompt has no dogs, which has a weight; it has two, cats"),
        ({"source_prompt": "a\x00"}, "control character"),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        tiny_prior_diffuse().prepare(DiffuseSettings(prompt="two cats", **changes))


def test_a_model_without_such_attention_refuses() -> None:
    pipeline = tiny_prior_diffuse()
    pipeline.diffusion = WithoutAttention(pipeline.diffusion)  # type: ignore[assignment]
    pipeline.prepare(DiffuseSettings())
    for changes in ({"word_weights": "red=2"}, {"source_prompt": "two cats"}):
        with pytest.raises(BadInput, match=f"{next(iter(changes))} needs a model whose attention"):
            pipeline.prepare(DiffuseSettings(**changes))


def test_the_text_of_weights_is_read() -> None:
    weights = {"big": 1.5, "红心": -0.5, "a cat": 0.0}
    assert parse_word_weights("big=1.5, 红心=-0.5, a cat=0, small=1") == list(weights.items())
    assert parse_word_weights("大＝１．５，红=0.5、 a=b=2 ;") == [("大", 1.5), ("红", 0.5), ("a=b", 2.0)]
    assert parse_word_weights(" ") == []
