"""The tiny pack as it is shipped: complete, small, with its story inside, and able to draw."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.benchmarks.candidates import bench_diffuse, bench_generate
from pipelines.core.execute import run
from pipelines.core.pipeline import Result
from pipelines.core.record import read_record
from pipelines.diffuse.pipeline import Diffuse
from pipelines.diffuse.settings import DiffuseSettings
from pipelines.edit.settings import EditSettings
from pipelines.generate.pipeline import Generate
from pipelines.generate.settings import GenerateSettings
from pipelines.io.images import open_picture, ssim, to_tensor
from pipelines.models.checkpoint import read_header
from pipelines.models.prior.diffusion import PriorDiffusion
from pipelines.optimize.settings import OptimizeSettings
from pipelines.studio import PIPELINES, Studio
from pipelines.weights.catalog import ASSETS, CHECKPOINTS
from pipelines.weights.manifest import MANIFEST, check_pack, entries

EXAMPLES = sorted((ASSETS / "examples").glob("[0-9]*.png"))


@pytest.fixture(scope="module")
def generate() -> Generate:
    pipeline = Studio("tiny", "cpu").pipeline("generate")
    assert isinstance(pipeline, Generate)
    return pipeline


def test_everything_is_there_and_small() -> None:
    tiny = [one for one in CHECKPOINTS.values() if one.pack == "tiny"]
    assert len(tiny) == 10 and all(one.present for one in tiny)
    assert sum(one.size for one in tiny) <= 90_000_000
    assert {file.suffix for file in (ASSETS / "tiny").iterdir()} <= {".safetensors", ".json", ".txt", ".md"}


def test_the_manifest_is_of_these_files_and_all_are_checked_in_a_second() -> None:
    """After a file was replaced: python launch.py models seal."""
    folder = ASSETS / "tiny"
    sealed = {path.name for path in folder.iterdir()} - {"README.md", MANIFEST}
    assert entries(folder).keys() == sealed
    begun = time.process_time()
    check_pack([CHECKPOINTS["tiny-clip"].path])
    assert time.process_time() - begun < 1


@pytest.mark.parametrize("name", ["clip", "critic", "vqgan", "codec", "dalle", "prior", "matting"])
def test_weights_tell_how_they_came_to_be(name: str) -> None:
    _, facts = read_header(CHECKPOINTS[f"tiny-{name}"].path)
    assert {"steps", "samples", "seconds", "hardware", "data", "seed", "figures", "licence"} <= set(facts)


def test_the_vqgan_keeps_pictures(generate: Generate) -> None:
    for path in EXAMPLES:
        picture = to_tensor([open_picture(path)])
        again = generate.vqgan.decode_tokens(generate.vqgan.encode_tokens(picture)).clamp(-1, 1)
        assert (picture - again).square().mean() / 4 < 10 ** (-15 / 10)  # 15 dB


def test_clip_finds_the_prompt_of_each_example(generate: Generate) -> None:
    """Each example's own prompt is among the first three of all examples' prompts, for most of them."""
    prompts = [read_record(path, PIPELINES).settings["prompt"] for path in EXAMPLES]
    assert len(prompts) >= 8
    images = generate.clip.encode_image(to_tensor([open_picture(path) for path in EXAMPLES]))
    order = (images @ generate.clip.encode_text(prompts).T).argsort(1, descending=True)[:, :3]
    found = [k in row for k, row in enumerate(order.tolist())]
    assert np.mean(found) >= 0.75


def test_a_run_draws_and_ranks(generate: Generate) -> None:
    *_, result = run(generate, GenerateSettings(prompt="a red heart", candidates=16, keep=16))
    assert isinstance(result, Result)
    pixels = to_tensor([picture.image for picture in result.pictures])
    assert pixels.shape == (16, 3, 128, 128)
    assert pixels.std() > 0.2  # not blank
    redness = pixels[:, 0] - pixels[:, 1:].mean(1)
    assert redness[:4].mean() > 0.05  # and the best have red in them
    assert torch.isfinite(torch.tensor([picture.score for picture in result.pictures])).all()


def test_diffuse_draws_and_ranks() -> None:
    pipeline = Studio("tiny", "cpu").pipeline("diffuse")
    *_, result = run(pipeline, DiffuseSettings(prompt="a red heart", candidates=4, steps=6))
    assert isinstance(result, Result)
    pixels = to_tensor([picture.image for picture in result.pictures])
    assert pixels.shape == (4, 3, 128, 128) and pixels.std() > 0.2
    assert (pixels[:, 0] - pixels[:, 1:].mean(1)).mean() > 0.05  # there is red in them


@pytest.fixture
def diffuse(monkeypatch: pytest.MonkeyPatch) -> Diffuse:
    """Draws one picture at a time, for speed."""
    monkeypatch.setattr(PriorDiffusion, "rows", lambda *_: 1)
    pipeline = Studio("tiny", "cpu").pipeline("diffuse")
    assert isinstance(pipeline, Diffuse)
    return pipeline


def drawn(pipeline: Diffuse, path: Path, **fields: Any) -> Image.Image:
    prompt = read_record(path, PIPELINES).settings["prompt"]
    *_, result = run(pipeline, DiffuseSettings(prompt=prompt, candidates=1, image=str(path), **fields))
    assert isinstance(result, Result)
    return result.pictures[0].image


def test_a_picture_is_left_behind_steadily_with_the_strength(diffuse: Diffuse) -> None:
    likeness: list[float] = []
    for strength in (0.2, 0.4, 0.6, 0.8, 1.0):
        pairs = [
            (open_picture(path), drawn(diffuse, path, steps=10, strength=strength)) for path in EXAMPLES[:3]
        ]
        before, after = (to_tensor([pair[k] for pair in pairs]) / 2 + 0.5 for k in (0, 1))
        likeness.append(ssim(before, after).mean().item())
    assert all(nearer > farther for nearer, farther in pairwise(likeness)), likeness
    assert likeness[0] > 0.8


def test_there_is_no_seam_beyond_the_edges_of_a_picture(diffuse: Diffuse) -> None:
    across, inside = [], []
    for path in EXAMPLES[::2]:
        picture = drawn(diffuse, path, steps=8, place="left", width=192, height=128, windows="always")
        assert picture.crop((0, 0, 128, 128)).tobytes() == open_picture(path).convert("RGB").tobytes()
        steps = np.abs(np.diff(np.asarray(picture, float), axis=1)).mean((0, 2))
        across.append(steps[127])
        inside.append(steps[:127].mean())
    assert np.mean(across) <= 1.2 * np.mean(inside)


def test_there_is_no_seam_where_windows_end(diffuse: Diffuse) -> None:
    steps: list[np.ndarray] = []
    for path in EXAMPLES[:2]:
        prompt = read_record(path, PIPELINES).settings["prompt"]
        settings = DiffuseSettings(prompt=prompt, candidates=1, steps=8, width=256, height=128)
        *_, result = run(diffuse, settings)
        assert isinstance(result, Result)
        pixels = np.asarray(result.pictures[0].image, float)
        steps.append(np.abs(np.diff(pixels, axis=1)).mean((0, 2)))
    mean = np.mean(steps, 0)
    assert mean[[63, 127, 191]].mean() <= 1.2 * mean.mean()  # three windows, each 128 wide


def test_words_are_known_in_both_languages(generate: Generate) -> None:
    assert generate.read_prompt("a red heart on a blue background").unknown == []
    assert generate.read_prompt("生日蛋糕").unknown == []
    assert generate.read_prompt("a red floccinaucinihilipilification").unknown == [
        "floccinaucinihilipilification"
    ]


def test_notice_names_every_icon_set() -> None:
    from pipelines.training.data.icons import ICON_SETS, NAMES_PACKAGE, WORDS_PACKAGE

    notice = Path(ASSETS / "NOTICE").read_text("utf-8")
    for name, icons in ICON_SETS.items():
        assert f"@iconify-json/{name} {icons.version}" in notice
    assert " ".join(NAMES_PACKAGE) in notice
    assert " ".join(WORDS_PACKAGE) in notice


def test_clip_and_its_critic_are_two_networks() -> None:
    clip, critic = (read_header(CHECKPOINTS[f"tiny-{role}"].path) for role in ("clip", "critic"))
    assert clip[0]["block_counts"] != critic[0]["block_counts"] and clip[1]["seed"] == critic[1]["seed"]
    assert clip[0]["embedding_size"] != critic[0]["embedding_size"]
    assert clip[1]["name"] == "clip" and critic[1]["name"] == "critic"


def test_optimize_climbs_by_both_judges() -> None:
    pipeline = Studio("tiny", "cpu").pipeline("optimize")
    *_, result = run(pipeline, OptimizeSettings(prompt="a red heart", steps=60))
    assert isinstance(result, Result)
    curve = result.pictures[0].facts["curve"]
    assert curve[-1][1] > curve[0][1] + 0.1 and result.pictures[0].score > curve[0][2] + 0.1
    assert result.pictures[0].image.size == (128, 128)


def test_edit_gives_the_picture_back_and_turns_it_by_clips_judgement(tmp_path: Path) -> None:
    pipeline = Studio("tiny", "cpu").pipeline("edit")
    picture = EXAMPLES[0]
    fields = {"image": str(picture), "source": "a red heart", "prompt": "a green heart", "steps": 4}
    *_, result = run(pipeline, EditSettings(**fields, mode="quick", updates=16, strip=2))
    assert isinstance(result, Result)
    by_strength = {one.facts["strength"]: one for one in result.pictures}
    assert by_strength[0.0].image.tobytes() == open_picture(picture).tobytes()
    best = result.pictures[0]
    assert best.facts["strength"] == 1.0 and best.image.size == open_picture(picture).size
    assert best.facts["clip direction"] > 0.08


def test_the_benches_of_drawing_tell_every_stage() -> None:
    told = bench_generate("cpu", candidates=1, rounds=1)
    assert {"seconds of draw", "seconds of refine", "drawing: GFLOP"} <= told.keys()
    assert 0 < told["drawing: seconds at the machine's limit"] < 10
    assert "seconds of draw" in bench_diffuse("cpu", candidates=1, rounds=1)
