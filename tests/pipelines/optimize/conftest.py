"""An Optimize at tiny size, in each precision."""

from __future__ import annotations

import pytest

from pipelines.models import device


@pytest.fixture(params=["float32", "bfloat16"])
def precision(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What "auto" is, both in turn, whatever this processor is good at. Every processor can bfloat16, if slowly."""
    monkeypatch.setattr(device, "USUAL_PRECISION", request.param)
    return request.param
