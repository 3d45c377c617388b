"""Optimize: the grammar, the views, the losses, the loop, the journal."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from pipelines.clip.cutouts import (
    POOLED,
    WIDE,
    close_views,
    colour_jitter,
    cutouts,
    homographies,
    sample_views,
    whole_view,
)
from pipelines.clip.ranking import great_circle
from pipelines.core.journal import Journal
from pipelines.core.pipeline import Result, Step, run
from pipelines.core.record import read_record, record_of, write_png
from pipelines.errors import BadInput, Stopped
from pipelines.generate.pipeline import GenerateSettings
from pipelines.io.images import open_picture, picture_to_uri
from pipelines.models import device
from pipelines.optimize.canvas import clamp_with_gradient, colourfulness, straight_through
from pipelines.optimize.pipeline import Optimize, restyle
from pipelines.optimize.prompts import (
    Target,
    check_targets,
    map_regions,
    parse_regions,
    parse_story,
    parse_target,
    parse_targets,
)
from pipelines.optimize.run import Painting, drifting
from pipelines.optimize.settings import OptimizeSettings
from tests.support.tiny import tiny_generate, tiny_optimize


@pytest.fixture(params=["float32", "bfloat16"])
def precision(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What "auto" is, both in turn, whatever this processor is good at. Every processor can bfloat16, if slowly."""
    monkeypatch.setattr(device, "bfloat16_pays", lambda _: request.param == "bfloat16")
    return request.param


in_both = pytest.mark.usefixtures("precision")


def finished(pipeline: Optimize, settings: OptimizeSettings, journal: Journal | None = None) -> Result:
    *_, result = run(pipeline, settings, journal)
    assert isinstance(result, Result)
    return result


def last(result: Result) -> Image.Image:
    return max(result.pictures, key=lambda one: one.facts["step"]).image


def speckled(size: tuple[int, int], seed: int = 0, mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(seed)
    channels = len(mode)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], channels), dtype=np.uint8), mode)


def saved(picture: Image.Image, path: Path) -> str:
    picture.save(path)
    return str(path)


# ------------------------------------------------------------------------------------------------------------ prompts


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("a castle", Target("a castle")),
        ("fog:0.5", Target("fog", 0.5)),
        ("blur:-0.3", Target("blur", -0.3)),
        ("c:1:0.7", Target("c", 1.0, 0.7)),
        ("cat: a drawing", Target("cat: a drawing")),
        ("cat: a drawing:2", Target("cat: a drawing", 2.0)),
        ("at 10:30", Target("at 10:30")),
        ("at 10:05", Target("at 10:05")),
        ("at 10:30:1", Target("at 10:30", 1.0)),
        (" spaced : .5 ", Target("spaced", 0.5)),
        (":0.5", Target(":0.5")),
        ("nan:nan", Target("nan:nan")),
        ("data:image/png;base64,AAAA:0.5", Target("data:image/png;base64,AAAA", 0.5)),
    ],
)
def test_a_weight_is_read_from_the_right(text: str, target: Target) -> None:
    assert parse_target(text) == target


def test_targets_scenes_and_regions() -> None:
    assert [one.text for one in parse_targets("a | b:0.5 || c:0")] == ["a", "b"]
    assert parse_story("a ^ b ^ c", 90) == [(0, "a"), (30, "b"), (60, "c")]
    assert parse_story("a | x:2 ^ b @80", 90) == [(0, "a | x:2"), (80, "b")]
    (region,) = parse_regions("a sun:2 @ top")
    assert (region.target, region.where) == (Target("a sun", 2.0), "top")
    assert map_regions("a sun:2 @ top | b @ m.png", str.upper) == "a sun:2 @ top | b:1 @ M.PNG"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"prompt": "a:-1 | b:-0.5"}, "no positive weight"),
        ({"prompt": "a:1 | b:-1"}, "sum to zero"),
        ({"prompt": "a ^ ^ b"}, "scene of the story is empty"),
        ({"prompt": "a @5 ^ b"}, "must begin at 0"),
        ({"prompt": "a ^ b @9 ^ c @9"}, "not after the one before"),
        ({"regions": "a sun"}, "says no place"),
        ({"size": "100by50"}, "not WIDTHxHEIGHT"),
        ({"palette": "red"}, "not a colour"),
        ({"noise_prompts": "x:1"}, "not a whole number"),
        ({"tokens": "1, 2"}, "tokens are not whole numbers"),
        ({"changes": "[]"}, "not a JSON object"),
        ({"changes": '{"0": {}}'}, "where a step from 1 on should be"),
        ({"changes": '{"5": {"seed": 1}}'}, "cannot change 'seed'"),
        ({"changes": '{"5": {"steps": 0}}'}, "too small"),
        ({"changes": '{"5": {"prompt": "a:-1"}}'}, "no positive weight"),
    ],
)
def test_wrong_settings_are_one_sentence(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words) as refused:
        OptimizeSettings(**settings)
    assert "\n" not in str(refused.value)


def test_check_targets_tells_what_to_do() -> None:
    with pytest.raises(BadInput, match="cat:1"):
        check_targets([Target("blur", -1.0)])


def test_changes_make_a_timeline() -> None:
    settings = (
        OptimizeSettings(prompt="a", steps=100).changed(40, prompt="b", cutouts=8).changed(60, steps=200)
    )
    assert [step for step, _ in settings.timeline()] == [0, 40, 60]
    assert [(one.prompt, one.cutouts, one.steps) for _, one in settings.timeline()] == [
        ("a", 16, 100),
        ("b", 8, 100),
        ("b", 8, 200),
    ]
    back = settings.changed(50, prompt="c")  # stepping back forgets what came later
    assert [(step, one.prompt, one.steps) for step, one in back.timeline()] == [
        (0, "a", 100),
        (40, "b", 100),
        (50, "c", 100),
    ]
    assert settings.changed(60) == settings
    assert OptimizeSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


# -------------------------------------------------------------------------------------------------- losses, gradients


def test_great_circle_is_half_the_squared_angle_with_a_finite_slope() -> None:
    vectors = F.normalize(
        torch.randn(64, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64), dim=1
    )
    a, b = vectors.chunk(2)
    assert torch.allclose(great_circle(a, b), torch.arccos((a * b).sum(1)) ** 2 / 2, atol=1e-6)
    one = torch.eye(4, dtype=torch.float64)
    assert great_circle(one[0], one[1]).item() == pytest.approx(math.pi**2 / 8)
    for other in (one[0], -one[0]):
        x = one[0].clone().requires_grad_()
        great_circle(x, other).backward()
        assert x.grad is not None and torch.isfinite(x.grad).all()
    x = a[:1].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: great_circle(x, b[:1]), (x,), atol=1e-5)


def test_the_clamp_lets_gradients_lead_back_only() -> None:
    x = torch.tensor([-2.0, -2.0, 0.5, 0.5, 2.0, 2.0], requires_grad=True)
    y = clamp_with_gradient(x, -1.0, 1.0)
    assert y.tolist() == [-1, -1, 0.5, 0.5, 1, 1]
    y.backward(torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0]))  # descent moves against the gradient
    assert x.grad is not None and x.grad.tolist() == [0, -1, 1, -1, 1, 0]


def test_straight_through_gives_codes_and_the_gradient_as_it_came() -> None:
    vqgan = tiny_optimize().vqgan
    z = torch.randn(1, 4, 3, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    codes = straight_through(z, vqgan)
    flat = z.detach().permute(0, 2, 3, 1).reshape(-1, 4)
    nearest = torch.cdist(flat, vqgan.codes).argmin(1)
    assert torch.equal(vqgan.nearest(z.detach()).flatten(), nearest)
    assert torch.allclose(codes, vqgan.embed(nearest.view(1, 3, 5)), atol=1e-6)
    upstream = torch.randn_like(codes)
    codes.backward(upstream)
    assert z.grad is not None and torch.equal(z.grad, upstream)


def test_colourfulness_knows_grey() -> None:
    grey = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)).expand(1, 3, 8, 8)
    colours = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert colourfulness(grey).item() < 1e-3 < 0.1 < colourfulness(colours).item()


# ------------------------------------------------------------------------------------------------------------- views


@pytest.mark.parametrize("scheme", ["mixed", "pooled", "original"])
def test_cutouts_come_from_the_generator_alone(scheme: str) -> None:
    canvas = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    first = cutouts(canvas, 9, 16, torch.Generator().manual_seed(7), scheme)
    torch.rand(3)
    again = cutouts(canvas, 9, 16, torch.Generator().manual_seed(7), scheme)
    other = cutouts(canvas, 9, 16, torch.Generator().manual_seed(8), scheme)
    assert first.shape == (9, 3, 16, 16) and torch.equal(first, again) and not torch.equal(first, other)
    first.square().sum().backward()
    assert canvas.grad is not None and canvas.grad.abs().sum() > 0


def test_the_identity_view_is_the_canvas() -> None:
    canvas = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(sample_views(canvas, torch.eye(3)[None], 16, "border")[0], canvas[0], atol=1e-5)


def test_close_views_lie_inside_and_wide_ones_see_all() -> None:
    corners = torch.tensor([[x, y, 1.0] for x in (-1, 1) for y in (-1, 1)])
    centre = torch.tensor([[0.0, 0.0, 1.0]])
    generator = torch.Generator().manual_seed(0)
    plain = close_views(0.5)
    still = type(plain)(plain.sides, plain.of, plain.stray)
    seen = corners @ homographies(still, 200, 40, 80, generator).transpose(1, 2)
    assert seen[..., :2].abs().max() <= 1 + 1e-5
    wide = type(WIDE)(WIDE.sides, WIDE.of, WIDE.stray)
    seen = corners @ homographies(wide, 200, 40, 80, generator).transpose(1, 2)
    assert seen[..., 0].abs().min() >= 0.9 and seen[..., 1].abs().min() >= 1.9
    turned = homographies(POOLED, 200, 16, 16, generator)
    assert (centre @ turned.transpose(1, 2))[..., :2].abs().max() <= 0.11


def test_colour_jitter_keeps_grey_grey() -> None:
    matrix, bias = colour_jitter(50, 0.2, torch.Generator().manual_seed(0))
    grey = torch.einsum("nij,j->ni", matrix, torch.tensor([0.3, 0.3, 0.3])) + bias
    assert torch.allclose(grey, grey[:, :1].expand(-1, 3), atol=1e-5)


def test_the_whole_view_squashes_nothing() -> None:
    canvas = torch.zeros(1, 3, 16, 32)
    canvas[..., 8:24] = 1  # a square in the middle
    view = whole_view(canvas, 16)
    assert view.shape == (1, 3, 16, 16)
    assert view[0, 0, 8].sum().item() == pytest.approx(8, abs=0.1)  # half as wide as the view
    assert view[0, 0, :, 8].sum().item() == pytest.approx(16, abs=0.1)  # its edges fill the rest


# --------------------------------------------------------------------------------------------------------------- runs


def begun(pipeline: Optimize, **fields: Any) -> Painting:
    painting = Painting(pipeline.vqgan, pipeline.clip, pipeline.critic, OptimizeSettings(**fields))
    with torch.no_grad():
        painting.begin()
    return painting


@in_both
def test_the_loss_falls_and_z_stays_in_the_codebook() -> None:
    pipeline = tiny_optimize()
    painting = begun(
        pipeline, steps=60, cutouts=32, closest=0.9, pull=0.0
    )  # views alike: little chance in the loss
    losses = []
    with torch.no_grad():
        for _ in range(60):
            assert painting.advance() == ""
            losses.append(painting.loss)
    assert np.mean(losses[-8:]) < np.mean(losses[:8]) - 0.04
    z = painting.state.z
    assert (z >= painting.low).all() and (z <= painting.high).all()


@in_both
def test_weights_stops_and_signs_reach_the_gradient() -> None:
    pipeline = tiny_optimize()

    def gradient(**fields: Any) -> torch.Tensor:
        painting = begun(pipeline, **{"cutouts": 6, "start": "white", "pull": 0.0, **fields})
        generator = torch.Generator().manual_seed(0)
        return painting._gradient(painting.now, generator)[1]

    red, far = gradient(prompt="a red heart"), gradient(prompt="green apple")
    mixed = gradient(prompt="a red heart:1 | green apple:-0.5")
    expected = (red - 0.5 * far) / 1.5  # but for what the one-sided clamps let through
    assert F.cosine_similarity(mixed.flatten(), expected.flatten(), dim=0) > 0.98
    assert mixed.norm().item() == pytest.approx(expected.norm().item(), rel=0.05)
    assert torch.allclose(gradient(prompt="a red heart | green apple:0"), red)
    assert gradient(prompt="a red heart:1:5").abs().max() == 0  # already nearer than 5
    assert torch.allclose(gradient(prompt="a red heart:1:0.0"), red)


def test_a_region_moves_only_its_part() -> None:
    pipeline = tiny_optimize()
    painting = begun(pipeline, regions="green apple @ left", size="64x32")
    picture = torch.rand(1, 3, 32, 64, requires_grad=True)
    from pipelines.optimize.canvas import only_inside, side_region

    part = only_inside(picture, side_region("left", (32, 64)))
    assert part.shape == (1, 3, 32, 32)
    part.square().sum().backward()
    assert picture.grad is not None
    assert picture.grad[..., :32].abs().min() > 0 and picture.grad[..., 32:].abs().max() == 0
    with torch.no_grad():
        assert painting.advance() == ""


def test_each_of_several_regions_is_pulled_by_its_own_text() -> None:
    pipeline = tiny_optimize()
    both = "green apple @ left | red heart @ right"
    gradients = []
    for regions in ("green apple @ left", both, "green apple @ left | green apple @ right"):
        painting = begun(pipeline, regions=regions, size="64x32", cutouts=4)
        gradients.append(painting._gradient(painting.now, torch.Generator().manual_seed(0))[1])
    one, two, other = gradients
    assert not torch.allclose(one, two) and not torch.allclose(two, other)


@in_both
def test_every_option_runs() -> None:
    pipeline = tiny_optimize()
    picture = picture_to_uri(speckled((32, 32)))
    for fields in (
        {"start": "noise"},
        {"start": "gradient"},
        {"init": picture, "pull": 0.5, "average": 0.8},
        {"image_prompts": f"{picture}:0.5", "noise_prompts": "7:0.3"},
        {"optimizer": "adamw", "scheme": "pooled", "cutouts": 2, "cutouts_end": 5},
        {"optimizer": "radam", "scheme": "original"},
        {"optimizer": "adagrad", "smooth": 1.0, "colour": 1.0, "palette": "#ff0000 #00ff00", "symmetry": 1.0},
        {"tile": True},
        {"coarse": 2, "size": "48x80", "steps": 9},
        {"animate": 2, "zoom": 1.1, "pan_x": 3, "rotate": 5, "steps": 7},
        {"prompt": "a red heart ^ green apple:1 | two cats:0.2 @3"},
    ):
        result = finished(pipeline, OptimizeSettings(**{"steps": 5, "cutouts": 4, **fields}))
        assert result.pictures[0].facts["steps"] == fields.get("steps", 5), fields


@in_both
def test_the_pull_keeps_the_start_picture() -> None:
    pipeline = tiny_optimize()
    tokens = " ".join(str(7 * k % 32) for k in range(16))

    def distance(pull: float) -> float:
        painting = begun(pipeline, tokens=tokens, steps=30, step_size=0.3, pull=pull)
        with torch.no_grad():
            for _ in range(30):
                painting.advance()
        assert painting.home is not None
        return (painting.draw() - painting.home).square().mean().item()

    assert distance(10.0) < 0.5 * distance(0.0)


def test_where_a_run_begins_and_what_pulls(precision: str) -> None:
    pipeline = tiny_optimize()
    sheet = torch.ones(1, 3, 32, 32)
    white, splash = begun(pipeline, start="white"), begun(pipeline)
    assert torch.equal(white.state.z, pipeline.vqgan.encode(sheet))
    same = (splash.state.z == white.state.z).all(1)[0]
    assert same.sum() == 12 and not same[1:3, 1:3].any()  # random codes in the middle only
    for one in (white, splash):
        assert one.home is not None and torch.equal(one.home, sheet)
    tokens = torch.full((1, 4, 4), 7)
    draft = begun(pipeline, tokens=" ".join(["7"] * 16))
    assert draft.home is not None and torch.equal(draft.home, draft.render(tokens))
    exact = pipeline.vqgan.pictures_of(tokens).clamp(-1, 1)
    assert torch.allclose(draft.home, exact, atol=1e-5 if precision == "float32" else 0.03)
    for start in ("codes", "noise", "gradient"):
        assert begun(pipeline, start=start).home is None
    masked = begun(pipeline, mask=picture_to_uri(Image.new("L", (32, 32), 255)))
    assert masked.state.base is not None and torch.equal(masked.state.base, sheet)


@in_both
@pytest.mark.parametrize("start", ["splash", "codes", "noise", "gradient"])
def test_clip_picks_the_nearest_of_the_starts_that_chance_makes(
    start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = tiny_optimize()

    def distance(count: int) -> float:
        monkeypatch.setattr("pipelines.optimize.run.STARTS", count)
        painting = begun(pipeline, start=start, prompt="a dog | a cat:0.5")
        return painting._scores(painting._picture(painting.state.z))[0]

    assert distance(32) > distance(1)


def test_seamless_pictures_meet_themselves() -> None:
    pipeline = tiny_optimize()
    tokens = torch.randint(32, (1, 4, 4), generator=torch.Generator().manual_seed(0))
    twin = pipeline.vqgan.seamless()
    assert twin.codes is pipeline.vqgan.codes
    shifted = twin.pictures_of(tokens.roll(1, 2))
    assert torch.allclose(twin.pictures_of(tokens).roll(8, 3), shifted, atol=1e-4)
    plain = pipeline.vqgan
    assert not torch.allclose(
        plain.pictures_of(tokens).roll(8, 3), plain.pictures_of(tokens.roll(1, 2)), atol=1e-2
    )


def test_sizes_follow_the_picture_or_the_wish() -> None:
    pipeline = tiny_optimize()
    assert last(finished(pipeline, OptimizeSettings(steps=2, size="48x32"))).size == (48, 32)
    odd = picture_to_uri(speckled((45, 37)))
    assert last(finished(pipeline, OptimizeSettings(steps=2, init=odd))).size == (45, 37)
    assert last(finished(pipeline, OptimizeSettings(steps=2, init=odd, size="32x32"))).size == (32, 32)
    for size, words in (
        ("50x32", "width 50 is not a multiple of 8.*try 48"),
        ("8x32", "try 16"),
        ("8000x800", "the most is"),
    ):
        with pytest.raises(BadInput, match=words):
            finished(pipeline, OptimizeSettings(steps=2, size=size))


# --------------------------------------------------------------------------------------------------------------- masks


def half(size: tuple[int, int]) -> Image.Image:
    mask = Image.new("L", size, 0)
    mask.paste(255, (0, 0, size[0] // 2, size[1]))
    return mask


@in_both
def test_outside_the_mask_no_pixel_changes() -> None:
    pipeline = tiny_optimize()
    start = speckled((45, 37))
    mask = half(start.size)
    settings = OptimizeSettings(
        steps=12, step_size=0.5, init=picture_to_uri(start), mask=picture_to_uri(mask.convert("RGB"))
    )
    steps = list(run(pipeline, settings))
    result = steps[-1]
    assert isinstance(result, Result)
    inside = np.asarray(mask) > 0
    for picture in result.pictures:
        new, old = np.asarray(picture.image), np.asarray(start)
        assert (new[~inside] == old[~inside]).all()
        assert (new[inside] != old[inside]).mean() > 0.5


@in_both
def test_a_mask_painted_in_mid_run_keeps_what_was_there() -> None:
    pipeline = tiny_optimize()
    plain = OptimizeSettings(steps=6, step_size=0.5)
    there = np.asarray(last(finished(pipeline, plain)))
    masked = OptimizeSettings(steps=12, step_size=0.5).changed(
        6, mask=picture_to_uri(half((32, 32)).convert("RGB"))
    )
    end = np.asarray(last(finished(pipeline, masked)))
    inside = np.asarray(half((32, 32))) > 0
    assert (end[~inside] == there[~inside]).all() and (end[inside] != there[inside]).any()


def test_painted_masks_are_read_by_their_alpha(tmp_path: Path) -> None:
    pipeline = tiny_optimize()
    painted = Image.new("RGBA", (32, 32), (255, 0, 0, 0))
    painted.paste((255, 0, 0, 255), (0, 0, 16, 32))
    settings = OptimizeSettings(mask=saved(painted, tmp_path / "m.png"), steps=1)
    prepared = pipeline.prepare(settings)
    assert np.array_equal(np.asarray(open_picture(prepared.mask).convert("L")), np.asarray(half((32, 32))))


def test_wrong_masks_are_refused(tmp_path: Path) -> None:
    pipeline = tiny_optimize()
    for mask, words in (
        (Image.new("L", (20, 32), 255), "the mask is 20x32; it must be 32x32"),
        (Image.new("L", (32, 32), 0), "black everywhere"),
    ):
        with pytest.raises(BadInput, match=words):
            pipeline.prepare(OptimizeSettings(mask=saved(mask, tmp_path / "m.png")))
    with pytest.raises(BadInput, match="mask and animate"):
        OptimizeSettings(mask="m.png", animate=5)


# ------------------------------------------------------------------------------------------------------------- drafts


@in_both
def test_a_draft_goes_on_from_its_own_tokens(tmp_path: Path) -> None:
    generate, pipeline = tiny_generate(), tiny_optimize()
    *_, drawn = run(generate, GenerateSettings(candidates=2, keep=1))
    assert isinstance(drawn, Result)
    picture = drawn.pictures[0]
    record = record_of(
        pipeline="generate",
        pack="tiny",
        device="cpu",
        models={},
        settings=drawn.settings,
        picture=picture,
        rank=1,
    )
    write_png(tmp_path / "draft.png", picture.image, record)
    prepared = pipeline.prepare(OptimizeSettings(init=str(tmp_path / "draft.png")))
    assert [int(one) for one in prepared.tokens.split()] == picture.facts["tokens"]
    assert pipeline.prepare(prepared) == prepared
    painting = Painting(pipeline.vqgan, pipeline.clip, pipeline.critic, prepared)
    painting.begin()
    assert painting.state.z.equal(pipeline.vqgan.embed(torch.tensor(picture.facts["tokens"]).view(1, 4, 4)))
    liar = Image.new("RGB", picture.image.size, "white")  # the record of another picture
    write_png(tmp_path / "liar.png", liar, record)
    assert pipeline.prepare(OptimizeSettings(init=str(tmp_path / "liar.png"))).tokens == ""


def test_tokens_that_do_not_fit_are_refused() -> None:
    pipeline = tiny_optimize()
    with pytest.raises(BadInput, match="a canvas of 32x32 has 16"):
        pipeline.prepare(OptimizeSettings(tokens="1 2 3"))
    with pytest.raises(BadInput, match="the largest is 31"):
        pipeline.prepare(OptimizeSettings(tokens=" ".join(["32"] * 16)))


@in_both
def test_restyling_pulls_to_the_frame_and_starts_from_the_last_result() -> None:
    pipeline = tiny_optimize()
    frames = [speckled((32, 32), seed) for seed in range(2)]
    settings = OptimizeSettings(steps=3)
    first = finished(pipeline, restyle(settings, frames[0], None))
    following = restyle(settings, frames[1], first.pictures[-1])
    assert following.init == picture_to_uri(frames[1]) and following.tokens.split() == [
        str(k) for k in first.pictures[-1].facts["tokens"]
    ]
    assert last(finished(pipeline, following)).size == (32, 32)


# ------------------------------------------------------------------------------------------------------------ journals

COURSES: dict[str, dict[str, Any]] = {
    "plain": {},
    "radam, average": {"optimizer": "radam", "average": 0.7},
    "coarse": {"coarse": 1},
    "moving": {"animate": 7},
    "story": {"prompt": "a red heart ^ green apple @13"},
    "mask in mid-run": {
        "changes": json.dumps({"9": {"mask": picture_to_uri(half((32, 32)).convert("RGB"))}})
    },
}


@in_both
@pytest.mark.parametrize("fields", COURSES.values(), ids=COURSES.keys())
def test_a_killed_run_resumes_to_the_same_bits(fields: dict[str, Any], tmp_path: Path) -> None:
    settings = OptimizeSettings(**{"steps": 30, "cutouts": 4, **fields})
    whole = finished(tiny_optimize(), settings)
    events = run(tiny_optimize(), settings, Journal(tmp_path / "run"))
    for event in events:
        if isinstance(event, Step) and event.done == 24:
            break
    events.close()  # as good as killed: nothing is written any more
    journal = Journal(tmp_path / "run")
    assert journal.steps()[-1] >= 24 - 10
    resumed = finished(tiny_optimize(), settings, journal)
    assert [one.image.tobytes() for one in resumed.pictures] == [
        one.image.tobytes() for one in whole.pictures
    ]
    assert [one.score for one in resumed.pictures] == [one.score for one in whole.pictures]
    assert resumed.pictures[0].facts == whole.pictures[0].facts


@in_both
def test_stopping_keeps_the_picture_and_its_settings_remake_it(tmp_path: Path) -> None:
    settings = OptimizeSettings(steps=30, cutouts=4)
    events = run(tiny_optimize(), settings, Journal(tmp_path / "run"))
    for event in events:
        if isinstance(event, Step) and event.done == 17:
            break
    kept = events.throw(Stopped())
    assert (
        isinstance(kept, Result) and isinstance(kept.settings, OptimizeSettings) and kept.settings.until == 17
    )
    assert last(kept).tobytes() == last(finished(tiny_optimize(), kept.settings)).tobytes()
    assert Journal(tmp_path / "run").steps()[-1] == 17
    resumed = finished(tiny_optimize(), settings, Journal(tmp_path / "run"))
    assert last(resumed).tobytes() == last(finished(tiny_optimize(), settings)).tobytes()


@pytest.mark.parametrize("stop", [3, 10, 17])
def test_a_stopped_run_has_a_whole_film(stop: int, tmp_path: Path) -> None:
    pipeline, journal = tiny_optimize(), Journal(tmp_path / "run")
    settings = OptimizeSettings(steps=30, cutouts=2)
    events = run(pipeline, settings, journal)
    for event in events:
        if isinstance(event, Step) and event.done == stop:
            break
    events.throw(Stopped())
    assert pipeline.film(settings, journal).count == stop
    finished(pipeline, settings, Journal(tmp_path / "run"))
    assert len(list(pipeline.film(settings, journal).frames)) == 30


@in_both
def test_a_fork_is_the_run_with_its_changes(tmp_path: Path) -> None:
    pipeline = tiny_optimize()
    settings = OptimizeSettings(steps=20, cutouts=4)
    finished(pipeline, settings, Journal(tmp_path / "run"))
    changed = settings.changed(10, prompt="green apple | two cats:0.3", steps=25)
    fork = Journal(tmp_path / "run").fork(tmp_path / "fork", 10)
    assert fork.steps() == [10]
    forked = finished(pipeline, changed, fork)
    assert last(forked).tobytes() == last(finished(pipeline, changed)).tobytes()
    assert forked.pictures[0].facts["steps"] == 25
    with pytest.raises(BadInput, match="no snapshot"):
        Journal(tmp_path / "run").fork(tmp_path / "other", 11)


def test_a_journal_is_one_runs_only(tmp_path: Path) -> None:
    finished(tiny_optimize(), OptimizeSettings(steps=2, cutouts=2), Journal(tmp_path / "run"))
    with pytest.raises(BadInput, match="belongs to another run"):
        finished(tiny_optimize(), OptimizeSettings(steps=2, cutouts=3), Journal(tmp_path / "run"))
    (tmp_path / "run" / "run.json").write_text("{")
    with pytest.raises(BadInput, match="damaged"):
        finished(tiny_optimize(), OptimizeSettings(steps=2, cutouts=2), Journal(tmp_path / "run"))


def test_a_vanished_start_picture_is_inside_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "start.png"
    settings = OptimizeSettings(steps=12, cutouts=2, init=saved(speckled((32, 32)), path))
    whole = finished(tiny_optimize(), settings, Journal(tmp_path / "run"))
    path.unlink()
    identity = Journal(tmp_path / "run").identity()
    assert identity is not None
    again = OptimizeSettings.from_dict(identity["settings"])
    assert (
        last(finished(tiny_optimize(), again, Journal(tmp_path / "run"))).tobytes() == last(whole).tobytes()
    )


def test_numbers_that_break_down_end_the_run_with_the_last_good_picture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipeline = tiny_optimize()
    good = last(finished(pipeline, OptimizeSettings(steps=7, cutouts=2)))
    step_before = Painting._gradient

    def broken(self: Painting, *arguments: Any) -> Any:
        loss, gradient, picture = step_before(self, *arguments)
        return (loss * math.nan if self.state.step == 7 else loss), gradient, picture

    monkeypatch.setattr(Painting, "_gradient", broken)
    result = finished(pipeline, OptimizeSettings(steps=20, cutouts=2))
    assert last(result).tobytes() == good.tobytes()
    assert "the loss became nan at step 8" in result.pictures[0].facts["ended"]
    assert isinstance(result.settings, OptimizeSettings) and result.settings.until == 7


@in_both
def test_the_film_shows_every_step(tmp_path: Path) -> None:
    pipeline = tiny_optimize()
    settings = pipeline.prepare(OptimizeSettings(steps=14, cutouts=2, prompt="a red heart ^ green apple @6"))
    journal = Journal(tmp_path / "run")
    seen = []
    for event in run(pipeline, settings, journal):
        if isinstance(event, Step):
            seen += [one.tobytes() for one in event.preview()]
    film = pipeline.film(settings, journal)
    frames = list(film.frames)
    assert film.count == len(frames) == 14 and film.scenes == ["a red heart", "green apple"]
    assert [one.scene for one in frames] == [0] * 6 + [1] * 8
    assert [one.image.tobytes() for one in frames] == seen
    assert pipeline.glimpse(settings, journal, 10).tobytes() == seen[10]
    moving = pipeline.prepare(OptimizeSettings(steps=14, cutouts=2, animate=4))
    finished(pipeline, moving, Journal(tmp_path / "moving"))
    assert pipeline.film(moving, Journal(tmp_path / "moving")).count == 3


# -------------------------------------------------------------------------------------------------------------- scores


@in_both
def test_the_critics_best_step_comes_first() -> None:
    pipeline = tiny_optimize()
    result = finished(pipeline, OptimizeSettings(steps=40, step_size=0.4))
    curve = result.pictures[0].facts["curve"]
    assert result.pictures[0].score == pytest.approx(max(critic for _, _, critic in curve), abs=1e-4)
    assert {step for step, _, _ in curve} == {*range(0, 40, 5), 40}


def test_the_critic_gives_no_gradient() -> None:
    pipeline, other = tiny_optimize(), tiny_optimize()
    for parameter in other.critic.parameters():
        parameter.data.mul_(-1.7)
    settings = OptimizeSettings(steps=12, cutouts=3)
    assert last(finished(pipeline, settings)).tobytes() == last(finished(other, settings)).tobytes()


def test_drift_is_clip_up_and_critic_down() -> None:
    up, down = np.linspace(0.1, 0.3, 10), np.linspace(0.3, 0.2, 10)

    def curve(clip: Any, critic: Any) -> list[tuple[int, float, float]]:
        return [(5 * k, float(a), float(b)) for k, (a, b) in enumerate(zip(clip, critic, strict=True))]

    assert drifting(curve(up, down))
    assert (
        not drifting(curve(up, up)) and not drifting(curve(down, down)) and not drifting(curve(up, down)[:5])
    )


def test_a_strangers_record_cannot_name_files(tmp_path: Path) -> None:
    result = finished(tiny_optimize(), OptimizeSettings(steps=1, cutouts=1))
    for fields in (
        {"image_prompts": "/etc/passwd:0.5"},
        {"regions": "a @ /etc/passwd"},
        {"changes": '{"5": {"mask": "/etc/passwd"}}'},
        {"init": "/etc/passwd"},
    ):
        record = record_of(
            pipeline="optimize",
            pack="tiny",
            device="cpu",
            models={},
            settings=OptimizeSettings(**fields),
            picture=result.pictures[0],
            rank=1,
        )
        write_png(tmp_path / "a.png", result.pictures[0].image, record)
        with pytest.raises(BadInput, match="names a file"):
            read_record(tmp_path / "a.png")
