"""Fixtures of the command line's tests."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pipelines.models.checkpoint import file_hash
from pipelines.weights.checkpoint import Checkpoint, File
from tests.support.models_command import Quiet, offer, small_clip


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty models folder."""
    monkeypatch.setenv("ATELIER_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """The folder that the server offers."""
    folder = tmp_path / "published"
    folder.mkdir()
    return folder


@pytest.fixture
def server(published: Path) -> Iterator[str]:
    """Its address."""
    one = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(published))
    )
    thread = threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{one.server_port}"
    one.shutdown()
    thread.join()
    one.server_close()


@pytest.fixture
def clip(server: str, published: Path, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    """An entry of the full pack whose file the server has."""
    torch.save(small_clip(), published / "clip.pt")
    entry = Checkpoint(
        name="small-clip",
        kind="openai-clip",
        files=(File(f"{server}/clip.pt", file_hash(published / "clip.pt")),),
        licence="the small licence",
        origin="a test",
        about="a CLIP of nothing",
        parameters=1000,
        working=10**6,
        megabytes=13,
    )
    return offer(monkeypatch, entry)
