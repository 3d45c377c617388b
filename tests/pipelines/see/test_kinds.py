"""Every kind of CLIP: Transformers and ResNets of the published ones, and those that were trained with a sigmoid."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pipelines.models.openai_clip.network import OpenaiClip, OpenaiClipConfig
from pipelines.see.classify import probabilities
from pipelines.see.relevance import GRID, relevance

SIZES: dict[str, Any] = {
    "image_size": 32, "image_width": 32, "image_head_count": 2, "embedding_size": 16, "text_width": 16,
    "text_layer_count": 1, "text_head_count": 1, "text_inner_width": 16, "vocabulary_size": 20,
}  # fmt: skip
TRANSFORMER: dict[str, Any] = {"patch_size": 8, "image_layer_count": 1, "image_inner_width": 32}
RESNET: dict[str, Any] = {"image_block_counts": (1, 1, 1, 1), "image_width": 8}


class SigmoidClip(OpenaiClip):
    """One that learned a bias, as SigLIP does."""

    def __init__(self, config: OpenaiClipConfig, tokenizer: Any):
        super().__init__(config, tokenizer)
        self.bias = nn.Parameter(torch.tensor(-10.0))


def made(kind: type[OpenaiClip], tower: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    return kind(OpenaiClipConfig(**{**SIZES, **tower}), cast(Any, None)).eval().requires_grad_(False)


@pytest.mark.parametrize("tower", [TRANSFORMER, RESNET], ids=["transformer", "resnet"])
def test_maps_need_the_role_alone(tower: dict[str, Any]) -> None:
    clip = made(OpenaiClip, tower)
    generator = torch.Generator().manual_seed(1)
    picture = torch.rand(1, 3, 40, 40, generator=generator) * 2 - 1
    texts = F.normalize(torch.randn(2, 16, generator=generator), dim=1)
    found = relevance(clip, picture, texts, ["one", "two"])
    assert [each.text for each in found] == ["one", "two"]
    for each in found:
        assert each.map.shape == (GRID, GRID) and each.map.max() == 1 and each.map.isfinite().all()
        x, y = (int(share * GRID) for share in each.peak)
        assert each.map[y, x] == 1
    assert not torch.equal(found[0].map, found[1].map)


def test_a_bias_makes_it_a_sigmoid() -> None:
    cosines = torch.tensor([[0.3, -0.1]])
    softmax, sigmoid = made(OpenaiClip, TRANSFORMER), made(SigmoidClip, TRANSFORMER)
    assert softmax.logit_bias is None and sigmoid.logit_bias == -10
    assert torch.allclose(probabilities(softmax, cosines), (cosines / 0.07).softmax(1), atol=1e-6)
    assert torch.allclose(probabilities(sigmoid, cosines), (cosines / 0.07 - 10).sigmoid(), atol=1e-6)
