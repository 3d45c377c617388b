"""How an adapter learns a direction."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.edit.ddim import ddim_invert, time_grid
from pipelines.edit.directions import network_hash
from pipelines.edit.framing import Framing
from pipelines.edit.inputs import read_inputs
from pipelines.edit.pipeline import Edit
from pipelines.edit.settings import EditSettings
from pipelines.edit.tuning import AdapterTraining
from pipelines.errors import BadInput
from tests.support.edit import (
    QUICK,
    STRONG,
    finish,
    finished,
    pixels,
    speckled,
    uri,
)
from tests.support.tiny import tiny_edit


def tuning_of(edit: Edit, mode: str = "quick", training_images: int = 4, **fields: Any) -> AdapterTraining:
    """As a run sets it up."""
    settings = edit.prepare(
        EditSettings(mode=mode, **{"return_step": 300, "inversion_iterations": 0, **fields})
    )
    x, inversion = edit.pictures.tensor([0]), None
    with torch.no_grad():
        if mode != "quick":
            x = edit.pictures.tensor(list(range(training_images)))
        if mode != "reusable":
            inversion = finish(
                ddim_invert(edit._noise_of, edit.unet.alphas_cumprod, x, time_grid(300, 40), 0)
            )
        target_direction = read_inputs(edit, settings).direction_from(x[:1])
    return AdapterTraining(
        edit.unet, edit.clip, edit.critic, settings, settings.return_step, target_direction, x, inversion
    )


@torch.no_grad()
def advance(training: AdapterTraining, count: int) -> list[float]:
    losses = []
    for _ in range(count):
        assert training.advance() is None
        losses.append(training.loss)
    return losses


@pytest.mark.parametrize(("mode", "seed"), [("quick", 0), ("quick", 1), ("reusable", 2)])
def test_learning_lowers_the_loss(edit: Edit, mode: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.edit.tuning.VIEWS", 12)  # little chance in the loss
    training = tuning_of(edit, mode, seed=seed, step_size=0.02, l1_weight=0.01, tv_weight=0.01)
    losses = advance(training, 15)
    assert np.mean(losses[-4:]) < np.mean(losses[:2]) - 0.25
    told = training.metrics()
    assert told["loss"] == losses[-1] and [told["clip"], told["critic"]] == training.curves[-1][1:]
    assert [row[0] for row in training.curves] == [1, 5, 10, 15]


@pytest.mark.parametrize("chain", [False, True])
def test_the_papers_recipe_learns(edit: Edit, chain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.edit.tuning.VIEWS", 40)
    steps = []
    training = tuning_of(
        edit,
        "paper",
        training_images=1,
        backprop_through_chain=chain,
        step_size=0.005,
        l1_weight=0.01,
        tv_weight=0.01,
    )
    update = training._update
    monkeypatch.setattr(training, "_update", lambda loss: (steps.append(loss.item()), update(loss)))
    before = {name: one.clone() for name, one in training.adapted_unet.tensors().items()}
    count = 8 if chain else 4
    losses = advance(training, count)
    assert len(steps) == count * (1 if chain else 6)
    assert np.mean(losses[-2:]) < np.mean(losses[:2]) - 0.05
    changed = [
        name for name, one in training.adapted_unet.tensors().items() if not torch.equal(one, before[name])
    ]
    assert len(changed) == len(before)  # all of the adapter takes part
    assert training.shown is not None and training.shown.shape == (1, 3, 16, 16)


@pytest.mark.parametrize(
    ("mode", "part"),
    [("quick", "l1_weight"), ("quick", "tv_weight"), ("reusable", "l1_weight"), ("paper", "l1_weight")],
)
def test_what_keeps_the_picture_has_a_slope(
    edit: Edit, mode: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The authors' program computes its identity loss on a detached picture, where it moves nothing."""
    gradients = []
    for amount in (0.0, 5.0):
        found: list[Tensor] = []
        training = tuning_of(
            edit,
            mode,
            training_images=2,
            **{"l1_weight": 0.0, "tv_weight": 0.0, part: amount},
            step_size=1e-4,
        )
        for (
            parameter
        ) in training.parameters:  # a fresh adapter changes nothing, so that there is nothing to keep
            parameter.data += 0.05 * torch.randn(
                parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())
            )

        def note(loss: Tensor, found: list[Tensor] = found, training: AdapterTraining = training) -> None:
            training.optimizer.zero_grad()
            loss.backward()
            assert all(parameter.grad is not None for parameter in training.parameters)
            found.append(
                torch.cat(
                    [
                        parameter.grad.flatten()
                        for parameter in training.parameters
                        if parameter.grad is not None
                    ]
                )
            )

        monkeypatch.setattr(training, "_update", note)
        advance(training, 1)
        gradients.append(found[-1])
    assert gradients[1].isfinite().all()
    assert (gradients[1] - gradients[0]).norm() > 1e-3 * gradients[0].norm() > 0


def test_learning_leaves_the_shared_networks_alone(edit: Edit) -> None:
    hashes = [network_hash(one) for one in (edit.unet, edit.clip, edit.critic)]
    names = list(edit.unet.state_dict())
    finished(edit, EditSettings(**STRONG))
    assert hashes == [network_hash(one) for one in (edit.unet, edit.clip, edit.critic)]
    assert names == list(edit.unet.state_dict())
    assert not any(parameter.requires_grad for parameter in edit.unet.parameters())
    assert not any(
        parameter.grad is not None
        for part in (edit.unet, edit.clip, edit.critic)
        for parameter in part.parameters()
    )


def test_numbers_that_break_down_keep_the_last_good_state(
    edit: Edit, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = EditSettings(**{**QUICK, "updates": 12}, step_size=0.01, image=uri(speckled((16, 16))))
    good = finished(edit, replace(settings, until=5))
    loss_of = AdapterTraining._loss

    def broken(self: AdapterTraining, *arguments: Any) -> Tensor:
        loss = loss_of(self, *arguments)
        return loss * math.nan if self.step == 5 else loss

    monkeypatch.setattr(AdapterTraining, "_loss", broken)
    result = finished(edit, settings)
    assert pixels(result) == pixels(good)
    assert result.pictures[0].facts["updates"] == 5
    assert isinstance(result.settings, EditSettings) and result.settings.until == 5
    assert "the loss became nan at update 6" in result.pictures[0].facts["ended"]


@pytest.mark.parametrize("broken_at", ["at once", "in the parameters"])
def test_the_adapter_stays_finite_when_numbers_break_down(
    edit: Edit, broken_at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = tuning_of(edit)
    if broken_at == "at once":
        monkeypatch.setattr(training, "_loss", lambda before, after, generator: after.sum() * math.inf)
    else:
        advance(training, 2)
        update = training._update

        def spoil(loss: Tensor) -> None:
            update(loss)
            training.parameters[3].data.fill_(math.nan)

        monkeypatch.setattr(training, "_update", spoil)
    before, step = [parameter.detach().clone() for parameter in training.parameters], training.step
    with torch.no_grad():
        sentence = str(training.advance())
    assert "step_size" in sentence and "\n" not in sentence and training.step == step
    assert all(torch.equal(one, old) for one, old in zip(training.parameters, before, strict=True))


def test_a_restored_tuning_goes_on_with_the_same_bits(edit: Edit) -> None:
    whole, other = tuning_of(edit, "reusable"), tuning_of(edit, "reusable")
    advance(whole, 7)
    advance(other, 4)
    resumed = tuning_of(edit, "reusable")
    resumed.restore(other.snapshot())
    advance(resumed, 3)
    assert resumed.curves == whole.curves and resumed.loss == whole.loss and resumed.step == 7
    for name, one in whole.adapted_unet.tensors().items():
        assert torch.equal(one, resumed.adapted_unet.tensors()[name]), name
    fresh = tuning_of(edit, "reusable")
    fresh.restore(fresh.snapshot())  # of no update yet
    assert math.isnan(fresh.loss) and advance(fresh, 1) == advance(tuning_of(edit, "reusable"), 1)


def test_the_critic_steers_nothing(edit: Edit) -> None:
    other = tiny_edit()
    for parameter in other.critic.parameters():
        parameter.data.mul_(-1.7)
    for mode in ("quick", "instant"):
        settings = EditSettings(**{**STRONG, "mode": mode}, image=uri(speckled((16, 16))))
        one, two = finished(edit, settings), finished(other, settings)
        assert pixels(one) == pixels(two)
        assert one.pictures[0].facts["critic target"] != two.pictures[0].facts["critic target"]


def test_pictures_can_stand_for_the_target(edit: Edit) -> None:
    shown = " | ".join(uri(speckled((16, 12), seed)) for seed in range(3))
    fields: dict[str, Any] = {"image": uri(speckled((16, 16), 9)), **STRONG}
    by_text = finished(edit, EditSettings(**fields))
    by_pictures = finished(edit, EditSettings(**fields, target_images=shown, source="a cat", prompt="a cat"))
    assert pixels(by_text) != pixels(by_pictures)
    x = edit.pictures.tensor([0])
    settings = edit.prepare(EditSettings(target_images=shown))
    with torch.no_grad():
        target_direction = read_inputs(edit, settings).direction_from(x)
        seen = edit.clip.encode_image(
            torch.cat([Framing.of((16, 12), None, 16).reduced(speckled((16, 12), seed)) for seed in range(3)])
        )
        expected = F.normalize(seen.mean(0) - edit.clip.encode_image(x)[0], dim=0)
    assert torch.allclose(target_direction.clip, expected, atol=1e-5)


def test_a_direction_can_be_learned_from_own_pictures(edit: Edit, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for seed in range(3):
        speckled((20, 14), seed).save(tmp_path / "mine" / f"{seed}.png")
    (tmp_path / "mine" / "notes.txt").write_text("not a picture")
    prepared = edit.prepare(EditSettings(mode="reusable", source_images=str(tmp_path / "mine")))
    assert prepared.source_images.count("data:image/png") == 3
    assert read_inputs(edit, prepared).source_images.shape == (3, 3, 16, 16)
    (tmp_path / "empty").mkdir()
    for lessons, words in (
        (str(tmp_path / "empty"), "holds no PNG"),
        (str(tmp_path / "mine" / "0.png"), "a single picture"),
        (str(tmp_path / "nowhere"), "there is no picture"),
        (" | ".join([str(tmp_path / "mine")] * 80), "the most is"),
    ):
        with pytest.raises(BadInput, match=words):
            edit.prepare(EditSettings(mode="reusable", source_images=lessons))
