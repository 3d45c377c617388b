"""The DALL·E network, its sparse masks, its cache, its sampler, and Generate."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.core.candidates import candidate_seed
from pipelines.core.execute import run
from pipelines.core.pipeline import Picture, Result, Step
from pipelines.errors import BadInput
from pipelines.generate.settings import GenerateSettings
from pipelines.models.dalle.network import DalleConfig, attention_mask
from pipelines.models.decoder_only import image_pattern
from pipelines.models.sampling import sample
from tests.support.tiny import tiny_dalle, tiny_generate, tiny_refining_generate


def allowed_slowly(pattern: str, grid: int, kernel: int, i: int, j: int) -> bool:
    """The paper's figure 11 spelled out, one pair of image tokens at a time."""
    if j > i:
        return False
    if pattern == "row":
        return j >= i - grid
    if pattern == "column":
        return j % grid == i % grid
    offsets = [
        up * grid + across
        for up in range(kernel // 2 + 1)
        for across in range(-(kernel // 2), kernel // 2 + 1)
    ]
    return i - j in offsets


@pytest.mark.parametrize("pattern", ["row", "column", "convolution"])
@pytest.mark.parametrize(("grid", "kernel"), [(4, 3), (7, 5), (16, 11)])
def test_masks_equal_a_slow_reference(pattern: str, grid: int, kernel: int) -> None:
    fast = image_pattern(pattern, grid, kernel)
    for i in range(grid * grid):
        for j in range(grid * grid):
            assert fast[i, j] == allowed_slowly(pattern, grid, kernel, i, j), (i, j)


def test_layers_come_in_the_papers_order() -> None:
    config = tiny_dalle().config
    assert [config.pattern(k) for k in range(3)] == ["row", "column", "convolution"]
    deep = DalleConfig(10, 10, layer_count=64)
    patterns = [deep.pattern(k) for k in range(64)]
    assert (patterns.count("row"), patterns.count("column"), patterns.count("convolution")) == (47, 16, 1)
    assert patterns[:8] == ["row", "column", "row", "row", "row", "column", "row", "row"]


def test_image_sees_all_text_and_text_sees_no_image() -> None:
    config = tiny_dalle().config
    t = config.text_length
    for layer in range(config.layer_count):
        mask = attention_mask(config, layer)
        assert mask[t:, :t].all()
        assert not mask[:t, t:].any()
        assert torch.equal(mask[:t, :t], torch.ones(t, t).tril().bool())


def test_no_token_sees_the_future() -> None:
    dalle = tiny_dalle()
    text, image = torch.tensor([[5, 6, 0, 0, 0, 0, 0, 0]]), torch.arange(16)[None] % 32
    before = dalle.image_logits(text, image)
    changed = image.clone()
    changed[0, 9:] = 31
    after = dalle.image_logits(text, changed)
    assert torch.equal(before[:, :10], after[:, :10])  # position 10 is the first that has read token 9
    assert not torch.allclose(before[:, 10:], after[:, 10:])


def test_cached_drawing_equals_the_whole_stream() -> None:
    dalle = tiny_dalle()
    text, image = torch.tensor([[5, 6, 7, 0, 0, 0, 0, 0], [0] * 8]), torch.randint(32, (6, 16))
    whole = dalle.image_logits(text.repeat_interleave(3, 0), image)
    cache, logits = dalle.prefill(text, 6)
    steps = [logits, *(dalle.decode_step(cache, image[:, k], k) for k in range(15))]
    assert torch.allclose(torch.stack(steps, 1), whole, atol=1e-5)


def test_pads_are_learned_per_position_and_seen() -> None:
    dalle = tiny_dalle()
    text, image = torch.tensor([[5, 0, 0, 0, 0, 0, 0, 0]]), torch.zeros(1, 16, dtype=torch.long)
    before = dalle.image_logits(text, image)
    dalle.pad[7] += 1
    assert not torch.allclose(before, dalle.image_logits(text, image))


def test_sampling_follows_the_distribution() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    uniform = (torch.arange(4000) + 0.5) / 4000
    counts = sample(logits.expand(4000, 4), uniform, 1.0, 0, 1.0).bincount(minlength=4) / 4000
    assert torch.allclose(counts, logits[0].softmax(0), atol=2e-3)
    hot = sample(logits.expand(4000, 4), uniform, 2.0, 0, 1.0).bincount(minlength=4) / 4000
    assert torch.allclose(hot, (logits[0] / 2).softmax(0), atol=2e-3)


def test_top_k_and_top_p_cut_the_tail() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0, -1.0]]).expand(100, 4)
    uniform = torch.linspace(0, 0.9999, 100)
    assert set(sample(logits, uniform, 1.0, 1, 1.0).tolist()) == {1}
    assert set(sample(logits, uniform, 1.0, 2, 1.0).tolist()) == {1, 2}
    share = logits[0].softmax(0)
    assert set(sample(logits, uniform, 1.0, 0, float(share[1]) + 0.01).tolist()) == {1, 2}
    assert set(sample(logits, uniform, 1.0, 0, float(share[1]) - 0.01).tolist()) == {1}


def pictures(**settings: object) -> list:
    last = None
    for event in run(tiny_generate(), GenerateSettings.from_dict(settings)):
        last = event
    assert isinstance(last, Result)
    return last.pictures


def test_a_candidate_can_be_redrawn_alone() -> None:
    kept = pictures(candidates=20, keep=20, seed=5)
    assert len({picture.seed for picture in kept}) == 20
    for picture in (kept[0], kept[11], kept[19]):
        alone = pictures(candidates=1, keep=1, seed=picture.seed)[0]
        assert alone.facts["tokens"] == picture.facts["tokens"]
        assert alone.image.tobytes() == picture.image.tobytes()


def test_candidates_are_ranked_and_kept() -> None:
    kept = pictures(candidates=9, keep=4)
    scores = [picture.score for picture in kept]
    assert len(kept) == 4
    assert all(a >= b for a, b in pairwise(scores))
    everything = pictures(candidates=9, keep=64)
    assert [p.seed for p in everything[:4]] == [p.seed for p in kept]


def test_duplicates_are_marked_and_hidden() -> None:
    kept = pictures(candidates=12, keep=12, temperature=0.05, top_k=1)  # all candidates are one picture
    assert kept[0].facts["duplicate_of"] is None
    assert all(picture.facts["duplicate_of"] == kept[0].seed for picture in kept[1:])
    assert len(pictures(candidates=12, keep=12, temperature=0.05, top_k=1, hide_duplicates=True)) == 1


def test_guidance_of_one_is_plain_sampling_and_zero_ignores_the_prompt() -> None:
    assert pictures(guidance=1.0)[0].facts["tokens"] != pictures(guidance=6.0)[0].facts["tokens"]
    one, other = (
        pictures(prompt=p, guidance=0.0, candidates=3, keep=3) for p in ("a red heart", "green apple")
    )
    assert {p.seed: p.facts["tokens"] for p in one} == {p.seed: p.facts["tokens"] for p in other}


def test_top_rows_of_a_picture_are_kept(tmp_path: Path) -> None:
    Image.new("RGB", (50, 40), (200, 40, 60)).save(tmp_path / "a.png")
    generate = tiny_generate()
    settings = GenerateSettings(image=str(tmp_path / "a.png"), keep_rows=2, likeness=0.0, candidates=3)
    *_, result = run(generate, settings)
    assert isinstance(result, Result)
    from pipelines.io.images import fit_square, to_tensor

    square = fit_square(Image.open(tmp_path / "a.png").convert("RGB"), 32)
    own = generate.vqgan.encode_tokens(to_tensor([square])).flatten().tolist()
    for picture in result.pictures:
        assert picture.facts["tokens"][:8] == own[:8]
    assert len({tuple(p.facts["tokens"]) for p in result.pictures}) == 3
    (tmp_path / "a.png").unlink()  # the settings carry the picture from here on
    *_, again = run(generate, result.settings)
    assert isinstance(again, Result)
    assert [p.image.tobytes() for p in again.pictures] == [p.image.tobytes() for p in result.pictures]


def refined(**fields: Any) -> list[Picture]:
    *_, result = run(tiny_refining_generate(), GenerateSettings(**{"candidates": 3, "keep": 3, **fields}))
    assert isinstance(result, Result)
    return result.pictures


def test_a_pack_with_a_prior_refines_and_keeps_what_was_drawn_when_asked() -> None:
    drafts, drawn = pictures(candidates=3, keep=3), refined(finish="drawn")
    assert [p.image.tobytes() for p in drafts] == [p.image.tobytes() for p in drawn]
    again = {p.seed: p for p in refined()}
    for draft in drafts:
        assert again[draft.seed].facts["tokens"] == draft.facts["tokens"]
        assert again[draft.seed].image.tobytes() != draft.image.tobytes()
    assert {p.seed: p.image.tobytes() for p in refined(finish="refined")} == {
        seed: p.image.tobytes() for seed, p in again.items()
    }
    with pytest.raises(BadInput, match="nothing to refine"):
        pictures(finish="refined")


def test_a_little_noise_changes_a_draft_less_than_much() -> None:
    def change(refinement: float) -> float:
        after = {p.seed: p.image for p in refined(refinement=refinement)}
        pairs = ((p.image, after[p.seed]) for p in refined(finish="drawn"))
        return float(np.mean([np.abs(np.subtract(a, b, dtype=float)).mean() for a, b in pairs]))

    # the tiny codec is no autoencoder, so some change is its own
    assert change(0.05) < change(0.9)


def test_rows_that_are_kept_are_not_refined(tmp_path: Path) -> None:
    Image.effect_noise((32, 32), 90).convert("RGB").save(tmp_path / "a.png")
    given = {"image": str(tmp_path / "a.png"), "keep_rows": 2, "likeness": 0.0}
    before = {p.seed: np.asarray(p.image) for p in refined(finish="drawn", **given)}
    for picture in refined(**given):
        after = np.asarray(picture.image)
        assert (after[:16] == before[picture.seed][:16]).all()
        assert (after[16:] != before[picture.seed][16:]).mean() > 0.5


def test_old_records_know_no_finish() -> None:
    assert GenerateSettings.recorded({"prompt": "a cat"}, {})["finish"] == "drawn"
    assert GenerateSettings.recorded({"finish": "refined"}, {})["finish"] == "refined"


def test_likeness_brings_variations_nearer(tmp_path: Path) -> None:
    Image.effect_noise((32, 32), 90).convert("RGB").save(tmp_path / "a.png")
    same = []
    for likeness in (0.0, 1.0):
        kept = pictures(image=str(tmp_path / "a.png"), likeness=likeness, candidates=8, keep=8)
        generate = tiny_generate()
        from pipelines.io.images import open_picture, to_tensor

        own = generate.vqgan.encode_tokens(to_tensor([open_picture(tmp_path / "a.png")])).flatten()
        same.append(sum((torch.tensor(p.facts["tokens"]) == own).float().mean().item() for p in kept))
    assert same[1] > same[0]


def test_keeping_every_row_is_refused() -> None:
    with pytest.raises(BadInput, match="the most is 3"):
        pictures(keep_rows=4)


def test_steps_show_the_rows_as_they_come() -> None:
    shown = []
    for event in run(tiny_generate(), GenerateSettings(candidates=17)):
        if isinstance(event, Step) and event.stage == "draw":
            shown.append((event.done, event.total, len(event.preview())))
    assert shown == [
        (1, 8, 16),
        (2, 8, 16),
        (3, 8, 16),
        (4, 8, 16),
        (5, 8, 1),
        (6, 8, 1),
        (7, 8, 1),
        (8, 8, 1),
    ]


def test_reading_tells_tokens_cut_and_unknown_words() -> None:
    reading = tiny_generate().read_prompt("a red heart and a zebra with stripes")
    assert reading.limit == 8 == len(reading.tokens)
    assert "".join(reading.tokens).startswith(" a red")
    assert reading.cut.endswith("stripes")
    assert reading.unknown == ["and", "zebra", "with", "stripes"]
    assert tiny_generate().read_prompt("红心").unknown == []


def test_candidate_seeds() -> None:
    assert candidate_seed(7, 0) == 7
    seeds = [candidate_seed(7, k) for k in range(512)]
    assert len(set(seeds)) == 512
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_the_batch_that_drew_is_in_the_record_and_can_be_chosen() -> None:
    generate = tiny_generate()
    assert generate.prepare(GenerateSettings()).batch == generate.batch_size
    chosen = GenerateSettings(candidates=3, batch=2)
    assert generate.prepare(chosen).batch == 2
    steps = [event for event in run(generate, chosen) if isinstance(event, Step)]
    assert [step.done for step in steps if step.stage == "rank"] == [2, 3]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: 9"),
    ],
)
def test_too_little_memory_is_said_in_one_sentence_with_a_smaller_try(
    error: RuntimeError, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate = tiny_generate()

    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr(generate.vqgan, "decode", full)
    with pytest.raises(
        BadInput, match="memory of the device is too small for this; try batch 8 instead of 16"
    ):
        list(run(generate, GenerateSettings()))
