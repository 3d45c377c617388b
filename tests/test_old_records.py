"""Pictures of earlier versions, in tests/records/VERSION, are drawn again from their records.

How a convolution rounds depends on the processor and on the number of threads. Where it rounds as it did for the
pictures (rounding.txt beside them, one thread) they must be identical. Elsewhere Generate's, Optimize's and those by a
saved direction must be near; an edit that follows CLIP's gradient goes another way after the first rounding, so only its
size is asked for. Optimize's were made in float32, and are near where it computes in bfloat16. Where a network of the
pack is another by now, that is told.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from app.cli.main import main
from pipelines.core.record import Record, read_record
from pipelines.io.images import open_picture
from pipelines.studio import PIPELINES

PICTURES = sorted(Path(__file__).with_name("records").glob("*/*.png"))
each_picture = pytest.mark.parametrize("path", PICTURES, ids=lambda path: f"{path.parent.name}/{path.stem}")


def rounding() -> str:
    """A hash of what convolutions, products and sums come to here, forward and backward, in sizes of our networks."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 64, 32, 32, generator=generator).to(memory_format=torch.channels_last).requires_grad_()
    weights = [torch.randn(128, 64, k, k, generator=generator).requires_grad_() for k in (3, 1)]
    matrix = torch.randn(128, 256, generator=generator).requires_grad_()
    y = sum(F.conv2d(x, weight, padding=weight.shape[-1] // 2) for weight in weights)
    z = F.silu(F.group_norm(y, 8)).mean((2, 3)) @ matrix
    loss = (
        F.layer_norm(z, (256,)).softmax(1).square().sum()
        + F.interpolate(y, scale_factor=0.4, mode="bilinear").mean()
    )
    gradients = torch.autograd.grad(loss, [x, *weights, matrix])
    parts = [y, z, loss, *gradients]
    return hashlib.sha256(
        b"".join(part.detach().contiguous().numpy().tobytes() for part in parts)
    ).hexdigest()


def nearness(record: Record) -> float | None:
    """The mean difference of a channel, of 255, that another rounding may make; None when there is no saying."""
    if record.pipeline == "edit":
        return 0.05 if record.settings["directions"] else None
    return {"generate": 0.01, "optimize": 4.0}[record.pipeline]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As many as made the pictures."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(count)


def test_each_pipeline_of_the_shipped_pack_has_old_pictures() -> None:
    records = [read_record(path, PIPELINES) for path in PICTURES]
    assert {record.pipeline for record in records} == {"generate", "edit", "optimize"}
    for path, record in zip(PICTURES, records, strict=True):
        assert record.pack == "tiny" and record.versions["atelier"] == path.parent.name
        settings = PIPELINES[record.pipeline].Settings.from_dict(record.settings)
        assert settings == type(settings).from_dict(settings.to_dict())


@each_picture
@pytest.mark.usefixtures("one_thread")
def test_an_old_picture_is_drawn_again(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = read_record(path, PIPELINES)
    code = main(["replay", str(path), "--device", "cpu", "--out", str(tmp_path), "--json"])
    told = json.loads(capsys.readouterr().out)
    old, new = (np.asarray(open_picture(one).convert("RGB"), float) for one in (path, told["path"]))
    assert old.shape == new.shape
    near = nearness(record)
    if record.pipeline == "generate":  # its DALL·E is another since then, and that is told
        assert code == 1 and [
            one for one in told["environment"] if one.startswith("the weights of dalle were 1a0fbd42e5")
        ]
        return
    if near is not None:
        assert np.abs(old - new).mean() <= near, told
    if record.pipeline != "optimize" and rounding() == path.with_name("rounding.txt").read_text().strip():
        assert code == 0 and told["identical"], told


@each_picture
def test_an_old_picture_is_far_from_what_it_began_with(path: Path) -> None:
    """So that a run that does nothing fails the test above."""
    record = read_record(path, PIPELINES)
    given = record.settings.get("image") or record.settings.get("init")
    picture = open_picture(path).convert("RGB")
    begun = open_picture(given).convert("RGB") if given else Image.new("RGB", picture.size, "white")
    difference = np.asarray(picture, float) - np.asarray(begun.resize(picture.size), float)
    assert np.abs(difference).mean() > (nearness(record) or 2.0)
