"""Where trainings may begin instead of from nothing: open ImageNet weights, or an earlier checkpoint's fitting tensors."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pipelines.errors import BadInput
from pipelines.models.clip.network import EfficientNetTower

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, for pictures in [0, 1]
EPSILON = 1e-3  # of EfficientNet's batch norms


def imagenet_file(package: str) -> Path | None:
    """The weights inside an optional package, which is looked at and not imported; None when it is not installed."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    files = sorted(Path(spec.submodule_search_locations[0]).glob("models/*.pth"))
    return files[0] if files else None


def begin_with_imagenet(tower: EfficientNetTower, file: Path) -> None:
    """Fill a tower with an EfficientNet-Lite's weights (a state dict of tensors, read with `weights_only`).

    Each convolution takes in the batch norm that follows it: w' = w g / s, b' = b - m g / s, with s = sqrt(v + eps).
    The first one also takes in the change from ImageNet's normalization of pixels to CLIP's.
    """
    tensors = list(torch.load(file, map_location="cpu", weights_only=True).values())
    convs = [module for module in tower.modules() if isinstance(module, nn.Conv2d)]
    for k, conv in enumerate(convs):
        weight, gain, bias, mean, variance, _ = tensors[6 * k : 6 * k + 6]
        if weight.shape != conv.weight.shape:
            raise BadInput(
                "training.convolution_shape",
                file=file.name,
                number=k,
                shape=tuple(weight.shape),
                expected=tuple(conv.weight.shape),
            )
        scale = gain / torch.sqrt(variance + EPSILON)
        conv.weight.data = weight * scale[:, None, None, None]
        assert conv.bias is not None
        conv.bias.data = bias - mean * scale
    pixels, offset = _renormalized()
    stem = convs[0]
    assert stem.bias is not None
    stem.bias.data += (stem.weight.data * offset[:, None, None]).sum((1, 2, 3))
    stem.weight.data *= pixels[:, None, None]


def _renormalized() -> tuple[Tensor, Tensor]:
    """ImageNet's normalized pixel as a * y + b of ours, y = (x - 0.5) / 0.6 with x in [-1, 1]: (3,) each."""
    mean, deviation = torch.tensor(MEAN), torch.tensor(DEVIATION)
    return 0.3 / deviation, (0.75 - mean) / deviation


def begin_with(network: nn.Module, file: Path, first_rows: str = "") -> set[str]:
    """Take every tensor of a checkpoint whose name and shape fit; returns their names. BadInput when none does.

    Of the tensor `first_rows`, which may be longer there, the first rows are taken.
    """
    if not file.is_file():
        raise BadInput("training.start_missing", file=file)
    own = network.state_dict()
    try:
        tensors = load_file(file)
    except SafetensorError as error:
        raise BadInput("training.start_damaged", file=file, reason=error) from error
    if first_rows in tensors:
        tensors[first_rows] = tensors[first_rows][: len(own[first_rows])]
    fitting = {k: v.float() for k, v in tensors.items() if k in own and own[k].shape == v.shape}
    if not fitting:
        raise BadInput("training.start_of_other_network", file=file)
    network.load_state_dict(fitting, strict=False)
    return set(fitting)
