"""Edit: the walk up the noise and down again, the losses, directions as files, the learning, the frame, the runs."""

from __future__ import annotations

import base64
import io
import itertools
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from pipelines.clip.cutouts import views_alike
from pipelines.clip.ranking import (
    REACH,
    directional_loss,
    directional_similarity,
    ensemble,
    keeping_loss,
    reach_loss,
    text_direction,
)
from pipelines.core.journal import Journal
from pipelines.core.pipeline import Result, Step, run
from pipelines.core.record import read_record, record_of, write_png
from pipelines.edit.ddim import noised, time_grid, walk_down, walk_up
from pipelines.edit.directions import URI_HEAD, Direction, Wearing, network_hash, read_direction
from pipelines.edit.framing import Framing
from pipelines.edit.pipeline import LARGE, Edit, automatic_mask, overshot, strip
from pipelines.edit.settings import MODES, EditSettings, Use
from pipelines.edit.tuning import Tuning
from pipelines.errors import BadInput, Stopped
from pipelines.io.images import open_picture, picture_to_uri, to_pil, to_tensor
from pipelines.models.unet.network import CLEAN, Unet
from tests.support.tiny import tiny_clip, tiny_edit, tiny_unet

QUICK: dict[str, Any] = {"steps": 3, "updates": 3, "strip": 1}  # enough to see whether something happens
STRONG: dict[str, Any] = {"step_size": 0.03, **QUICK}  # so much that every pixel notices


@pytest.fixture(scope="module")
def edit() -> Edit:
    return tiny_edit()


def finished(edit: Edit, settings: EditSettings, journal: Journal | None = None) -> Result:
    *_, result = run(edit, settings, journal)
    assert isinstance(result, Result)
    return result


def first(result: Result) -> Image.Image:
    return result.pictures[0].image


def pixels(result: Result) -> list[bytes]:
    return [one.image.tobytes() for one in result.pictures]


def speckled(size: tuple[int, int], seed: int = 0, low: int = 0, high: int = 256) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(low, high, (size[1], size[0], 3), dtype=np.uint8))


def smooth(size: tuple[int, int]) -> Image.Image:
    """A slope in each colour, far from black and white."""
    x, y = np.meshgrid(np.linspace(60, 190, size[0]), np.linspace(60, 190, size[1]))
    return Image.fromarray(np.stack([x, y, (x + y) / 2], -1).astype(np.uint8))


def half(size: tuple[int, int]) -> Image.Image:
    mask = Image.new("RGB", size)
    mask.paste((255, 255, 255), (0, 0, size[0] // 2, size[1]))
    return mask


def uri(picture: Image.Image) -> str:
    return picture_to_uri(picture)


def stopped_at(
    edit: Edit, settings: EditSettings, stage: str, done: int, journal: Journal | None = None
) -> Result:
    events = run(edit, settings, journal)
    for event in events:
        if isinstance(event, Step) and (event.stage, event.done) == (stage, done):
            break
    kept = events.throw(Stopped())
    assert isinstance(kept, Result)
    return kept


def killed_at(edit: Edit, settings: EditSettings, done: int, journal: Journal) -> None:
    events = run(edit, settings, journal)
    for event in events:
        if isinstance(event, Step) and (event.stage, event.done) == ("learn", done):
            break
    events.close()


def random_direction(unet: Unet, seed: int = 0, rank: int = 4, **facts: Any) -> Direction:
    """What a long learning might leave: an adapter that clearly changes what the UNet says."""
    wearing = Wearing(unet)
    wearing.add(rank, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    tensors = {}
    for name, one in wearing.tensors().items():
        grain = 0.2 * torch.randn(one.shape, generator=generator) if "lora_B" in name else one
        tensors[name] = grain.to(torch.float16)
    story = {"source": "a cat", "target": "two cats", "base": network_hash(unet), "clip": "ab" * 8}
    story |= {"mode": "quick", "rank": rank, "return_step": 400, "seed": seed}
    return Direction(tensors, story | {"figures": {"clip direction": 0.5}} | facts)


@pytest.fixture(scope="module")
def saved(edit: Edit, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two directions in files."""
    folder = tmp_path_factory.mktemp("directions")
    paths = [folder / "one.safetensors", folder / "other.safetensors"]
    for seed, path in enumerate(paths):
        random_direction(edit.unet, seed).save(path)
    return paths


# ---------------------------------------------------------------------------------------------- up the noise and down


def finish(walk: Any) -> Any:
    while True:
        try:
            next(walk)
        except StopIteration as end:
            return end.value


@pytest.mark.parametrize(
    ("return_step", "count"), [(500, 40), (500, 39), (301, 6), (999, 200), (7, 40), (1, 2)]
)
def test_a_grid_grows_from_the_clean_picture_to_the_return_step(return_step: int, count: int) -> None:
    grid = time_grid(return_step, count)
    assert grid[0] == CLEAN and grid[-1] == return_step - 1
    assert all(one < following for one, following in itertools.pairwise(grid))
    assert len(grid) == min(count, return_step) + 1
    jumps = np.diff(grid)
    assert jumps.max() - jumps.min() <= 1  # about evenly


class Gaussian:
    """For pictures from N(0, s^2), what the best noise guess is and where x arrives on the exact flow."""

    def __init__(self, s: float = 0.5):
        self.s, self.alphas = s, tiny_unet().alphas_cumprod.double()

    def noise_of(self, x: Tensor, step: int) -> Tensor:
        alpha = self.alphas[step]
        return (1 - alpha).sqrt() * x / (alpha * self.s**2 + 1 - alpha)

    def exact(self, x: Tensor, step: int) -> Tensor:
        alpha = self.alphas[step]
        return x * ((alpha * self.s**2 + 1 - alpha) / self.s**2).sqrt()


def test_each_refinement_brings_the_round_trip_nearer() -> None:
    model, x = Gaussian(), torch.full((1, 3, 2, 2), 0.7, dtype=torch.float64)
    grid = time_grid(500, 40)
    missed, kept = [], []
    for refine in range(4):
        way = finish(walk_up(model.noise_of, model.alphas, x, grid, refine))
        back = finish(walk_down(model.noise_of, way, add_back=False))
        missed.append((back / x - 1).abs().max().item())
        kept.append(max(one.abs().max().item() for one in way.errors))
    assert 0.03 < missed[0] < 0.12
    for few, more in itertools.pairwise(missed):
        assert more < few / 10
    for few, more in itertools.pairwise(kept):
        assert more < few / 5


def test_more_steps_bring_the_walk_nearer_to_the_exact_flow() -> None:
    model, x = Gaussian(), torch.full((1, 3, 2, 2), 0.7, dtype=torch.float64)
    far = {}
    for refine in (0, 3):
        for count in (40, 400):
            way = finish(walk_up(model.noise_of, model.alphas, x, time_grid(500, count), refine))
            far[refine, count] = (way.states[-1] / model.exact(x, 499) - 1).abs().max().item()
        assert far[refine, 40] < 0.06 and far[refine, 400] < far[refine, 40] / 7  # first order


@pytest.mark.parametrize("noise", [0.0, 0.37])
@pytest.mark.parametrize("grid", [[CLEAN, 3, 5, 250, 251, 600], [CLEAN, 999], time_grid(400, 13)])
def test_constant_noise_is_walked_exactly_on_any_grid(noise: float, grid: list[int]) -> None:
    alphas = tiny_unet().alphas_cumprod.double()
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    way = finish(walk_up(lambda x, _: torch.full_like(x, noise), alphas, x, grid, 0))
    top = alphas[grid[-1]]
    assert torch.allclose(way.states[-1], top.sqrt() * x + (1 - top).sqrt() * noise, atol=1e-12)
    assert torch.allclose(
        finish(walk_down(lambda x, _: torch.full_like(x, noise), way, add_back=False)), x, atol=1e-9
    )


@pytest.mark.parametrize("refine", [0, 1, 2, 5])
@pytest.mark.parametrize("return_step", [150, 500, 900])
@torch.no_grad()
def test_the_way_back_ends_where_the_way_up_began(edit: Edit, refine: int, return_step: int) -> None:
    pictures = [speckled((16, 16), seed) for seed in range(2)]
    x, grid = to_tensor(pictures), time_grid(return_step, 7)
    way = finish(walk_up(edit._noise_of, edit.unet.alphas_cumprod, x, grid, refine))
    back = finish(walk_down(edit._noise_of, way, copies=3))
    assert back.shape == (6, 3, 16, 16)
    expected = [one.tobytes() for one in pictures for _ in range(3)]
    assert [one.tobytes() for one in to_pil(back)] == expected
    if refine == 0:
        plain = finish(walk_down(edit._noise_of, way, add_back=False))
        assert [one.tobytes() for one in to_pil(plain)] != [one.tobytes() for one in pictures]


@torch.no_grad()
def test_outside_a_mask_the_walk_down_follows_the_walk_up(edit: Edit) -> None:
    x = to_tensor([speckled((16, 16))])
    way = finish(walk_up(edit._noise_of, edit.unet.alphas_cumprod, x, time_grid(500, 5), 1))
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :8] = 1
    wearing = Wearing(edit.unet)
    wearing.wear(random_direction(edit.unet))
    wearing.set_strengths([torch.ones(1)])
    back = finish(walk_down(wearing.noise_of, way, mask=mask))
    assert torch.equal(back[..., 8:], x[..., 8:]) and (back[..., :8] - x[..., :8]).abs().mean() > 0.01


def test_fresh_noise_has_its_share_of_the_variance() -> None:
    x = torch.full((1, 3, 64, 64), 0.5)
    one = noised(x, 0.36, torch.Generator().manual_seed(0))
    assert one.mean().item() == pytest.approx(0.3, abs=0.03) and one.std().item() == pytest.approx(
        0.8, abs=0.03
    )
    assert torch.equal(one, noised(x, 0.36, torch.Generator().manual_seed(0)))


# -------------------------------------------------------------------------------------------------------------- losses

EAST, NORTH = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])


def vectors(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, 5, dtype=torch.float64, generator=generator), dim=1)


@pytest.mark.parametrize(
    ("change", "cosine"), [((0.3, 0.0), 1), ((-0.3, 0.0), -1), ((0.0, 2.0), 0), ((3.0, 4.0), 0.6)]
)
def test_the_directional_loss_by_hand(change: tuple[float, float], cosine: float) -> None:
    before = torch.tensor([0.2, -0.1])
    after = before + torch.tensor(change)
    assert directional_similarity(before, after, EAST).item() == pytest.approx(cosine, abs=1e-5)
    assert directional_loss(before, after, EAST).item() == pytest.approx(1 - cosine, abs=1e-5)
    logarithm = directional_loss(before, after, EAST, "log").item()
    if cosine == -1:
        assert 10 < logarithm < 100
    else:
        assert logarithm == pytest.approx(-math.log((1 + cosine) / 2), abs=1e-5)


@pytest.mark.parametrize("form", ["plain", "log"])
def test_the_loss_of_pictures_alike_is_finite_and_so_is_its_slope(form: str) -> None:
    before = vectors(3)
    for after in (before.clone(), before - 0.3 * EAST.double().repeat(3)[:5]):
        after.requires_grad_()
        loss = directional_loss(before, after, F.normalize(torch.ones(5).double(), dim=0), form).sum()
        loss.backward()
        assert loss.isfinite() and after.grad is not None and after.grad.isfinite().all()
    same = directional_loss(before, before, before, form)
    assert torch.allclose(same, torch.full_like(same, math.log(2) if form == "log" else 1.0))


@pytest.mark.parametrize("form", ["plain", "log"])
def test_the_slopes_are_those_of_finite_differences(form: str) -> None:
    before, after, direction = vectors(4, 0), vectors(4, 1).requires_grad_(), vectors(4, 2)
    assert torch.autograd.gradcheck(lambda x: directional_loss(before, x, direction, form), (after,))
    strength = torch.tensor([1.0, -0.5, 1.5, 0.7], dtype=torch.float64)
    line = vectors(1, 3)[0]
    assert torch.autograd.gradcheck(lambda x: reach_loss(before, x, line, strength), (after,))
    pictures = torch.randn(2, 2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(
        lambda x: keeping_loss(pictures[0], x, 0.3, 0.7), (pictures[1].clone().requires_grad_(),)
    )


def test_the_reach_by_hand() -> None:
    start = torch.zeros(2)
    assert reach_loss(start, start, EAST).item() == 1
    assert reach_loss(start, REACH / 2 * EAST, EAST).item() == pytest.approx(0.5)
    assert reach_loss(start, 2 * REACH * EAST, EAST).item() == 0  # arrived, and farther
    assert reach_loss(start, REACH * NORTH, EAST).item() == 1  # length elsewhere counts for nothing
    assert reach_loss(start, -REACH * EAST, EAST).item() == pytest.approx(2)
    assert reach_loss(start, -REACH * EAST, EAST, -1.0).item() == pytest.approx(0, abs=1e-6)
    strengths = torch.tensor([0.0, 0.5, 1.5])
    assert reach_loss(start.expand(3, 2), start.expand(3, 2), EAST, strengths).tolist() == [0, 0.5, 1.5]


def test_what_keeps_the_rest_by_hand() -> None:
    before = torch.zeros(2, 3, 4, 4)
    after = before.clone()
    after[1] = 0.5
    assert keeping_loss(before, after, 0.3, 7.0).tolist() == pytest.approx([0, 0.15])  # no edges in a shift
    after[1] = 0
    after[1, :, :, 2:] = 1.0  # one edge among the three between four columns
    assert keeping_loss(before, after, 0.0, 1.0)[1].item() == pytest.approx(1 / 3)
    assert keeping_loss(before, after.transpose(2, 3), 0.0, 1.0)[1].item() == pytest.approx(1 / 3)
    assert keeping_loss(before, after, 2.0, 0.0)[1].item() == pytest.approx(1.0)


def test_a_text_direction_is_the_mean_over_wordings() -> None:
    clip = tiny_clip()
    found = text_direction(clip, "two cats", "a red heart")
    assert found.norm().item() == pytest.approx(1, abs=1e-6)
    ends = [clip.encode_text(ensemble(text)).mean(0) for text in ("two cats", "a red heart")]
    assert torch.allclose(found, F.normalize(ends[1] - ends[0], dim=0), atol=1e-6)
    single = clip.encode_text(["two cats", "a red heart"])
    assert not torch.allclose(found, F.normalize(single[1] - single[0], dim=0), atol=1e-3)
    assert torch.allclose(found, -text_direction(clip, "a red heart", "two cats"), atol=1e-6)


def test_pictures_compared_are_seen_alike() -> None:
    picture = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    other = picture.clone().requires_grad_()
    seen = views_alike(torch.cat([picture, other, -picture]), 4, 12, torch.Generator().manual_seed(3))
    assert seen.shape == (3, 4, 3, 12, 12)
    assert torch.equal(seen[0], seen[1]) and not torch.allclose(seen[0], seen[2], atol=0.1)
    assert not torch.allclose(seen[0, 0], seen[0, 1], atol=0.1)  # the views differ among themselves
    again = views_alike(torch.cat([picture, other, -picture]), 4, 12, torch.Generator().manual_seed(3))
    assert torch.equal(seen, again)
    seen.square().sum().backward()
    assert other.grad is not None and other.grad.abs().sum() > 0


# ------------------------------------------------------------------------------------------------------------- wearing


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    x = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return x, torch.tensor([10, 400, 900])


def merged(unet: Unet, directions: list[Direction], strengths: list[float]) -> Unet:
    """A plain UNet with base weight + strength * B A in place of every adapter."""
    plain = Unet(unet.config)
    plain.load_state_dict(unet.state_dict())
    layers = dict(plain.network.named_modules())
    for direction, strength in zip(directions, strengths, strict=True):
        for name, down in direction.tensors.items():
            if not name.endswith("lora_A.weight"):
                continue
            up = direction.tensors[name.replace("lora_A", "lora_B")].float()
            layer = layers[name.removesuffix(".lora_A.weight")]
            change = up.flatten(1) @ down.float().flatten(1)
            layer.weight.data += strength * change.view_as(layer.weight)
    return plain.eval().requires_grad_(False)


@torch.no_grad()
def test_adapters_sit_on_attention_and_convolutions(edit: Edit) -> None:
    names = random_direction(edit.unet).tensors
    assert all(one.dtype == torch.float16 for one in names.values())
    for layer in (
        "attentions.0.to_q",
        "attentions.0.to_k",
        "attentions.0.to_v",
        "attentions.0.to_out.0",
        "resnets.0.conv1",
        "resnets.0.conv2",
        "resnets.0.conv_shortcut",
        "resnets.0.time_emb_proj",
        "downsamplers.0.conv",
        "upsamplers.0.conv",
    ):
        for part in ("lora_A", "lora_B"):
            assert any(name.endswith(f"{layer}.{part}.weight") for name in names), layer
    assert not any("direction0" in name for name in names)


@torch.no_grad()
def test_at_strength_0_a_worn_copy_is_the_unet_bit_for_bit(edit: Edit, batch: tuple[Tensor, Tensor]) -> None:
    base, wearing = edit.unet(*batch), Wearing(edit.unet)
    assert torch.equal(wearing.unet(*batch), base)
    for seed in range(2):
        wearing.wear(random_direction(edit.unet, seed))
    wearing.set_strengths([torch.zeros(3)] * 2)
    assert torch.equal(wearing.unet(*batch), base)
    wearing.set_strengths([torch.tensor([0.0, 1.0, 0.0]), torch.zeros(3)])  # one picture among others
    worn = wearing.unet(*batch)
    assert torch.equal(worn[[0, 2]], base[[0, 2]]) and (worn[1] - base[1]).abs().max() > 0.05


@torch.no_grad()
def test_a_fresh_adapter_changes_nothing(edit: Edit, batch: tuple[Tensor, Tensor]) -> None:
    wearing = Wearing(edit.unet)
    parameters = wearing.add(4, seed=1)
    assert parameters and all(one.requires_grad for one in parameters)
    assert {id(one) for one in parameters} == {
        id(one) for one in wearing.unet.parameters() if one.requires_grad
    }
    wearing.set_strengths([torch.ones(3)])
    assert torch.equal(wearing.unet(*batch), edit.unet(*batch))
    state = torch.get_rng_state()
    others = [Wearing(edit.unet), Wearing(edit.unet)]
    again, different = others[0].add(4, seed=1), others[1].add(4, seed=2)
    assert torch.equal(torch.get_rng_state(), state)  # the global generator is left alone
    assert all(torch.equal(one, same) for one, same in zip(parameters, again, strict=True))
    assert not all(torch.equal(one, other) for one, other in zip(parameters, different, strict=True))


@pytest.mark.parametrize("strength", [-1.0, 1.5])
@torch.no_grad()
def test_a_worn_direction_is_one_merged_into_the_weights(
    edit: Edit, batch: tuple[Tensor, Tensor], strength: float
) -> None:
    direction, wearing = random_direction(edit.unet), Wearing(edit.unet)
    wearing.wear(direction)
    wearing.set_strengths([torch.full((3,), strength)])
    plain = merged(edit.unet, [direction], [strength])
    expected = plain(*batch)
    assert torch.allclose(wearing.unet(*batch), expected, atol=2e-4, rtol=1e-3)
    assert (expected - edit.unet(*batch)).abs().max() > 0.1
    worn, found = dict(wearing.unet.network.named_modules()), dict(plain.network.named_modules())
    kinds = set()
    for name, layer in found.items():
        if f"{name}.lora_A.weight" not in direction.tensors:
            continue
        kinds.add(type(layer))
        if isinstance(layer, nn.Conv2d):
            x = torch.randn(3, layer.in_channels, 6, 6, generator=torch.Generator().manual_seed(1))
        else:
            shape = (3, layer.in_features) if name.endswith("time_emb_proj") else (3, 5, layer.in_features)
            x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        assert torch.allclose(worn[name](x), layer(x), atol=1e-4), name
    assert kinds == {nn.Conv2d, nn.Linear}


@torch.no_grad()
def test_strengths_of_one_batch_are_those_of_separate_runs(edit: Edit, batch: tuple[Tensor, Tensor]) -> None:
    (x, times), wearing = batch, Wearing(edit.unet)
    wearing.wear(random_direction(edit.unet))
    strengths = torch.tensor([-1.0, 0.5, 1.5])
    wearing.set_strengths([strengths])
    together = wearing.unet(x, times)
    for k in range(3):
        wearing.set_strengths([strengths[k : k + 1]])
        assert torch.allclose(wearing.unet(x[k : k + 1], times[k : k + 1]), together[k : k + 1], atol=1e-5)


@torch.no_grad()
def test_two_directions_add_up(edit: Edit, batch: tuple[Tensor, Tensor]) -> None:
    directions = [random_direction(edit.unet, 0, rank=4), random_direction(edit.unet, 7, rank=2)]
    wearing = Wearing(edit.unet)
    for one in directions:
        wearing.wear(one)
    wearing.set_strengths([torch.full((3,), 0.8), torch.full((3,), -0.6)])
    expected = merged(edit.unet, directions, [0.8, -0.6])(*batch)
    assert torch.allclose(wearing.unet(*batch), expected, atol=2e-4, rtol=1e-3)
    for wrong in ([0.8, 0.6], [0.8, 0.0], [-0.6, 0.8]):
        assert not torch.allclose(merged(edit.unet, directions, wrong)(*batch), expected, atol=1e-2)


def test_a_direction_of_another_base_is_refused(edit: Edit) -> None:
    other = tiny_unet()
    other.network.conv_in.weight.data += 0.01
    wearing = Wearing(edit.unet)
    with pytest.raises(BadInput, match="learned on another base model") as refused:
        wearing.wear(random_direction(other))
    assert "\n" not in str(refused.value)
    good = random_direction(edit.unet)
    fewer = dict(list(good.tensors.items())[1:])
    odd = {name: (one[:1] if k == 0 else one) for k, (name, one) in enumerate(good.tensors.items())}
    for tensors in (fewer, odd, {}, {**good.tensors, "more": torch.zeros(1).half()}):
        with pytest.raises(BadInput, match="does not fit the base model") as refused:
            Wearing(edit.unet).wear(Direction(tensors, good.facts))
        assert "\n" not in str(refused.value)
    with pytest.raises(BadInput, match="does not fit the base model"):
        Wearing(edit.unet).wear(Direction(good.tensors, good.facts | {"rank": 5}))


def test_equal_weights_have_equal_hashes(edit: Edit) -> None:
    assert network_hash(tiny_unet()) == network_hash(edit.unet) and len(network_hash(edit.unet)) == 64
    channels_last = tiny_unet()
    convert_conv2d_weight_memory_format(channels_last, torch.channels_last)  # as Studio loads it
    assert network_hash(channels_last) == network_hash(edit.unet)
    assert network_hash(edit.clip) != network_hash(edit.critic)


# ---------------------------------------------------------------------------------------------------- directions as files


def test_a_direction_comes_back_byte_for_byte(edit: Edit, tmp_path: Path) -> None:
    direction = random_direction(edit.unet, source="a 3d 脸", target='红心 “quoted” "x"')
    direction.save(tmp_path / "a.safetensors")
    data = (tmp_path / "a.safetensors").read_bytes()
    assert {direction.to_bytes() for _ in range(10)} == {data}
    for source in (tmp_path / "a.safetensors", str(tmp_path / "a.safetensors"), direction.to_uri()):
        again = read_direction(source)
        assert again.to_bytes() == data and again.facts == direction.facts
        assert all(torch.equal(one, again.tensors[name]) for name, one in direction.tensors.items())
    assert (again.rank, again.return_step) == (4, 400)
    assert "a 3d 脸 → 红心" in again.words
    assert len(data) < 60_000
    shuffled = Direction(dict(reversed(direction.tensors.items())), dict(reversed(direction.facts.items())))
    assert shuffled.to_bytes() == data


def test_other_tools_find_the_adapters_rank(edit: Edit, tmp_path: Path) -> None:
    from safetensors import safe_open

    random_direction(edit.unet, rank=3).save(tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        told = json.loads((file.metadata() or {})["lora_adapter_metadata"])
    assert told["r"] == told["lora_alpha"] == 3 and "to_q" in told["target_modules"]


def with_header(data: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    """A safetensors file with its header changed."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def with_facts(data: bytes, **facts: Any) -> bytes:
    def change(header: dict[str, Any]) -> None:
        header["__metadata__"]["facts"] = json.dumps(json.loads(header["__metadata__"]["facts"]) | facts)

    return with_header(data, change)


def tensors_and_facts(direction: Direction, **changes: Any) -> bytes:
    tensors = {name: one.contiguous() for name, one in direction.tensors.items()}
    return save({**tensors, **changes}, {"facts": json.dumps(direction.facts)})


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "a picture": (lambda _: b"\x89PNG\r\n\x1a\n" + b"\0" * 64, "no safetensors file"),
    "empty": (lambda _: b"", "no safetensors file"),
    "text": (lambda _: b"hello", "no safetensors file"),
    "cut in the tensors": (lambda data: data[:-7], "damaged"),
    "cut in the header": (lambda data: data[:200], "no safetensors file"),
    "an absurd header length": (lambda data: (2**62).to_bytes(8, "little") + data[8:], "no safetensors file"),
    "header length -1": (lambda data: b"\xff" * 8 + data[8:], "no safetensors file"),
    "a header that is no object": (lambda _: (2).to_bytes(8, "little") + b"[]", "no safetensors file"),
    "a deep header": (
        lambda _: (100_000).to_bytes(8, "little") + b"[" * 100_000,
        "no safetensors file",
    ),
    "no facts": (lambda data: with_header(data, lambda head: head.pop("__metadata__")), "carries no facts"),
    "facts that are a list": (
        lambda data: with_header(data, lambda head: head.update(__metadata__={"facts": "[]"})),
        "not an object",
    ),
    "facts that are no JSON": (
        lambda data: with_header(data, lambda head: head.update(__metadata__={"facts": "{"})),
        "carries no facts",
    ),
    "no source": (lambda data: with_facts(data, source=None), "its source is not text"),
    "a long target": (lambda data: with_facts(data, target="x" * 2001), "its target is not text"),
    "rank 0": (lambda data: with_facts(data, rank=0), "its rank is not a number"),
    "rank 65": (lambda data: with_facts(data, rank=65), "its rank is not a number"),
    "rank true": (lambda data: with_facts(data, rank=True), "its rank is not a number"),
    "rank 4.0": (lambda data: with_facts(data, rank=4.0), "its rank is not a number"),
    "return step 1000": (lambda data: with_facts(data, return_step=1000), "its return_step is not a number"),
    "offsets beyond the file": (
        lambda data: with_header(
            data, lambda head: next(v for k, v in head.items() if "lora" in k).update(data_offsets=[0, 10**9])
        ),
        "damaged",
    ),
    "a shape that does not fit": (
        lambda data: with_header(
            data, lambda head: next(v for k, v in head.items() if "lora" in k).update(shape=[10**9, 10**9])
        ),
        "damaged",
    ),
    "a tensor that is none": (
        lambda data: with_header(data, lambda head: head.update(more=5)),
        "not float16",
    ),
}


@pytest.mark.parametrize(("damage", "words"), DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_directions_are_refused_in_one_sentence(
    edit: Edit, damage: Callable[[bytes], bytes], words: str, tmp_path: Path
) -> None:
    data = damage(random_direction(edit.unet).to_bytes())
    (tmp_path / "a.safetensors").write_bytes(data)
    for source in (tmp_path / "a.safetensors", URI_HEAD + base64.b64encode(data).decode()):
        with pytest.raises(BadInput, match=words) as refused:
            read_direction(source)
        assert "\n" not in str(refused.value) and len(str(refused.value)) < 250


def test_strange_tensors_are_refused(edit: Edit, tmp_path: Path) -> None:
    direction = random_direction(edit.unet)
    name, one = next(iter(direction.tensors.items()))
    broken, endless = one.clone(), one.clone()
    broken.view(-1)[3], endless.view(-1)[0] = math.nan, math.inf
    for tensor, words in (
        (broken, "not finite"),
        (endless, "not finite"),
        (one.float(), "is not float16"),
        (one.to(torch.bfloat16), "is not float16"),
    ):
        (tmp_path / "a.safetensors").write_bytes(tensors_and_facts(direction, **{name: tensor}))
        with pytest.raises(BadInput, match=words):
            read_direction(tmp_path / "a.safetensors")


def test_names_of_directions_are_checked(edit: Edit, tmp_path: Path) -> None:
    direction = random_direction(edit.unet)
    with pytest.raises(BadInput, match=r"must end in \.safetensors"):
        direction.save(tmp_path / "angry.txt")
    assert not list(tmp_path.iterdir())
    for source in (
        tmp_path / "nowhere.safetensors",
        tmp_path,
        "",
        "a\0b",
        "x" * 5000,
        "~nobody-here/a.safetensors",
    ):
        with pytest.raises(BadInput) as refused:
            read_direction(source)
        assert "\n" not in str(refused.value) and len(str(refused.value)) < 250
    for source in ("data:application/octet-stream;base64,@@@", "data:", "data:,"):
        with pytest.raises(BadInput):
            read_direction(source)
    with (tmp_path / "huge.safetensors").open("wb") as file:
        file.truncate(40_000_000)
    with pytest.raises(BadInput, match="more than 32 MB"):
        read_direction(tmp_path / "huge.safetensors")


def test_facts_of_a_stranger_can_be_written_again(edit: Edit, tmp_path: Path) -> None:
    """Half a character pair is JSON, yet no text: it is refused or cleaned, not carried on to fail elsewhere."""
    data = with_facts(random_direction(edit.unet).to_bytes(), source="half \ud800 a pair")
    (tmp_path / "a.safetensors").write_bytes(data)
    try:
        direction = read_direction(tmp_path / "a.safetensors")
    except BadInput:
        return
    assert read_direction(direction.to_uri()).facts == direction.facts


# ----------------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("text", "uses"),
    [
        ("a.safetensors", [Use("a.safetensors")]),
        ("a.safetensors:0.5", [Use("a.safetensors", 0.5)]),
        (" a b.safetensors : -.5 @ 900 - 300 ", [Use("a b.safetensors", -0.5, (900, 300))]),
        ("a@1000-0", [Use("a")]),
        ("a:1 | b:-1@500-0 |", [Use("a"), Use("b", -1.0, (500, 0))]),
        ("C:\\dirs\\a.safetensors:1.5", [Use("C:\\dirs\\a.safetensors", 1.5)]),
        ("me@home/a:0.25", [Use("me@home/a", 0.25)]),
        (f"{URI_HEAD}AAAA:0.5@900-300", [Use(f"{URI_HEAD}AAAA", 0.5, (900, 300))]),
        ("a:0.00001", [Use("a", 0.00001)]),
    ],
)
def test_directions_in_use_are_read_from_the_right(text: str, uses: list[Use]) -> None:
    settings = EditSettings(directions=text)
    assert settings.uses() == uses
    assert settings.map_directions(lambda file: file).uses() == uses  # written down and read again


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"directions": "a:1.6"}, "not in -1 to 1.5"),
        ({"directions": "a:-1.01"}, "not in -1 to 1.5"),
        ({"directions": "a@300-900"}, "does not go down"),
        ({"directions": "a@1001-900"}, "does not go down"),
        ({"directions": "a@5-5"}, "does not go down"),
        ({"source": "A Face.", "prompt": "the face"}, "nowhere to go"),
        ({"source": "红心", "prompt": " 红心 "}, "nowhere to go"),
        ({"crop": "0,0,0x8"}, "is not X,Y,WIDTHxHEIGHT"),
        ({"crop": "-1,0,8x8"}, "is not X,Y,WIDTHxHEIGHT"),
        ({"crop": "8x8"}, "is not X,Y,WIDTHxHEIGHT"),
        ({"source": ""}, "empty"),
        ({"mode": "slow"}, "not one of instant, quick, reusable, paper"),
    ],
)
def test_wrong_settings_are_one_sentence(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words) as refused:
        EditSettings(**settings)
    assert "\n" not in str(refused.value)


def test_settings_are_read() -> None:
    assert EditSettings(crop=" 3, 4 ,10X20 ").box() == (3, 4, 13, 24) and EditSettings().box() is None
    assert EditSettings(crop="0,0,10x100").box() == (0, 0, 10, 100)
    assert EditSettings(mode="instant").update_count() == 0 == EditSettings(directions="a").update_count()
    assert EditSettings(updates=7).update_count() == 7
    assert all(EditSettings(mode=mode).update_count() > 0 for mode in MODES if mode != "instant")
    settings = EditSettings(image="i", mask="m", examples="a | b", lessons="c|d")
    changed = settings.map_pictures(str.upper)
    assert (changed.image, changed.mask, changed.examples, changed.lessons) == ("I", "M", "A | B", "C | D")
    assert EditSettings().map_pictures(str.upper) == EditSettings()


@pytest.mark.parametrize("strength", [1.0, 0.0, -1.0, 1.5, 0.4, -0.3])
@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_a_strip_holds_the_chosen_strength(strength: float, count: int) -> None:
    values = strip(strength, count)
    assert len(values) == count == len(set(values)) and strength in values
    assert values == sorted(values, reverse=strength < 0)
    assert all(-1 <= one <= 1.5 for one in values)
    if count > 2:
        assert values[0] == 0 and values[-1] == (1.5 if strength >= 0 else -1.0)


def test_strips_by_hand() -> None:
    assert strip(1.0, 5) == [0, 0.375, 0.75, 1.0, 1.5]
    assert strip(-0.5, 3) == [0, -0.5, -1]
    assert strip(0.7, 1) == [0.7]


def test_overshooting_is_the_critic_falling_while_clip_rises() -> None:
    up, down = np.linspace(0.1, 0.6, 8), np.linspace(0.5, 0.2, 8)

    def curves(clip: Any, critic: Any) -> list[list[float]]:
        return [
            [5 * k, float(a), float(b)] for k, (a, b) in enumerate(zip(clip, critic, strict=True), start=1)
        ]

    hill = [0.1, 0.3, 0.5, 0.6, 0.5, 0.4, 0.3, 0.2]
    assert overshot(curves(up, hill)) == 20  # the update when the critic liked it best
    assert overshot(curves(up, up)) == overshot(curves(down, down)) == overshot(curves(up, hill)[:3]) == 0
    assert overshot(curves(up, np.full(8, 0.3))) == overshot([]) == 0


def test_the_automatic_mask_lies_where_the_change_is() -> None:
    change = torch.zeros(2, 3, 24, 24)
    change[:, :, 4:12, 4:12] = 0.4
    change += 0.01 * torch.randn(change.shape, generator=torch.Generator().manual_seed(0))
    mask = automatic_mask(change)
    assert mask.shape == (2, 1, 24, 24) and mask.min() >= 0 and mask.max() <= 1
    assert (mask[..., 5:11, 5:11] == 1).all() and (mask[..., 16:] == 0).all()
    for nothing in (torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), 1e-9)):
        assert automatic_mask(nothing).isfinite().all()


# ------------------------------------------------------------------------------------------------------------ learning


def tuning_of(edit: Edit, mode: str = "quick", lessons: int = 4, **fields: Any) -> Tuning:
    """As a run sets it up."""
    settings = edit.prepare(EditSettings(mode=mode, **{"return_step": 300, "refine": 0, **fields}))
    x, way = edit.pictures.tensor([0]), None
    with torch.no_grad():
        if mode != "quick":
            x = edit.pictures.tensor(list(range(lessons)))
        if mode != "reusable":
            way = finish(walk_up(edit._noise_of, edit.unet.alphas_cumprod, x, time_grid(300, 40), 0))
        aim = edit._aim(settings, x[:1])
    return Tuning(edit.unet, edit.clip, edit.critic, settings, settings.return_step, aim, x, way)


@torch.no_grad()
def advance(tuning: Tuning, count: int) -> list[float]:
    losses = []
    for _ in range(count):
        assert tuning.advance() == ""
        losses.append(tuning.loss)
    return losses


@pytest.mark.parametrize(("mode", "seed"), [("quick", 0), ("quick", 1), ("reusable", 2)])
def test_learning_lowers_the_loss(edit: Edit, mode: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.edit.tuning.VIEWS", 12)  # little chance in the loss
    tuning = tuning_of(edit, mode, seed=seed, step_size=0.02, keep=0.01, smooth=0.01)
    losses = advance(tuning, 15)
    assert np.mean(losses[-4:]) < np.mean(losses[:2]) - 0.25
    told = tuning.metrics()
    assert told["loss"] == losses[-1] and [told["clip"], told["critic"]] == tuning.curves[-1][1:]
    assert [row[0] for row in tuning.curves] == [1, 5, 10, 15]


@pytest.mark.parametrize("chain", [False, True])
def test_the_papers_recipe_learns(edit: Edit, chain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.edit.tuning.VIEWS", 40)
    steps = []
    tuning = tuning_of(edit, "paper", lessons=1, chain=chain, step_size=0.005, keep=0.01, smooth=0.01)
    update = tuning._update
    monkeypatch.setattr(tuning, "_update", lambda loss: (steps.append(loss.item()), update(loss)))
    before = {name: one.clone() for name, one in tuning.wearing.tensors().items()}
    count = 8 if chain else 4
    losses = advance(tuning, count)
    assert len(steps) == count * (1 if chain else 6)
    assert np.mean(losses[-2:]) < np.mean(losses[:2]) - 0.05
    changed = [name for name, one in tuning.wearing.tensors().items() if not torch.equal(one, before[name])]
    assert len(changed) == len(before)  # all of the adapter takes part
    assert tuning.shown is not None and tuning.shown.shape == (1, 3, 16, 16)


@pytest.mark.parametrize(
    ("mode", "part"), [("quick", "keep"), ("quick", "smooth"), ("reusable", "keep"), ("paper", "keep")]
)
def test_what_keeps_the_picture_has_a_slope(
    edit: Edit, mode: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The authors' program computes its identity loss on a detached picture, where it moves nothing."""
    gradients = []
    for amount in (0.0, 5.0):
        found: list[Tensor] = []
        tuning = tuning_of(
            edit, mode, lessons=2, **{"keep": 0.0, "smooth": 0.0, part: amount}, step_size=1e-4
        )
        for one in tuning.parameters:  # a fresh adapter changes nothing, so that there is nothing to keep
            one.data += 0.05 * torch.randn(one.shape, generator=torch.Generator().manual_seed(one.numel()))

        def note(loss: Tensor, found: list[Tensor] = found, tuning: Tuning = tuning) -> None:
            tuning.optimizer.zero_grad()
            loss.backward()
            assert all(one.grad is not None for one in tuning.parameters)
            found.append(torch.cat([one.grad.flatten() for one in tuning.parameters if one.grad is not None]))

        monkeypatch.setattr(tuning, "_update", note)
        advance(tuning, 1)
        gradients.append(found[-1])
    assert gradients[1].isfinite().all()
    assert (gradients[1] - gradients[0]).norm() > 1e-3 * gradients[0].norm() > 0


def test_learning_leaves_the_shared_networks_alone(edit: Edit) -> None:
    hashes = [network_hash(one) for one in (edit.unet, edit.clip, edit.critic)]
    names = list(edit.unet.state_dict())
    finished(edit, EditSettings(**STRONG))
    assert hashes == [network_hash(one) for one in (edit.unet, edit.clip, edit.critic)]
    assert names == list(edit.unet.state_dict())
    assert not any(one.requires_grad for one in edit.unet.parameters())
    assert not any(
        one.grad is not None for part in (edit.unet, edit.clip, edit.critic) for one in part.parameters()
    )


def test_numbers_that_break_down_keep_the_last_good_state(
    edit: Edit, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = EditSettings(steps=3, strip=1, updates=12, step_size=0.01, image=uri(speckled((16, 16))))
    good = finished(edit, replace(settings, until=5))
    loss_of = Tuning._loss

    def broken(self: Tuning, *arguments: Any) -> Tensor:
        loss = loss_of(self, *arguments)
        return loss * math.nan if self.step == 5 else loss

    monkeypatch.setattr(Tuning, "_loss", broken)
    result = finished(edit, settings)
    assert pixels(result) == pixels(good)
    assert result.pictures[0].facts["updates"] == 5
    assert isinstance(result.settings, EditSettings) and result.settings.until == 5
    assert "the loss became nan at update 6" in result.pictures[0].facts["ended"]


@pytest.mark.parametrize("broken_at", ["at once", "in the parameters"])
def test_the_adapter_stays_finite_when_numbers_break_down(
    edit: Edit, broken_at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning = tuning_of(edit)
    if broken_at == "at once":
        monkeypatch.setattr(tuning, "_loss", lambda before, after, generator: after.sum() * math.inf)
    else:
        advance(tuning, 2)
        update = tuning._update

        def spoil(loss: Tensor) -> None:
            update(loss)
            tuning.parameters[3].data.fill_(math.nan)

        monkeypatch.setattr(tuning, "_update", spoil)
    before, step = [one.detach().clone() for one in tuning.parameters], tuning.step
    with torch.no_grad():
        sentence = tuning.advance()
    assert "step_size" in sentence and "\n" not in sentence and tuning.step == step
    assert all(torch.equal(one, old) for one, old in zip(tuning.parameters, before, strict=True))


def test_a_restored_tuning_goes_on_with_the_same_bits(edit: Edit) -> None:
    whole, other = tuning_of(edit, "reusable"), tuning_of(edit, "reusable")
    advance(whole, 7)
    advance(other, 4)
    resumed = tuning_of(edit, "reusable")
    resumed.restore(other.snapshot())
    advance(resumed, 3)
    assert resumed.curves == whole.curves and resumed.loss == whole.loss and resumed.step == 7
    for name, one in whole.wearing.tensors().items():
        assert torch.equal(one, resumed.wearing.tensors()[name]), name
    fresh = tuning_of(edit, "reusable")
    fresh.restore(fresh.snapshot())  # of no update yet
    assert math.isnan(fresh.loss) and advance(fresh, 1) == advance(tuning_of(edit, "reusable"), 1)


def test_the_critic_steers_nothing(edit: Edit) -> None:
    other = tiny_edit()
    for parameter in other.critic.parameters():
        parameter.data.mul_(-1.7)
    for mode in ("quick", "instant"):
        settings = EditSettings(mode=mode, image=uri(speckled((16, 16))), **STRONG)
        one, two = finished(edit, settings), finished(other, settings)
        assert pixels(one) == pixels(two)
        assert one.pictures[0].facts["critic target"] != two.pictures[0].facts["critic target"]


def test_pictures_can_stand_for_the_target(edit: Edit) -> None:
    shown = " | ".join(uri(speckled((16, 12), seed)) for seed in range(3))
    fields: dict[str, Any] = {"image": uri(speckled((16, 16), 9)), **STRONG}
    by_text = finished(edit, EditSettings(**fields))
    by_pictures = finished(edit, EditSettings(**fields, examples=shown, source="a cat", prompt="a cat"))
    assert pixels(by_text) != pixels(by_pictures)
    x = edit.pictures.tensor([0])
    settings = edit.prepare(EditSettings(examples=shown))
    with torch.no_grad():
        aim = edit._aim(settings, x)
        seen = edit.clip.encode_image(
            torch.cat([Framing.of((16, 12), None, 16).reduced(speckled((16, 12), seed)) for seed in range(3)])
        )
        expected = F.normalize(seen.mean(0) - edit.clip.encode_image(x)[0], dim=0)
    assert torch.allclose(aim.clip, expected, atol=1e-5)


def test_a_direction_can_be_learned_from_own_pictures(edit: Edit, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for seed in range(3):
        speckled((20, 14), seed).save(tmp_path / "mine" / f"{seed}.png")
    (tmp_path / "mine" / "notes.txt").write_text("not a picture")
    prepared = edit.prepare(EditSettings(mode="reusable", lessons=str(tmp_path / "mine")))
    assert prepared.lessons.count("data:image/png") == 3
    assert edit._lessons(prepared).shape == (3, 3, 16, 16)
    (tmp_path / "empty").mkdir()
    for lessons, words in (
        (str(tmp_path / "empty"), "holds no PNG"),
        (str(tmp_path / "mine" / "0.png"), "a single picture"),
        (str(tmp_path / "nowhere"), "there is no picture"),
        (" | ".join([str(tmp_path / "mine")] * 80), "the most is"),
    ):
        with pytest.raises(BadInput, match=words):
            edit.prepare(EditSettings(mode="reusable", lessons=lessons))


# ---------------------------------------------------------------------------------------------------------- the frame


@pytest.mark.parametrize("size", [(16, 16), (40, 28), (9, 13), (33, 8)])
def test_no_change_gives_the_picture_back(size: tuple[int, int]) -> None:
    picture = speckled(size)
    framing = Framing.of(size, None, 16)
    assert framing.reduced(picture).shape == (1, 3, 16, 16)
    back = framing.returned(picture, torch.zeros(1, 3, 16, 16), None)
    assert back.tobytes() == picture.tobytes() and back is not picture


def test_at_the_models_size_the_change_arrives_as_it_is() -> None:
    picture, other = speckled((16, 16), 0), speckled((16, 16), 1)
    framing = Framing.of((16, 16), None, 16)
    change = to_tensor([other]) - framing.reduced(picture)
    assert framing.returned(picture, change, None).tobytes() == other.tobytes()
    large = speckled((50, 40), 2)
    part = Framing.of(large.size, (7, 9, 23, 25), 16)
    assert torch.equal(part.reduced(large), to_tensor([large.crop((7, 9, 23, 25))]))
    pasted = part.returned(large, to_tensor([other]) - part.reduced(large), None)
    assert pasted.crop((7, 9, 23, 25)).tobytes() == other.tobytes()
    pasted.paste(large.crop((7, 9, 23, 25)), (7, 9))
    assert pasted.tobytes() == large.tobytes()


@pytest.mark.parametrize("size", [(64, 64), (61, 40), (30, 90), (12, 10)])
@pytest.mark.parametrize("box", [False, True])
def test_a_shift_of_colour_arrives_everywhere_and_detail_stays(size: tuple[int, int], box: bool) -> None:
    picture = speckled(size, low=90, high=160)
    part = (1, 2, size[0] - 2, size[1]) if box else (0, 0, *size)
    framing = Framing.of(size, part if box else None, 16)
    change = torch.tensor([0.2, -0.1, 0.05]).view(1, 3, 1, 1).expand(1, 3, 16, 16)
    new = np.asarray(framing.returned(picture, change, None), np.int16)
    moved = new - np.asarray(picture, np.int16)
    inside = np.zeros(size[::-1], bool)
    inside[part[1] : part[3], part[0] : part[2]] = True
    assert np.abs(moved[inside] - np.array([25.5, -12.75, 6.4])).max() <= 1  # all the noise is still there
    assert (moved[~inside] == 0).all()


def test_a_larger_picture_keeps_its_detail_under_any_change() -> None:
    """What comes back of a change has no finer detail of its own than the model's pixels."""
    picture = speckled((128, 128), low=110, high=146)
    framing = Framing.of(picture.size, None, 16)
    change = F.interpolate(
        torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.3, (16, 16), mode="bicubic"
    )
    moved = to_tensor([framing.returned(picture, change, None)]) - to_tensor([picture])
    arrived = F.interpolate(moved, (16, 16), mode="area")
    assert F.cosine_similarity(arrived.flatten(), change.flatten(), dim=0) > 0.97
    fine = moved - F.interpolate(F.interpolate(moved, (32, 32), mode="area"), (128, 128), mode="bilinear")
    assert fine.square().mean() < 0.02 * moved.square().mean()


def test_edges_of_a_change_follow_those_of_the_picture() -> None:
    """A disc that changes colour: on the large picture the change ends where the disc does."""
    y, x = np.mgrid[:128, :128]
    disc = (x - 64) ** 2 + (y - 64) ** 2 < 40**2
    levels = np.where(disc[..., None], 190, 60).astype(np.uint8).repeat(3, 2)
    picture = Image.fromarray(levels)
    framing = Framing.of(picture.size, None, 16)
    reduced = framing.reduced(picture)
    share = (reduced - reduced.min()) / (reduced.max() - reduced.min())
    moved = np.asarray(framing.returned(picture, -0.4 * share, None), np.int16) - levels
    ring = ((x - 64) ** 2 + (y - 64) ** 2 > 44**2) & ((x - 64) ** 2 + (y - 64) ** 2 < 50**2)
    plain = F.interpolate(-0.4 * share, (128, 128), mode="bilinear")[0].permute(1, 2, 0).numpy() * 127.5
    assert np.abs(moved[ring]).mean() < 0.5 * np.abs(plain[ring]).mean()
    assert np.abs(moved[disc].mean() + 51) < 6


def test_masks_are_framed_like_the_picture() -> None:
    mask = half((40, 20))
    framing = Framing.of((40, 20), (10, 0, 30, 20), 10)
    small = framing.reduced_mask(mask)
    assert small.shape == (1, 1, 10, 10)
    assert torch.equal(small, torch.tensor([1.0] * 5 + [0.0] * 5).expand(1, 1, 10, 10))
    picture = speckled((40, 20), low=60, high=150)
    new = np.asarray(framing.returned(picture, torch.full((1, 3, 10, 10), 0.3), mask), np.int16)
    moved = (new != np.asarray(picture)).any(2)
    assert moved[:, 10:20].all() and not moved[:, :10].any() and not moved[:, 20:].any()


def test_crops_that_do_not_fit_are_refused() -> None:
    for box, words in (
        ((10, 0, 41, 20), "the crop ends at 41x20, the picture at 40x20"),
        ((0, 0, 40, 21), "the crop ends at 40x21"),
        ((0, 0, 7, 20), "the least is 8x8"),
    ):
        with pytest.raises(BadInput, match=words):
            Framing.of((40, 20), box, 16)
    with pytest.raises(BadInput, match="the least is 8x8"):
        Framing.of((100, 5), None, 16)


# --------------------------------------------------------------------------------------------------------------- runs


@pytest.mark.parametrize(
    ("mode", "size", "crop"),
    [
        *((mode, (16, 16), "") for mode in MODES),
        *((mode, (41, 35), "3,5,17x21") for mode in MODES),
        ("quick", (37, 23), ""),
        ("instant", (11, 30), ""),
        ("quick", (33, 33), "0,0,16x16"),
    ],
)
def test_strength_0_gives_the_picture_back(edit: Edit, mode: str, size: tuple[int, int], crop: str) -> None:
    picture = speckled(size)
    settings = EditSettings(
        mode=mode, image=uri(picture), crop=crop, strength=0.0, steps=3, strip=1, updates=1, refine=0,
        step_size=0.03, learn_from=5,
    )  # fmt: skip
    result = finished(edit, settings)
    assert first(result).tobytes() == picture.tobytes()
    facts = result.pictures[0].facts
    assert facts["strength"] == 0 and facts["L1"] == 0 and facts["SSIM"] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("mode", MODES)
def test_other_strengths_change_it(edit: Edit, mode: str) -> None:
    picture = speckled((16, 16), low=60, high=190)
    settings = EditSettings(mode=mode, image=uri(picture), learn_from=5, **{**STRONG, "strip": 5})
    result = finished(edit, settings)
    assert len(result.pictures) == 5
    by_strength = {one.facts["strength"]: one for one in result.pictures}
    assert result.pictures[0].facts["strength"] == 1.0 and sorted(by_strength) == [0, 0.375, 0.75, 1, 1.5]
    assert by_strength[0].image.tobytes() == picture.tobytes()
    changed = [by_strength[one].facts["L1"] for one in sorted(by_strength)]
    assert changed[0] == 0 and min(changed[1:]) > 0.002
    assert len({one.image.tobytes() for one in result.pictures}) == 5
    if mode != "instant":
        assert changed == sorted(changed)
    assert result.pictures[0].score == result.pictures[0].facts["critic target"]
    assert all(one.score is None for one in result.pictures[1:])


def test_a_strip_draws_what_single_runs_draw(edit: Edit) -> None:
    """But for rounding: the strip is one batch."""
    fields: dict[str, Any] = {"image": uri(speckled((16, 16))), **STRONG}
    for mode in ("quick", "instant"):
        many = finished(edit, EditSettings(mode=mode, **{**fields, "strip": 5}))
        single = finished(edit, EditSettings(mode=mode, **fields))
        difference = to_tensor([first(many)]) - to_tensor([first(single)])
        if mode == "quick":
            assert difference.abs().max() < 2.5 / 127.5
        assert single.pictures[0].facts["updates" if mode == "quick" else "strength"] in (3, 1.0)


def test_negative_strengths_go_the_other_way(edit: Edit, saved: list[Path]) -> None:
    picture = smooth((16, 16))
    fields: dict[str, Any] = {"image": uri(picture), "directions": str(saved[0]), "steps": 3, "strip": 1}
    moved = [
        to_tensor([first(finished(edit, EditSettings(strength=one, **fields)))]) - to_tensor([picture])
        for one in (0.1, -0.1)
    ]
    assert min(one.abs().mean() for one in moved) > 0.01
    assert F.cosine_similarity(moved[0].flatten(), moved[1].flatten(), dim=0) < -0.3


@pytest.mark.parametrize(
    "fields",
    [
        {"mode": "quick", **STRONG},
        {"mode": "instant", "steps": 3, "strip": 1},
        {"directions": True, "steps": 3},
    ],
    ids=["quick", "instant", "direction"],
)
@pytest.mark.parametrize("size", [(16, 16), (45, 37)])
def test_outside_the_mask_no_pixel_changes(
    edit: Edit, saved: list[Path], fields: dict[str, Any], size: tuple[int, int]
) -> None:
    if "directions" in fields:
        fields = {**fields, "directions": f"{saved[0]}:1.5"}
    picture, mask = speckled(size), half(size)
    settings = EditSettings(image=uri(picture), mask=uri(mask), strength=1.5, **fields)
    inside = np.asarray(mask)[..., 0] > 0
    for one in finished(edit, settings).pictures:
        new, old = np.asarray(one.image), np.asarray(picture)
        assert (new[~inside] == old[~inside]).all()
        if one.facts["strength"] == 1.5:
            assert (new[inside] != old[inside]).mean() > 0.3


def test_outside_the_crop_no_pixel_changes(edit: Edit, saved: list[Path]) -> None:
    picture = speckled((50, 40))
    settings = EditSettings(image=uri(picture), crop="5,8,30x20", directions=str(saved[0]), steps=3, strip=1)
    new, old = np.array(first(finished(edit, settings))), np.asarray(picture)
    assert (new[8:28, 5:35] != old[8:28, 5:35]).mean() > 0.3
    new[8:28, 5:35] = old[8:28, 5:35]
    assert (new == old).all()


def test_an_automatic_mask_keeps_what_hardly_changes(edit: Edit, saved: list[Path]) -> None:
    picture = smooth((16, 16))
    fields: dict[str, Any] = {"image": uri(picture), "directions": f"{saved[0]}:0.3", "steps": 3, "strip": 1}
    plain = finished(edit, EditSettings(**fields))
    masked = finished(edit, EditSettings(**fields, automatic_mask=True))
    x = to_tensor([picture])
    moved, kept = (to_tensor([first(one)]) - x for one in (plain, masked))
    assert 0 < (kept == 0).all(1).float().mean() < 1
    assert (moved == 0).all(1).float().mean() < (kept == 0).all(1).float().mean()
    assert (kept.abs() <= moved.abs() + 1.5 / 127.5).all()


def test_directions_work_in_their_windows_and_by_their_strengths(edit: Edit, saved: list[Path]) -> None:
    one, other = map(str, saved)
    picture = smooth((16, 16))

    def drawn(directions: str, **fields: Any) -> bytes:
        settings = EditSettings(image=uri(picture), directions=directions, steps=6, strip=1, **fields)
        return first(finished(edit, settings)).tobytes()

    whole = drawn(one)
    assert whole != picture.tobytes()
    assert drawn(f"{one}@1000-400 | {other}:0") == picture.tobytes()  # begins at 400: nothing happens above
    assert drawn(f"{one}@400-0 | {other}:0") == whole
    parts = [drawn(f"{one}@400-200"), drawn(f"{one}@200-0"), drawn(f"{one}@400-200 | {other}@200-0")]
    assert len({*parts, whole, picture.tobytes()}) == 5
    assert drawn(f"{one}:0.5 | {other}:-0.5") != drawn(f"{one}:0.5 | {other}:0.5")
    assert drawn(f"{one}:0.5") == drawn(one, strength=0.5)  # strengths multiply


def test_a_direction_does_what_its_learning_did(edit: Edit, tmp_path: Path) -> None:
    """Learned, saved and applied again: the same picture, but for the texts."""
    journal = Journal(tmp_path / "run")
    settings = EditSettings(image=uri(speckled((16, 16))), **STRONG)
    learned = finished(edit, settings, journal)
    assert isinstance(learned.settings, EditSettings)
    direction = edit.direction(learned.settings, journal)
    direction.save(tmp_path / "a.safetensors")
    applied = finished(
        edit,
        EditSettings(image=settings.image, directions=str(tmp_path / "a.safetensors"), steps=3, strip=1),
    )
    assert pixels(applied) == pixels(learned)
    facts = direction.facts
    assert (facts["source"], facts["target"]) == (settings.source, settings.prompt)
    assert (facts["seed"], facts["rank"], facts["updates"]) == (settings.seed, settings.rank, 3)
    assert facts["return_step"] == learned.settings.return_step > 0
    assert facts["base"] == network_hash(edit.unet) and facts["clip"] in network_hash(edit.clip.image)
    assert set(facts["figures"]) == {"clip direction", "critic direction"}
    assert len(direction.to_bytes()) < 60_000
    for other in (
        EditSettings(mode="instant", image=settings.image, steps=3, strip=1),
        EditSettings(directions=str(tmp_path / "a.safetensors"), steps=3, strip=1),
    ):
        empty = Journal(tmp_path / f"none-{other.mode}")
        finished(edit, other, empty)
        with pytest.raises(BadInput, match="learned no direction"):
            edit.direction(other, empty)


def test_purifying_changes_what_is_edited_and_not_the_picture(edit: Edit, saved: list[Path]) -> None:
    picture = speckled((16, 16))
    settings = EditSettings(image=uri(picture), directions=str(saved[0]), steps=3, strip=2)
    plain, pure = finished(edit, settings), finished(edit, replace(settings, purify=2))
    assert pure.pictures[1].facts["strength"] == 0
    assert pure.pictures[1].image.tobytes() == picture.tobytes()
    assert first(pure).tobytes() not in (first(plain).tobytes(), picture.tobytes())
    steps = [one for one in run(edit, replace(settings, purify=2)) if isinstance(one, Step)]
    assert [one.done for one in steps if one.stage == "purify"] == [1, 2]


def test_figures_are_those_of_the_picture(edit: Edit) -> None:
    picture = speckled((16, 16))
    settings = EditSettings(image=uri(picture), **STRONG)
    result = finished(edit, settings)
    facts, (x, y) = result.pictures[0].facts, (to_tensor([one]) for one in (picture, first(result)))
    assert facts["L1"] == pytest.approx((x - y).abs().mean().item() / 2, abs=1e-4)
    for name, judge in (("clip", edit.clip), ("critic", edit.critic)):
        direction = text_direction(judge, settings.source, settings.prompt)
        cosine = directional_similarity(judge.encode_image(x), judge.encode_image(y), direction)
        assert facts[f"{name} direction"] == pytest.approx(cosine.item(), abs=1e-3)
    target = F.normalize(edit.critic.encode_text(ensemble(settings.prompt)).mean(0), dim=0)
    assert facts["critic target"] == pytest.approx((edit.critic.encode_image(y)[0] @ target).item(), abs=1e-3)
    assert facts["critic target before"] == pytest.approx(
        (edit.critic.encode_image(x)[0] @ target).item(), abs=1e-3
    )
    assert facts["updates"] == 3 and facts["return_step"] == result.settings.to_dict()["return_step"]


# ------------------------------------------------------------------------------------------------------------ journals

LONG: dict[str, Any] = {"steps": 3, "strip": 2, "updates": 7, "step_size": 0.02, "learn_from": 5}


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot every three updates, so that runs can be short."""
    monkeypatch.setattr("pipelines.core.journal.EVERY_STEPS", 3)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize(
    ("mode", "where"),
    [("quick", "on disk"), ("quick", "in memory"), ("reusable", "on disk"), ("paper", "on disk")],
)
def test_a_killed_learning_resumes_to_the_same_bits(
    mode: str, where: str, edit: Edit, tmp_path: Path
) -> None:
    settings = EditSettings(mode=mode, image=uri(speckled((16, 16))), **LONG)
    if mode == "paper":
        settings = replace(settings, chain=True, return_step=41, refine=0, learn_from=2)
    whole = finished(edit, settings)
    journal = Journal(tmp_path / "run" if where == "on disk" else None)
    killed_at(edit, settings, 5, journal)
    assert journal.steps()[0] == 3 and journal.facts(3) == journal.load(3).facts != {}
    if where == "on disk":
        journal = Journal(tmp_path / "run")
    resumed = finished(edit, settings, journal)
    assert pixels(resumed) == pixels(whole)
    assert resumed.pictures[0].facts == whole.pictures[0].facts


def test_stopping_the_learning_keeps_what_there_is(edit: Edit, tmp_path: Path) -> None:
    settings = EditSettings(image=uri(speckled((16, 16))), **LONG)
    journal = Journal(tmp_path / "run")
    kept = stopped_at(edit, settings, "learn", 4, journal)
    assert len(kept.pictures) == 2 and kept.pictures[0].facts["updates"] == 4
    assert journal.steps()[-1] == 4 and isinstance(kept.settings, EditSettings)
    assert edit.direction(kept.settings, journal).facts["updates"] == 4
    assert pixels(kept) == pixels(finished(edit, replace(settings, until=4)))
    assert pixels(finished(edit, settings, journal)) == pixels(finished(edit, settings))


def test_a_stopped_runs_settings_make_its_pictures_again(edit: Edit) -> None:
    kept = stopped_at(edit, EditSettings(image=uri(speckled((16, 16))), **LONG), "learn", 4)
    assert isinstance(kept.settings, EditSettings) and kept.settings.until == 4
    again = finished(edit, EditSettings.from_dict(json.loads(json.dumps(kept.settings.to_dict()))))
    assert pixels(again) == pixels(kept)


def test_stopping_the_drawing_keeps_what_was_learned(edit: Edit, tmp_path: Path) -> None:
    """`Resumable`: Stopped, thrown in at a yield, ends the run with the pictures there are."""
    settings, journal = EditSettings(image=uri(speckled((16, 16))), **QUICK), Journal(tmp_path / "run")
    kept = stopped_at(edit, settings, "draw", 1, journal)
    assert pixels(kept) == pixels(finished(edit, settings))


@pytest.mark.usefixtures("often")
def test_a_glimpse_shows_what_a_snapshot_had_learned(edit: Edit, tmp_path: Path) -> None:
    settings = edit.prepare(EditSettings(image=uri(speckled((30, 20))), **LONG))
    journal, early = Journal(tmp_path / "run"), Journal(tmp_path / "early")
    finished(edit, settings, journal)
    seen = {step: edit.glimpse(settings, journal, step) for step in (3, 7)}
    assert seen[3].size == (30, 20) and seen[3].tobytes() != seen[7].tobytes()
    finished(edit, replace(settings, until=3), early)
    learned = edit.direction(settings, early).to_uri()
    sketch = EditSettings(image=settings.image, directions=learned, refine=0, steps=3, strip=1)
    assert seen[3].tobytes() == first(finished(edit, sketch)).tobytes()


def test_a_journal_is_one_runs_only(edit: Edit, tmp_path: Path) -> None:
    settings = EditSettings(**QUICK)
    finished(edit, settings, Journal(tmp_path / "run"))
    with pytest.raises(BadInput, match="belongs to another run"):
        finished(edit, replace(settings, seed=1), Journal(tmp_path / "run"))
    other = tiny_edit()
    other.unet.network.conv_in.weight.data += 0.01
    assert other.fingerprint() != edit.fingerprint()
    with pytest.raises(BadInput, match="belongs to another run"):
        finished(other, settings, Journal(tmp_path / "run"))


# -------------------------------------------------------------------------------------------------- records and replay


def recorded(result: Result, folder: Path) -> tuple[EditSettings, bytes]:
    """Write the first picture: the settings in its record, and the file."""
    record = record_of(
        pipeline="edit", pack="tiny", device="cpu", models={}, settings=result.settings,
        picture=result.pictures[0], rank=1,
    )  # fmt: skip
    write_png(folder / "a.png", first(result), record)
    read = read_record(folder / "a.png")
    assert read == record
    return EditSettings.from_dict(read.settings), (folder / "a.png").read_bytes()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"mode": "instant"},
        {"mode": "paper", "return_step": 100, "updates": 1, "refine": 0},
        {"directions": True},
        {"mask": True, "crop": "2,3,20x12"},
        {"mode": "reusable", "lessons": True, "examples": True, "purify": 1, "automatic_mask": True},
    ],
    ids=str,
)
def test_a_record_is_enough_to_replay(
    edit: Edit, saved: list[Path], tmp_path: Path, fields: dict[str, Any]
) -> None:
    picture = speckled((30, 20))
    picture.save(tmp_path / "start.png")
    given = {
        "directions": f"{saved[0]}:0.7@900-100 | {saved[1]}:-0.33333333",
        "mask": uri(half((30, 20))),
        "lessons": " | ".join(uri(speckled((16, 16), seed)) for seed in (3, 4)),
        "examples": uri(speckled((16, 16), 5)),
    }
    fields = {name: given.get(name, value) if value is True else value for name, value in fields.items()}
    settings = EditSettings(**{**STRONG, "strip": 2, "image": str(tmp_path / "start.png"), **fields})
    result = finished(edit, settings)
    (tmp_path / "start.png").unlink()
    settings, _ = recorded(result, tmp_path)
    assert pixels(finished(edit, settings)) == pixels(result)


@pytest.mark.parametrize(
    "fields", [{"directions": "/etc/passwd"}, {"directions": "a:1 | /etc/passwd:0.5@900-0"}]
)
def test_a_strangers_record_cannot_name_directions(
    edit: Edit, tmp_path: Path, fields: dict[str, Any]
) -> None:
    refuse_as_record(edit, tmp_path, fields)


@pytest.mark.parametrize("name", ["image", "mask", "examples", "lessons"])
def test_a_strangers_record_cannot_name_pictures(edit: Edit, tmp_path: Path, name: str) -> None:
    refuse_as_record(edit, tmp_path, {name: "/etc/passwd"})


def refuse_as_record(edit: Edit, folder: Path, fields: dict[str, Any]) -> None:
    result = finished(edit, EditSettings(mode="instant", steps=2, strip=1))
    record = record_of(
        pipeline="edit", pack="tiny", device="cpu", models={}, settings=EditSettings(**fields),
        picture=result.pictures[0], rank=1,
    )  # fmt: skip
    write_png(folder / "a.png", first(result), record)
    with pytest.raises(BadInput, match="names a file"):
        read_record(folder / "a.png")


def secretive(path: Path) -> Path:
    """A picture that tells where it was taken, and by whom."""
    exif = Image.Exif()
    exif[0x010F] = "SECRETCAMERA"
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 29.0), 29: "SECRETPLACE"})
    extra: dict[str, Any] = {"xmp": b"<x>SECRETXMP</x>"}
    if path.suffix == ".png":
        from PIL.PngImagePlugin import PngInfo

        texts = PngInfo()
        texts.add_text("Author", "SECRETAUTHOR")
        extra = {"pnginfo": texts}
    elif path.suffix == ".jpg":
        extra["comment"] = b"SECRETCOMMENT"
    smooth((24, 16)).save(path, exif=exif, **extra)
    assert path.read_bytes().count(b"SECRET") >= 3
    return path


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_nothing_that_a_photo_tells_is_passed_on(edit: Edit, tmp_path: Path, name: str) -> None:
    path = str(secretive(tmp_path / name))
    fields: dict[str, Any] = {"image": path, "examples": path, "lessons": f"{path} | {path}", "mask": ""}
    result = finished(edit, EditSettings(mode="reusable", **{**STRONG, "updates": 1}, **fields))
    _, data = recorded(result, tmp_path)
    texts = [data]
    settings = result.settings.to_dict()
    for field in ("image", "examples", "lessons"):
        assert settings[field].startswith("data:image/png;base64,")
        texts += [base64.b64decode(one.split(",")[1]) for one in settings[field].split("|")]
    for text in texts:
        for mark in (b"SECRET", b"Exif", b"eXIf", b"GPS", path.encode()):
            assert mark not in text


# ------------------------------------------------------------------------------------------------- preparing, checking


def test_preparing_twice_is_preparing_once(edit: Edit, saved: list[Path]) -> None:
    picture = uri(speckled((30, 20)))
    for settings in (
        EditSettings(),
        EditSettings(image=picture, mask=uri(half((30, 20))), crop="0,0,20x20"),
        EditSettings(mode="paper", return_step=10),
        EditSettings(mode="reusable", lessons=f"{picture} | {picture}", examples=picture),
        EditSettings(image=picture, directions=f"{saved[0]}:0.5 | {saved[1]}:-1@500-100"),
    ):
        prepared = edit.prepare(settings)
        assert prepared.return_step > 0 and edit.prepare(prepared) == prepared


def test_without_a_picture_an_example_is_taken_that_fits_the_source(edit: Edit, saved: list[Path]) -> None:
    text = F.normalize(edit.clip.encode_text(ensemble("a cat")).mean(0), dim=0)
    fitting = edit.pictures.tensor(edit.pictures.nearest(edit.clip, text[None], 8))
    found = []
    for seed in (0, 1, 0):
        settings = EditSettings(source="a cat", seed=seed, strength=0.0, mode="instant", steps=2, strip=1)
        found.append(to_tensor([first(finished(edit, settings))]))
        assert any(torch.allclose(found[-1][0], one, atol=1e-6) for one in fitting)
    assert torch.equal(found[0], found[2]) and not torch.equal(found[0], found[1])


def test_directions_bring_their_texts(edit: Edit, saved: list[Path]) -> None:
    prepared = edit.prepare(EditSettings(directions=f"{saved[0]} | {saved[1]}"))
    assert (prepared.source, prepared.prompt) == ("a cat", "two cats")


def test_directions_propose_their_own_return_step(edit: Edit, saved: list[Path], tmp_path: Path) -> None:
    random_direction(edit.unet, return_step=650).save(tmp_path / "far.safetensors")
    far = str(tmp_path / "far.safetensors")
    assert edit.prepare(EditSettings(directions=str(saved[0]))).return_step == 400
    assert edit.prepare(EditSettings(directions=f"{saved[0]} | {far}")).return_step == 650
    assert edit.prepare(EditSettings(directions=far, return_step=123)).return_step == 123
    random_direction(tiny_unet(layer_count=2)).save(tmp_path / "odd.safetensors")
    with pytest.raises(BadInput, match="another base model"):
        edit.prepare(EditSettings(directions=str(tmp_path / "odd.safetensors")))


def test_texts_farther_apart_return_to_more_noise(edit: Edit, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for cosine in (0.95, 0.6, 0.2, -0.5):
        monkeypatch.setattr(edit, "_alike", lambda _, cosine=cosine: cosine)
        found.append(edit.prepare(EditSettings()).return_step)
    assert found == sorted(found) and found[0] < found[2] and found[0] >= 200 and found[-1] <= 700


def test_texts_that_clip_cannot_tell_apart_are_refused(edit: Edit, monkeypatch: pytest.MonkeyPatch) -> None:
    one = F.normalize(torch.ones(1, edit.clip.config.embedding_size), dim=1)
    monkeypatch.setattr(edit.clip, "encode_text", lambda texts: one.expand(len(texts), -1))
    for ask in (edit.prepare, edit.check, lambda settings: finished(edit, settings)):
        with pytest.raises(BadInput, match="CLIP cannot tell 'a face' from 'an angry face'") as refused:
            ask(EditSettings())
        assert "\n" not in str(refused.value)


def test_what_to_expect_is_told_before(edit: Edit, saved: list[Path]) -> None:
    plain = edit.check(EditSettings())
    assert plain.match is None and -1 <= plain.alike <= 1
    assert plain.seconds > 0 and plain.megabytes > 0 and plain.return_step > 0
    longer = edit.check(EditSettings(updates=2000))
    assert longer.seconds > 3 * edit.check(EditSettings(updates=40)).seconds
    picture = uri(speckled((30, 20)))
    for settings in (
        EditSettings(image=picture),
        EditSettings(image=picture, mode="instant"),
        EditSettings(image=picture, mode="paper"),
        EditSettings(image=picture, mode="reusable", examples=picture),
        EditSettings(image=picture, directions=str(saved[0])),
    ):
        outlook = edit.check(settings)
        assert outlook.match is not None and 0 <= outlook.match <= 1 and outlook.seconds > 0
        assert outlook.return_step == edit.prepare(settings).return_step
    assert torch.is_grad_enabled()


def test_the_match_is_a_rank_among_the_packs_pictures(edit: Edit) -> None:
    text = F.normalize(edit.clip.encode_text(ensemble("a face")).mean(0), dim=0)
    order = edit.pictures.nearest(edit.clip, text[None], 8)
    found = []
    for row in (order[0], order[4], order[-1]):
        outlook = edit.check(EditSettings(image=uri(to_pil(edit.pictures.tensor([row]))[0])))
        assert outlook.match is not None
        found.append(outlook.match)
        assert ("source does not describe it" in outlook.warnings) == (outlook.match < 0.8)
    assert found == [
        pytest.approx(7 / 8, abs=0.13),
        pytest.approx(3 / 8, abs=0.13),
        pytest.approx(0, abs=0.13),
    ]


def test_pictures_of_all_kinds_are_edited(edit: Edit, tmp_path: Path) -> None:
    clear = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    clear.paste((0, 0, 255, 255), (0, 0, 10, 20))
    clear.save(tmp_path / "clear.png")
    Image.fromarray((np.arange(400).reshape(20, 20) * 160).astype(np.uint16)).save(tmp_path / "grey16.png")
    Image.new("1", (20, 20), 1).save(tmp_path / "bits.png")
    Image.new("P", (20, 20), 3).save(tmp_path / "palette.png")
    Image.new("CMYK", (20, 20), (10, 200, 30, 0)).save(tmp_path / "print.jpg")
    for name in ("clear.png", "grey16.png", "bits.png", "palette.png", "print.jpg"):
        settings = EditSettings(mode="instant", image=str(tmp_path / name), steps=2, strip=1, strength=0.0)
        result = first(finished(edit, settings))
        assert result.mode == "RGB" and result.size == (20, 20)
        if name == "clear.png":
            assert result.getpixel((15, 5)) == (255, 255, 255) and result.getpixel((5, 5)) == (0, 0, 255)
        if name == "grey16.png":
            assert len(set(np.asarray(result)[..., 0].ravel())) > 100


def test_wrong_pictures_are_refused_in_one_sentence(edit: Edit, tmp_path: Path) -> None:
    picture, frames = speckled((30, 20)), [speckled((16, 16), seed) for seed in range(3)]
    frames[0].save(tmp_path / "moving.webp", save_all=True, append_images=frames[1:])
    (tmp_path / "text.png").write_text("no picture")
    Image.new("RGB", (30, 20)).save(tmp_path / "black.png")
    fields: dict[str, Any]
    for fields, words in (
        ({"image": str(tmp_path / "moving.webp")}, "has 3 frames"),
        ({"image": str(tmp_path / "text.png")}, "not a PNG, JPEG or WebP"),
        ({"image": str(tmp_path / "nowhere.png")}, "there is no picture"),
        ({"image": uri(picture), "mask": uri(half((20, 30)))}, "the mask is 20x30; it must be 30x20"),
        ({"image": uri(picture), "mask": str(tmp_path / "black.png")}, "black everywhere"),
        ({"mask": uri(half((30, 20)))}, "it must be 16x16"),  # an example's size
        ({"image": uri(picture), "crop": "20,0,11x20"}, "the crop ends at 31x20"),
        ({"image": uri(picture), "crop": "0,0,5x20"}, "the least is 8x8"),
        ({"image": uri(speckled((100, 4)))}, "the least is 8x8"),
        ({"examples": str(tmp_path / "nowhere.png")}, "there is no picture"),
        ({"directions": str(tmp_path / "text.png")}, "no safetensors file"),
        ({"lessons": "~nobody-here/pictures", "mode": "reusable"}, "nobody-here"),
    ):
        with pytest.raises(BadInput, match=words) as refused:
            edit.prepare(EditSettings(**fields))
        assert "\n" not in str(refused.value), fields


def test_a_picture_that_vanished_is_in_the_journal(edit: Edit, tmp_path: Path) -> None:
    path = tmp_path / "start.png"
    speckled((30, 20)).save(path)
    settings = EditSettings(image=str(path), **STRONG)
    whole = finished(edit, settings, Journal(tmp_path / "run"))
    path.unlink()
    with pytest.raises(BadInput, match="there is no picture"):
        finished(edit, settings)
    identity = Journal(tmp_path / "run").identity()
    assert identity is not None
    again = EditSettings.from_dict(identity["settings"])
    assert pixels(finished(edit, again, Journal(tmp_path / "run"))) == pixels(whole)


# ------------------------------------------------------------------------------------------------------ large pictures


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A little more than LARGE pixels."""
    path = tmp_path_factory.mktemp("large") / "large.png"
    assert LARGE < 1500 * 800
    smooth((1500, 800)).save(path)
    return path


def test_a_large_picture_is_edited_whole_and_recorded_small(
    edit: Edit, large: Path, saved: list[Path]
) -> None:
    mask = half((1500, 800))
    mask.save(large.parent / "mask.png")
    fields: dict[str, Any] = {"directions": str(saved[0]), "steps": 2, "strip": 2, "refine": 0}
    settings = EditSettings(
        image=str(large), mask=str(large.parent / "mask.png"), crop="300,100,1000x600", **fields
    )
    result = finished(edit, settings)
    new, old = np.asarray(first(result)), np.asarray(Image.open(large))
    assert first(result).size == (1500, 800)
    changed = (new != old).any(2)
    assert changed[100:700, 300:750].mean() > 0.3
    outside = np.ones_like(changed)
    outside[100:700, 300:750] = False
    assert not changed[outside].any()
    assert np.array_equal(np.asarray(result.pictures[1].image), old)  # strength 0
    assert result.pictures[0].facts["original"] == [1500, 800]
    assert isinstance(result.settings, EditSettings) and result.settings.image.startswith("data:image/png")
    kept = open_picture(result.settings.image)
    assert kept.width * kept.height <= LARGE and kept.width / kept.height == pytest.approx(1.875, abs=0.01)
    assert open_picture(result.settings.mask).size == kept.size
    box = result.settings.box()
    assert box is not None and [one / kept.width * 1500 for one in box] == pytest.approx(
        [300, 100, 1300, 700], abs=4
    )
    reduced = smooth((1500, 800)).resize(kept.size, Image.Resampling.BOX)
    assert np.abs(np.asarray(kept, np.int16) - np.asarray(reduced, np.int16)).max() <= 1
    again = first(finished(edit, result.settings))  # what the record gives: the same edit of the small copy
    small = first(result).resize(kept.size, Image.Resampling.BOX)
    assert np.abs(np.asarray(again, np.int16) - np.asarray(small, np.int16)).mean() < 2


def test_a_large_pictures_record_keeps_its_own_picture_when_purified(
    edit: Edit, large: Path, saved: list[Path]
) -> None:
    settings = EditSettings(image=str(large), purify=1, directions=str(saved[0]), steps=2, strip=1, refine=0)
    kept = finished(edit, settings).settings
    assert isinstance(kept, EditSettings)
    picture = open_picture(kept.image)
    assert picture.width / picture.height == pytest.approx(1.875, abs=0.01)


def test_a_large_pictures_record_can_be_run_whatever_the_crop(
    edit: Edit, saved: list[Path], tmp_path: Path
) -> None:
    smooth((3000, 1500)).save(tmp_path / "a.png")
    for crop in ("2992,1492,8x8", "0,0,8x8", "2500,0,500x1500"):
        settings = EditSettings(
            image=str(tmp_path / "a.png"), crop=crop, directions=str(saved[0]), steps=2, strip=1, refine=0
        )
        result = finished(edit, settings)
        assert isinstance(result.settings, EditSettings)
        edit.prepare(result.settings)


def test_a_large_picture_that_vanished_is_missed_in_one_sentence(
    edit: Edit, large: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(large.read_bytes())
    prepared = edit.prepare(EditSettings(image=str(path), mode="instant", steps=2, strip=1))
    path.unlink()
    with pytest.raises(BadInput, match="there is no picture"):
        list(edit(prepared))


def test_a_large_photo_given_as_its_bytes_leaves_no_place_in_the_record(edit: Edit, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8825)[1] = "N"  # GPS
    exif[0x010E] = "a secret place"
    file = io.BytesIO()
    speckled((1100, 1000)).save(file, "JPEG", exif=exif)
    source = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
    assert b"a secret place" in file.getvalue()
    result = finished(edit, EditSettings(image=source, mode="instant", strip=1, steps=2))
    kept = result.settings
    assert isinstance(kept, EditSettings) and result.pictures[0].image.size == (1100, 1000)
    assert b"a secret place" not in base64.b64decode(kept.image.partition(",")[2])
    assert open_picture(kept.image).width < 1100
