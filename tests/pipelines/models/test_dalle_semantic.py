"""The DALL·E with semantic tokens: its order, its prefix, its cache, and Generate with it."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipelines.core.execute import run
from pipelines.core.pipeline import Picture, Result, Step
from pipelines.generate.settings import GenerateSettings
from pipelines.models.checkpoint import save_checkpoint
from pipelines.models.clip.network import text_states
from pipelines.models.dalle_semantic.network import SemanticDalle, semantic_tokens
from pipelines.models.spec import SPECS
from pipelines.studio import Studio
from pipelines.weights import catalog
from tests.support.tiny import tiny_clip, tiny_semantic_dalle, tiny_semantic_generate, tiny_tokenizer

SEMANTIC = torch.tensor([[3, 7]])
IMAGE = torch.arange(16)[None] % 32


def logits_of(dalle: SemanticDalle, text: Tensor, semantic: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
    """The logits of the whole sequence, for rows of `text_tokens`."""
    states = text_states(dalle.read.args[0], text[:, 1:])
    prefix = dalle.prefix(states, text[:, 0], text[:, 1:].any(1))
    return dalle.logits(dalle(prefix, semantic, image))


def prompt(dalle: SemanticDalle, words: str = "a red heart", style: str = "") -> Tensor:
    ids = tiny_tokenizer().encode(words) if words else []
    return dalle.text_tokens(ids, style)[None]


def test_cached_drawing_equals_the_whole_sequence() -> None:
    dalle = tiny_semantic_dalle(tiny_clip())
    generator = torch.Generator().manual_seed(0)
    text = torch.cat([prompt(dalle, style="round"), prompt(dalle, "")])
    semantic = torch.randint(12, (6, 2), generator=generator)
    image = torch.randint(32, (6, 16), generator=generator)
    first, rest = logits_of(dalle, text.repeat_interleave(3, 0), semantic, image)
    cache, logits = dalle.prefill(text, 6)
    drawn = [logits]
    for place, token in enumerate(torch.cat([semantic, image[:, :-1]], 1).T):
        drawn.append(dalle.decode_step(cache, token, place))
    assert torch.allclose(torch.stack(drawn[:2], 1), first, atol=1e-5)
    assert torch.allclose(torch.stack(drawn[2:], 1), rest, atol=1e-5)


def test_semantic_tokens_come_first_and_say_what_is_drawn() -> None:
    dalle = tiny_semantic_dalle(tiny_clip())
    text = prompt(dalle)
    first, rest = logits_of(dalle, text, SEMANTIC, IMAGE)
    other, other_rest = logits_of(dalle, text, torch.tensor([[3, 8]]), IMAGE)
    assert torch.equal(first, other)  # the second one is predicted before it is read
    assert not torch.isclose(rest, other_rest).all(2).any()
    moved, _ = logits_of(dalle, text, torch.tensor([[4, 7]]), IMAGE)
    assert torch.equal(first[:, 0], moved[:, 0]) and not torch.allclose(first[:, 1], moved[:, 1])
    _, changed = logits_of(dalle, text, SEMANTIC, torch.where(torch.arange(16) < 9, IMAGE, 31))
    assert torch.equal(rest[:, :10], changed[:, :10])  # place 10 is the first that has read token 9
    assert not torch.allclose(rest[:, 10:], changed[:, 10:])


def test_the_style_and_the_text_change_the_logits() -> None:
    dalle = tiny_semantic_dalle(tiny_clip())
    texts = [prompt(dalle, style=style) for style in ("", "flat", "round")]
    texts += [prompt(dalle, "two cats"), prompt(dalle, "")]
    first = [logits_of(dalle, text, SEMANTIC, IMAGE)[0] for text in texts]
    for k, one in enumerate(first):
        assert all(not torch.allclose(one, other) for other in first[k + 1 :])
    with pytest.raises(ValueError):
        prompt(dalle, style="oil")


def test_places_after_the_text_do_not_see_its_padding() -> None:
    dalle = tiny_semantic_dalle(tiny_clip())
    text = prompt(dalle, "two cats")
    short = text[:, : 1 + int((text[0, 1:] != 0).sum()) + 1]  # up to END
    whole, cut = (torch.cat(logits_of(dalle, one, SEMANTIC, IMAGE)[1:], 1) for one in (text, short))
    assert torch.allclose(whole, cut, atol=1e-5)
    dalle.pad[-1] += 1  # what stands there instead is seen
    assert not torch.allclose(whole, logits_of(dalle, text, SEMANTIC, IMAGE)[1])


def test_residual_tokens_bring_the_codes_nearer_level_by_level() -> None:
    generator = torch.Generator().manual_seed(1)
    codes = torch.randn(2, 12, 4, generator=generator) * torch.tensor([1.0, 0.3])[:, None, None]
    vectors = torch.randn(50, 4, generator=generator)
    tokens = semantic_tokens(codes, vectors)
    assert tokens.shape == (50, 2)
    assert torch.equal(tokens[:, 0], torch.cdist(vectors, codes[0]).argmin(1))
    left = vectors - codes[0][tokens[:, 0]]
    assert torch.equal(tokens[:, 1], torch.cdist(left, codes[1]).argmin(1))


# ------------------------------------------------------------------------------------------------------------- Generate


def pictures(**settings: object) -> list[Picture]:
    *_, last = run(tiny_semantic_generate(), GenerateSettings.from_dict(settings))
    assert isinstance(last, Result)
    return last.pictures


def test_a_candidate_can_be_redrawn_alone() -> None:
    kept = pictures(candidates=20, keep=20, seed=5)
    assert len({json.dumps(picture.facts["tokens"]) for picture in kept}) > 10
    for picture in (kept[0], kept[11], kept[19]):
        alone = pictures(candidates=1, keep=1, seed=picture.seed)[0]
        assert alone.facts["tokens"] == picture.facts["tokens"]
        assert alone.image.tobytes() == picture.image.tobytes()


def test_steps_show_rows_of_the_picture_only() -> None:
    steps = [
        step
        for step in run(tiny_semantic_generate(), GenerateSettings(candidates=3))
        if isinstance(step, Step) and step.stage == "draw"
    ]
    assert [(step.done, step.total) for step in steps] == [(k, 4) for k in (1, 2, 3, 4)]


def test_guidance_reaches_the_semantic_tokens() -> None:
    """With guidance 0 nothing depends on the prompt; with another, and the most likely tokens alone, something does."""
    one, other = (
        pictures(prompt=words, guidance=0.0, candidates=3, keep=3) for words in ("a red heart", "two cats")
    )
    assert {p.seed: p.facts["tokens"] for p in one} == {p.seed: p.facts["tokens"] for p in other}
    drawn = [pictures(guidance=scale, top_k=1, candidates=1)[0].facts["tokens"] for scale in (0.0, 3.0, 9.0)]
    assert all(one != other for one, other in pairwise(drawn))


def test_a_pack_loads_it_with_the_clip_that_it_reads_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dalle = tiny_semantic_dalle(tiny_clip())
    config = {**dalle.config.to_dict(), "text_width": 256, "embedding_size": 256}
    wide = SemanticDalle(type(dalle.config).from_dict(config), tiny_clip())
    save_checkpoint(tmp_path / "new.safetensors", wide, config, {})
    row = catalog.Checkpoint("new", "dalle-semantic", "", "", "", file=str(tmp_path / "new.safetensors"))
    monkeypatch.setitem(catalog.CHECKPOINTS, "new", row)
    assert SPECS["dalle-semantic"].text_encoder == "tiny-clip"
    assert [one.name for one in catalog.with_readers(["new"])] == ["new", "tiny-clip", "tiny-tokenizer"]
    studio = Studio("tiny", "cpu")
    loaded = studio.load("new")
    assert loaded.read.args[0] is studio.load("tiny-clip")
    assert not any(name.startswith(("read", "clip")) for name in loaded.state_dict())
    _, logits = loaded.prefill(loaded.text_tokens([5, 6])[None], 2)
    assert logits.shape == (2, 12) and logits.isfinite().all()
