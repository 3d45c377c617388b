"""SigLIP's loss, gradient caching, and the text towers without order."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from pipelines.models.checkpoint import load_weights, read_header
from pipelines.models.clip.network import Clip, ClipConfig
from pipelines.models.clip.tokenizer import Tokenizer
from pipelines.training.clip.gradient_cache import cached_backward
from pipelines.training.clip.loss import ContrastiveLoss, SigmoidLoss
from pipelines.training.clip.trainer import ClipTrainer
from pipelines.training.loop import Budget, fit
from tests.support.tiny import tiny_tokenizer
from tests.support.training import trainer_for

ALONE = torch.full((5,), -1)


def vectors(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(5, 4, generator=generator), dim=1)


def siglip_slowly(image: Tensor, text: Tensor, same: Tensor, scale: float, bias: float) -> float:
    """Equation 1 of Zhai et al. 2023, one pair at a time."""
    total = 0.0
    for i, x in enumerate(image):
        for j, y in enumerate(text):
            sign = 1 if same[i, j] else -1
            total += torch.log(torch.sigmoid(sign * (scale * x @ y + bias))).item()
    return -total / len(image)


def test_the_sigmoid_loss_is_that_of_the_paper() -> None:
    image, text, scale, bias = vectors(0), vectors(1), torch.tensor(7.0), torch.tensor(-3.0)
    loss = SigmoidLoss(Accelerator(cpu=True))
    plain = siglip_slowly(image, text, torch.eye(5), 7.0, -3.0)
    assert loss(image, text, ALONE, scale, bias).item() == pytest.approx(plain, abs=1e-5)
    concepts = torch.tensor([0, 1, 0, -1, -1])
    same = torch.eye(5)
    same[0, 2] = same[2, 0] = 1
    expected = siglip_slowly(image, text, same, 7.0, -3.0)
    assert loss(image, text, concepts, scale, bias).item() == pytest.approx(expected, abs=1e-5)
    assert abs(plain - expected) > 0.1


def test_the_softmax_loss_is_cross_entropy_both_ways() -> None:
    image, text, target = vectors(0), vectors(1), torch.arange(5)
    logits = 7 * image @ text.T
    expected = sum(torch.nn.functional.cross_entropy(part, target) for part in (logits, logits.T)) / 2
    own = ContrastiveLoss(Accelerator(cpu=True))(image, text, ALONE, torch.tensor(7.0))
    assert torch.allclose(own, cast(Tensor, expected))


def gradients_of(trainer: ClipTrainer, batch: dict[str, Any]) -> dict[str, Tensor]:
    """Of every parameter, with clipping and the step left out."""
    found: dict[str, Tensor] = {}

    def keep(*_: object) -> None:
        for name, network in trainer.networks.items():
            found.update(
                {
                    f"{name}.{key}": p.grad.clone()
                    for key, p in network.named_parameters()
                    if p.grad is not None
                }
            )

    trainer.step = keep  # type: ignore[method-assign]
    trainer.update(batch, 0.5)
    return found


@pytest.mark.parametrize("options", [{}, {"sigmoid": True}, {"text_kind": "cbow"}], ids=str)
def test_cached_gradients_are_those_of_the_joint_batch(
    options: dict[str, Any], data_file: Path, pack: Path, tmp_path: Path
) -> None:
    def made(chunk: int | None) -> ClipTrainer:
        return cast(ClipTrainer, trainer_for("clip", data_file, pack, tmp_path, chunk=chunk, **options))

    batch = made(None).batch(3)
    joint, cached = gradients_of(made(None), batch), gradients_of(made(4), batch)
    assert joint.keys() == cached.keys() and len(joint) > 20
    scale = max(value.abs().max() for value in joint.values())
    for name, value in joint.items():
        assert torch.allclose(cached[name], value, atol=1e-5 * float(scale), rtol=1e-4), name


def test_a_part_is_held_at_a_time() -> None:
    weight, seen = torch.ones(3, requires_grad=True), list[tuple[int, bool]]()
    data = torch.arange(24.0).view(8, 3)

    def part(start: int) -> Tensor:
        seen.append((start, torch.is_grad_enabled()))
        return data[start : start + 2] * weight

    def loss_of(whole: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        loss = (whole.sum(1) @ whole.sum(1)) / len(whole)
        return loss, {"loss": loss}

    metrics = cached_backward(
        [[lambda start=start: part(start) for start in range(0, 8, 2)]], loss_of, lambda loss: loss.backward()
    )
    cached, weight.grad = weight.grad, None
    loss, _ = loss_of(data * weight)
    loss.backward()
    assert torch.allclose(cast(Tensor, cached), cast(Tensor, weight.grad)) and metrics["loss"] == loss
    assert seen == [(k, False) for k in (0, 2, 4, 6)] + [(k, True) for k in (0, 2, 4, 6)]


@pytest.mark.parametrize("kind", ["bag", "cbow"])
def test_towers_without_order(kind: str) -> None:
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"image_size": 16, "widths": (8, 16), "block_counts": (1, 1), "text_width": 16}
    clip = Clip(ClipConfig(tokenizer.vocabulary_size, text_kind=kind, **sizes), tokenizer)
    one, other, again = clip.encode_text(["a red heart", "heart a red", "a red heart heart"])
    assert torch.allclose(one, other, atol=1e-6)
    assert torch.allclose(one, again, atol=1e-6) == (kind == "bag")
    assert not torch.allclose(one, clip.encode_text(["a green heart"])[0], atol=1e-4)
    alone, beside = (
        clip.encode_text(["two cats"]),
        clip.encode_text(["two cats", "a 3d dog face on a blue background"]),
    )
    assert torch.allclose(alone[0], beside[0], atol=1e-6), "padding counts for nothing"
    with pytest.raises(ValueError, match="text tower"):
        ClipConfig(10, text_kind="music")


@pytest.mark.parametrize("options", [{"sigmoid": True}, {"text_kind": "bag"}, {"chunk": 3}], ids=str)
def test_each_choice_learns_and_is_read_back(
    options: dict[str, Any], data_file: Path, pack: Path, tmp_path: Path
) -> None:
    trainer = trainer_for("clip", data_file, pack, tmp_path, batch_size=8, rate=5e-3, **options)
    losses = [step.metrics["contrast"] for step in fit(trainer, tmp_path, Budget(steps=25))]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    trainer.export(tmp_path / "clip.safetensors", {})
    config = ClipConfig.from_dict(read_header(tmp_path / "clip.safetensors")[0])
    clip = Clip(config, Tokenizer.load(pack / "tokenizer.json"))
    load_weights(tmp_path / "clip.safetensors", clip)
    assert (clip.logit_bias is not None) == bool(options.get("sigmoid"))
