"""A registry and files for the tests of the verb `models`."""

from __future__ import annotations

import http.server
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipelines.weights.checkpoint import Checkpoint
from pipelines.weights.open_weights import OPEN_WEIGHTS


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


def small_clip() -> dict[str, Tensor]:
    """A state dict in the layout and precision of OpenAI's: 32 px, patches of 16, width 64, one layer, 8-d vectors."""
    make = torch.Generator().manual_seed(3)

    def some(*shape: int) -> Tensor:
        return 0.1 * torch.randn(shape, generator=make)

    tensors = {
        "visual.class_embedding": some(64),
        "visual.positional_embedding": some(5, 64),
        "visual.conv1.weight": some(64, 3, 16, 16).half(),
        "visual.proj": some(64, 8).half(),
        "token_embedding.weight": some(49408, 64),
        "positional_embedding": some(77, 64),
        "text_projection": some(64, 8).half(),
        "logit_scale": some(),
    }
    norms = ["visual.ln_pre", "visual.ln_post", "ln_final"]
    for tower in ("visual.transformer", "transformer"):
        block = f"{tower}.resblocks.0"
        norms += [f"{block}.ln_1", f"{block}.ln_2"]
        for name, rows, columns in (
            *(("attn.in_proj_", 192, 64), ("attn.out_proj.", 64, 64)),
            *(("mlp.c_fc.", 256, 64), ("mlp.c_proj.", 64, 256)),
        ):
            tensors[f"{block}.{name}weight"] = some(rows, columns).half()
            tensors[f"{block}.{name}bias"] = some(rows).half()
    for norm in norms:
        tensors |= {f"{norm}.weight": 1 + some(64), f"{norm}.bias": some(64)}
    return tensors


def offer(monkeypatch: pytest.MonkeyPatch, entry: Checkpoint) -> Checkpoint:
    monkeypatch.setitem(OPEN_WEIGHTS, entry.name, entry)
    return entry


def save_dvae(folder: Path) -> None:
    from dall_e import Decoder, Encoder

    torch.manual_seed(1)
    torch.save(Encoder(n_hid=64, n_blk_per_group=1, vocab_size=512), folder / "encoder.pkl")
    torch.save(Decoder(n_init=8, n_hid=64, n_blk_per_group=1, vocab_size=512), folder / "decoder.pkl")
