"""What a training may begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from pipelines.errors import BadInput
from pipelines.models.clip.network import ClipConfig, EfficientNetTower, tf_same_conv
from pipelines.models.clip.tokenizer import Tokenizer
from pipelines.training.clip import trainer as clip_training
from pipelines.training.clip.trainer import CriticTrainer, TrainingHeads
from pipelines.training.data.dataset import Dataset
from pipelines.training.data.icons import concept
from pipelines.training.loop import Budget, fit
from pipelines.training.pretrained import begin_with_imagenet
from tests.support.training import (
    SIZES,
)


class Normed(torch.nn.Conv2d):
    """A convolution of an EfficientNet-Lite as it was trained, with its batch norm, whose statistics are random here."""

    def __init__(self, conv: torch.nn.Conv2d):
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            groups=conv.groups,
            bias=False,
        )
        self.norm = torch.nn.BatchNorm2d(conv.out_channels, eps=1e-3).eval()
        for value in (self.norm.weight, self.norm.bias, self.norm.running_mean, self.norm.running_var):
            assert value is not None
            torch.nn.init.uniform_(value, 0.5, 1.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(super().forward(x))


@torch.no_grad()
def test_batch_norm_and_normalization_are_folded_into_the_convolutions(tmp_path: Path) -> None:
    sizes = {"image_size": 32, "widths": (8, 8, 16, 16, 16, 16, 16), "block_counts": (1, 2, 1, 1, 1, 1, 1)}
    torch.manual_seed(0)
    ours, theirs = (EfficientNetTower(ClipConfig(64, mobile=True, **sizes)) for _ in range(2))
    for module in list(theirs.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.Conv2d):
                setattr(module, name, Normed(child))
    torch.save(theirs.state_dict(), tmp_path / "lite.pth")
    begin_with_imagenet(ours, tmp_path / "lite.pth")
    x = torch.rand(2, 3, 32, 32)  # in [0, 1]
    mean, deviation = (
        torch.tensor(one)[:, None, None] for one in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    a, b = tf_same_conv(ours.stem, (2 * x - 1 - 0.5) / 0.6), tf_same_conv(theirs.stem, (x - mean) / deviation)
    assert torch.allclose(a[..., :-1, :-1], b[..., :-1, :-1], rtol=1e-4, atol=1e-4)  # the padding differs
    h = torch.randn(2, 32, 16, 16)
    for stage, reference in zip(ours.stages, theirs.stages, strict=True):
        assert torch.allclose(stage(h), reference(h), rtol=1e-4, atol=1e-4)
        h = torch.randn_like(stage(h))


def test_a_training_may_begin_with_imagenet_or_a_checkpoint(
    data_file: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tower = EfficientNetTower(ClipConfig(64, mobile=True, widths=(8,) * 7, block_counts=(1,) * 7))
    for module in list(tower.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.Conv2d):
                setattr(module, name, Normed(child))
    file = tmp_path / "efficientnet.pth"
    torch.save(tower.state_dict(), file)
    monkeypatch.setattr(clip_training, "imagenet_file", lambda package: file if package else None)
    emoji, book = Dataset(data_file, size=64), Tokenizer.load(trained / "tokenizer.json")

    def critic(**options: Any) -> CriticTrainer:
        return CriticTrainer(
            Accelerator(cpu=True), emoji, book, tmp_path, **{**SIZES["critic"], "imagenet": "lite", **options}
        )

    fresh = critic()
    assert (
        fresh.start == "efficientnet (Apache-2.0, ImageNet), the first three stages of its image tower kept"
    )
    frozen = {name for name, p in fresh.clip.named_parameters() if not p.requires_grad}
    assert frozen and all(name.startswith(("image.stem", "image.stages.")) for name in frozen)
    before = {name: p.clone() for name, p in fresh.clip.named_parameters()}
    for _ in fit(fresh, tmp_path / "state", Budget(steps=2)):
        pass
    for name, p in fresh.clip.named_parameters():
        assert torch.equal(p, before[name]) == (name in frozen), name

    again = critic(start=trained / "critic.safetensors")
    count = len(again.clip.state_dict())
    assert (
        again.start
        == f"{count} tensors of critic.safetensors, the first three stages of its image tower kept"
    )
    assert {name for name, p in again.clip.named_parameters() if not p.requires_grad} == frozen
    heads = cast(TrainingHeads, again.networks["heads"])
    plain = {concept(emoji.icons[k]): emoji.icons[k].name for k in emoji.train}
    names = [plain[name] for name in again.index]
    assert torch.equal(heads.prototypes, again.clip.encode_text(names))  # as the texts were read so far
    rates = {id(p): group["lr"] for group in again.optimizers["all"].param_groups for p in group["params"]}
    assert {rates[id(p)] for name, p in again.clip.named_parameters() if name.startswith("text.")} == {
        CriticTrainer.SIZES["tiny"]["begun_rate"]
    }
    assert torch.equal(
        again.clip.image.project.weight,
        load_file(trained / "critic.safetensors")["image.project.weight"].float(),
    )
    other = critic(start=trained / "clip.safetensors")  # another image tower, the same text tower
    assert "tensors of clip.safetensors, efficientnet" in other.start
    with pytest.raises(BadInput, match="there is no checkpoint"):
        critic(start=tmp_path / "nothing.safetensors")
    with pytest.raises(BadInput, match="no tensor of"):
        critic(start=trained / "unet.safetensors")
