"""Which kind of Space this is, and what it says."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import gradio as gr
import pytest
import torch

from app import space
from pipelines.core.execute import run
from pipelines.errors import BadInput
from tests.support.space import chinese
from tests.support.zero_gpu import ZeroGpuPlatform


@pytest.mark.parametrize(
    ("environment", "kind"),
    [
        ({}, ""),
        ({"SPACES_ZERO_GPU": "true", "ACCELERATOR": "a10g"}, ""),
        ({"SPACE_ID": "ann/atelier"}, "cpu"),
        ({"SPACE_ID": "ann/atelier", "ACCELERATOR": "none"}, "cpu"),
        ({"SPACE_ID": "ann/atelier", "ACCELERATOR": "t4", "SPACES_ZERO_GPU": "false"}, "gpu"),
        ({"SPACE_ID": "ann/atelier", "ACCELERATOR": "a10g", "SPACES_ZERO_GPU": "true"}, "zero"),
        ({"SPACE_ID": "ann/atelier", "SPACES_ZERO_GPU": "1"}, "zero"),
    ],
)
def test_kinds_of_places(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], kind: space.Kind
) -> None:
    for name in ("SPACE_ID", "SPACES_ZERO_GPU", "ACCELERATOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert space.kind() == kind


@pytest.fixture
def on_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACE_ID", "ann/atelier")
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # as the platform pretends


@pytest.mark.usefixtures("on_zero")
def test_zero_gpu_begins_with_a_decorated_function_and_a_studio_on_the_processor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    platform = ZeroGpuPlatform()
    monkeypatch.setitem(sys.modules, "spaces", platform)  # type: ignore[arg-type]
    studio, events = space.open_studio("tiny", "auto", tmp_path, None)
    assert (studio.device, len(platform.decorated)) == ("cpu", 1)
    assert isinstance(events.__self__, space.ZeroGpu)  # type: ignore[attr-defined]
    assert set(space.free_memory()) == {"RAM"}  # asking the platform's torch for more would end in an error


@pytest.mark.usefixtures("on_zero")
def test_what_zero_gpu_lacks_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "spaces", None)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="without the package spaces"):
        space.open_studio("tiny", "auto", tmp_path, None)
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(BadInput, match="a build without CUDA; deploy it again with --hardware zero-a10g"):
        space.open_studio("tiny", "auto", tmp_path, None)


def test_a_gpu_space_with_torch_for_processors_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SPACE_ID", "ann/atelier")
    monkeypatch.setenv("ACCELERATOR", "t4")
    monkeypatch.delenv("SPACES_ZERO_GPU", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    studio, events = space.open_studio("tiny", "auto", tmp_path, None)
    assert (studio.device, events) == ("cpu", run)
    assert "has the GPU t4" in caplog.text


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (
            "You have exceeded your free ZeroGPU quota (38s requested vs. 12s left). Try again in 3:12:00. ",
            "this needs 38 s of GPU time and 12 s of your daily quota are left; try again in 3:12:00, or ask for less",
        ),
        (
            "You have exceeded your Pro ZeroGPU quota (90s requested vs. -3s left). Try again in 1 day, 0:10:00. Add",
            "this needs 90 s of GPU time and 0 s of your daily quota are left; try again in 1 day, 0:10:00, or ask "
            "for less",
        ),
        ("The requested GPU duration (90s) is larger than the maximum allowed", "more than is given at once"),
        (
            "Space app has reached its GPU limit. Try re-running outside of examples",
            "0 s are left for visitors",
        ),
        ("You have exceeded your ZeroGPU runs limit. ", "your daily number of GPU tasks is used up"),
        ("You have too many ZeroGPU credits allocated to running tasks. Try", "set aside for tasks"),
        ("Expired ZeroGPU proxy token", "your pass to it ran out"),
        ("No GPU was available after 60s. Retry later", "no GPU is free"),
        ("GPU task aborted", "taken away before the end"),
        ("something\nnew", "and it was refused (something new)"),
    ],
)
def test_refusals_are_one_sentence_in_both_languages(said: str, sentence: str) -> None:
    message = space.refusal(gr.Error(said, title="ZeroGPU quota exceeded"), 60)
    assert message is not None
    told = str(message)
    assert sentence in told and "\n" not in told
    needed = re.findall(r"needs (\d+) s", told)[0]
    assert chinese(message) != told and needed in chinese(message)
    assert re.search("[一-鿿]", chinese(message))
    assert space.refusal(ValueError(said), 60) is None
