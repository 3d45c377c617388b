"""Every pipeline on a simulated CUDA device: nothing is left on the processor, and its pictures are the processor's."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pipelines.core.execute import run
from pipelines.core.pipeline import Pipeline, Result, Step
from pipelines.diffuse.pipeline import Diffuse
from pipelines.models import device as devices
from pipelines.models.clip_base import cached_text_embeddings
from pipelines.models.flow.network import FLOWS
from pipelines.models.stable_diffusion.load import load_diffusers
from tests.pipelines.test_contract import CASES
from tests.support.flows import flow_folder
from tests.support.simulated_cuda import CudaTensor, SimulatedCuda, moved, simulated_cuda
from tests.support.tiny import CPU, tiny_clip

__all__ = ["simulated_cuda"]  # a fixture

SETTINGS: dict[str, dict[str, Any]] = {
    "optimize": {"steps": 6, "size": "32x32", "cutouts": 4},
    "edit": {"mode": "quick", "steps": 4, "updates": 2, "strip": 2},
    "diffuse": {"steps": 2, "candidates": 2},
}
ONCE = (
    "models/checkpoint.py",
    "edit/results.py",
)  # after the last step: weights are hashed, a direction is kept
KINDS = ("z-image", "klein", "sd-3", "flux-1", "sana")  # of flows
WAITS = 12  # at most so many times a step the processor waits: for previews' scores and what the page shows


def networks_in(part: Any) -> Iterator[nn.Module]:
    """The networks of a pipeline, or of anything that it holds."""
    if isinstance(part, nn.Module):
        yield part
    elif hasattr(part, "components"):
        for inside in part.components.values():
            yield from networks_in(inside)
    elif dataclasses.is_dataclass(part):
        for field in dataclasses.fields(part):
            yield from networks_in(getattr(part, field.name))


def settings_of(pipeline: Pipeline[Any]) -> Any:
    known = {field.name for field in dataclasses.fields(pipeline.Settings)}
    wanted = SETTINGS.get(type(pipeline).__name__.lower(), {"candidates": 2})
    return pipeline.Settings(seed=3, **{name: value for name, value in wanted.items() if name in known})


def drawn(pipeline: Pipeline[Any]) -> tuple[list[Step], list[np.ndarray[Any, Any]]]:
    *steps, result = run(pipeline, settings_of(pipeline))
    assert isinstance(result, Result)
    return [step for step in steps if isinstance(step, Step)], [
        np.asarray(one.image) for one in result.pictures
    ]


def flow(kind: str) -> Diffuse:
    pipe = load_diffusers(flow_folder(kind), CPU)
    return Diffuse(FLOWS[type(pipe).__name__](pipe), tiny_clip())


MAKERS: dict[str, Callable[[], Pipeline[Any]]] = {
    **{name: make for name, make in CASES.items() if name != "fake"},
    **{f"diffuse by {kind}": cache(partial(flow, kind)) for kind in KINDS},
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
def test_a_pipeline_draws_on_cuda_what_it_draws_on_the_processor(
    make: Callable[[], Pipeline[Any]], simulated_cuda: SimulatedCuda
) -> None:
    _, expected = drawn(make())
    pipeline = fresh(make)
    with simulated_cuda as device:
        for network in {id(one): one for one in networks_in(pipeline)}.values():
            moved(network)
        steps, found = drawn(pipeline)
        waits = device.syncs
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert abs(one.astype(int) - other.astype(int)).max() <= 2
    told = "\n".join(f"{count:5} {what}" for what, count in waits.most_common(12))
    counted = sum(count for what, count in waits.items() if not any(place in what for place in ONCE))
    assert counted <= WAITS * len(steps) + 40, told


def fresh(make: Callable[[], Pipeline[Any]]) -> Pipeline[Any]:
    """A pipeline whose networks no other test has, since they are moved."""
    return copy.deepcopy(make())


def test_the_simulated_device_refuses_what_cuda_refuses(simulated_cuda: SimulatedCuda) -> None:
    plain = torch.arange(6.0).view(2, 3)
    with simulated_cuda as device:
        there = plain.to("cuda")
        assert isinstance(there, CudaTensor) and there.is_cuda and (there * 2).device.type == "cuda"
        assert (there @ there.T).cpu().equal(plain @ plain.T)
        with pytest.raises(RuntimeError, match="same device"):
            there + plain
        with pytest.raises(RuntimeError, match="generator"):
            torch.randn(2, device="cuda", generator=torch.Generator())
        with pytest.raises((TypeError, RuntimeError)):
            there.numpy()
        weight = nn.Parameter(there.clone())
        (weight.square().sum() * torch.tensor(2.0)).backward()  # a single number may be on the processor
        assert weight.grad is not None and weight.grad.cpu().equal(4 * plain)
        before = sum(device.syncs.values())
        assert there.sum().item() == 15 and there[there > 3].cpu().numel() == 2
        assert sum(device.syncs.values()) >= before + 3


def test_networks_make_room_for_each_other(
    simulated_cuda: SimulatedCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Card:
        total_memory = 2 * 4 * 100  # half of it holds one network

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Card)
    with simulated_cuda:
        wanted, waiting = nn.Linear(10, 10, bias=False), nn.Linear(10, 10, bias=False).to("cuda")
        devices.make_room([wanted], [wanted, waiting], torch.device("cuda"))
        assert wanted.weight.is_cuda and not waiting.weight.is_cuda


def test_remembered_texts_come_back_to_the_device(simulated_cuda: SimulatedCuda) -> None:
    with simulated_cuda:
        cuda = torch.device("cuda", 0)
        found = cached_text_embeddings({}, ["a", "b"], lambda texts: torch.ones(len(texts), 4).to(cuda), cuda)
        assert found.is_cuda
