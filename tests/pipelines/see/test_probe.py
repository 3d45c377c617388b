"""Probes: what is learned from a few pictures, the curve beside zero-shot, and files that can be believed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save
from torch import Tensor

from pipelines.errors import BadInput
from pipelines.see.folders import labelled_files, see_labelled
from pipelines.see.probe import few_shot_curve, fit, read_probe, teach
from tests.support.painter import PainterClip
from tests.support.tiny import tiny_clip

LABELS = ["glim", "blorp", "quaz"]  # no CLIP knows what they mean


def clusters(count: int, seed: int = 0, noise: float = 0.5) -> tuple[Tensor, Tensor]:
    """`count` unit vectors around each of three directions in 16 dimensions, and which they belong to."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.eye(16)[:3].repeat_interleave(count, 0)
    vectors = centres + noise * torch.randn(3 * count, 16, generator=generator) / 4
    return F.normalize(vectors, dim=1), torch.arange(3).repeat_interleave(count)


def test_a_probe_knows_what_it_was_taught() -> None:
    clip = tiny_clip()
    probe = teach(clip, *clusters(5), LABELS)
    vectors, targets = clusters(20, seed=1)
    found = probe.classify(clip, vectors)
    right = torch.tensor([LABELS.index(label) for label in found.first()]) == targets
    assert right.float().mean() > 0.95
    assert torch.allclose(found.probabilities.sum(1), torch.ones(60)) and not found.independent
    assert probe.facts == {"pictures": 15, "fewest": 5}


def test_fit_is_the_optimum_of_logistic_regression() -> None:
    """At the optimum the gradient is zero; labels with more pictures weigh no more."""
    vectors, targets = clusters(4)
    vectors, targets = torch.cat([vectors, vectors[:4]]), torch.cat([targets, targets[:4]])
    weight = fit(vectors, targets, 3, 10.0).double().requires_grad_(True)
    losses = F.cross_entropy(10 * vectors.double() @ weight.T, targets, reduction="none")
    mean = torch.stack([losses[targets == label].mean() for label in range(3)]).mean()
    (mean + 0.01 * 10 / 2 * weight.square().sum(1).mean()).backward()
    assert weight.grad is not None and weight.grad.abs().max() < 1e-5
    assert torch.equal(fit(vectors, targets, 3, 10.0), fit(vectors, targets, 3, 10.0))


def test_the_curve_rises_and_stands_beside_zero_shot() -> None:
    clip = tiny_clip()
    vectors, targets = clusters(9, noise=1.2)
    curve = few_shot_curve(clip, vectors, targets, LABELS)
    assert [point.shots for point in curve.points] == [1, 2, 4, 8]
    assert curve.pictures == round((24 + 21 + 15 + 3) / 4)  # those that are left over
    told = curve.to_json()["points"][0]
    assert told["low"] <= told["mean"] <= told["high"]
    test = clusters(40, seed=3, noise=1.2)
    judged = few_shot_curve(clip, vectors, targets, LABELS, test=test, shots=(1, 9, 16), draws=6)
    assert [point.shots for point in judged.points] == [1, 9] and judged.pictures == 120
    assert judged.points[1].mean > judged.points[0].mean > judged.zero_shot
    assert few_shot_curve(clip, *clusters(1), LABELS).points == []
    assert few_shot_curve(clip, vectors, targets, LABELS, seed=1) != curve


def test_a_file_gives_the_probe_back(tmp_path: Path) -> None:
    clip = tiny_clip()
    probe = teach(clip, *clusters(2), ["红心", "b", "c"])
    probe.save(tmp_path / "a.safetensors")
    for source in (tmp_path / "a.safetensors", probe.to_uri()):
        again = read_probe(source)
        assert again.labels == probe.labels and again.clip == probe.clip and again.facts == probe.facts
        assert torch.equal(again.weight, probe.weight) and again.to_bytes() == probe.to_bytes()
    assert (tmp_path / "a.safetensors").stat().st_size < 2000
    with pytest.raises(BadInput, match="another CLIP"):
        probe.classify(PainterClip(), torch.zeros(1, 3))
    with pytest.raises(BadInput, match=r"saved as \.safetensors"):
        probe.save(tmp_path / "a.bin")


def wrong_files() -> list[bytes]:
    told = {"labels": ["a", "b"], "scale": 10.0, "clip": "ab"}
    good = torch.zeros(2, 4)

    def made(weight: Tensor = good, **changes: object) -> bytes:
        return save({"weight": weight}, {"probe": json.dumps(told | changes)})

    return [
        b"",
        b"\xff" * 100,
        save({"weight": good}),
        save({"weight": good}, {"probe": "[]"}),
        made(labels=["a"]),
        made(labels="ab"),
        made(labels=["a", " "]),
        made(scale="10"),
        made(scale=1e9),
        made(clip=3),
        made(torch.full((2, 4), torch.nan)),
        made(torch.zeros(2, 4, dtype=torch.float64)),
        made(torch.zeros(2)),
        (8 + 2**40).to_bytes(8, "little") + b"{}",
    ]


@pytest.mark.parametrize("number", range(14))
def test_files_that_are_no_probes_are_refused(tmp_path: Path, number: int) -> None:
    path = tmp_path / "p.safetensors"
    path.write_bytes(wrong_files()[number])
    with pytest.raises(BadInput):
        read_probe(path)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no probe"):
        read_probe(tmp_path / "none.safetensors")
    with pytest.raises(BadInput, match="no probe"):
        read_probe("data:application/octet-stream;base64,!!")


def test_too_little_is_told() -> None:
    clip = tiny_clip()
    with pytest.raises(BadInput, match="two labels"):
        teach(clip, torch.zeros(1, 16), torch.tensor([0]), ["a"])
    with pytest.raises(BadInput, match="'b' has no pictures"):
        teach(clip, torch.zeros(1, 16), torch.tensor([0]), ["a", "b"])


def test_a_folder_for_each_label(tmp_path: Path) -> None:
    for label, colour in (("warm_thing", "red"), ("cold", "blue")):
        (tmp_path / label).mkdir()
        for k in range(3):
            Image.new("RGB", (8 + k, 8), colour).save(tmp_path / label / f"{k}.png")
    (tmp_path / "cold" / "broken.png").write_bytes(b"no picture")
    (tmp_path / ".hidden").mkdir()
    files = labelled_files(tmp_path)
    assert list(files) == ["cold", "warm thing"] and len(files["cold"]) == 4
    clip = PainterClip()
    seen = see_labelled(clip, files)
    assert seen.targets.tolist() == [0, 0, 0, 1, 1, 1] and "broken.png" in seen.broken[0][0]
    probe = teach(clip, seen.vectors, seen.targets, list(files))
    assert probe.classify(clip, seen.vectors).first() == ["cold"] * 3 + ["warm thing"] * 3
    assert list(labelled_files(tmp_path, ["warm thing", "cold"])) == ["warm thing", "cold"]
    with pytest.raises(BadInput, match="'hot' has no pictures"):
        labelled_files(tmp_path, ["hot", "cold"])
    with pytest.raises(BadInput, match="a folder for each label"):
        labelled_files(tmp_path / "cold")
