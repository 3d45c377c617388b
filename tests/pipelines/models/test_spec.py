"""The table of families: it names all folders, and a new family is one folder and one row."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import pytest
import torch

import pipelines.models
from app.cli.main import main
from pipelines.models import base
from pipelines.models import spec as table
from pipelines.models.spec import SPECS, ModelSpec
from pipelines.optimize.pipeline import Optimize
from pipelines.optimize.settings import OptimizeSettings
from pipelines.studio import Studio
from pipelines.weights.catalog import checkpoint_of

ROLES: dict[str, type] = {
    "clip": base.Clip, "vqgan": base.Codec, "dalle": base.Decoder, "unet": base.Denoiser, "tokenizer": base.Tokenizer,
}  # fmt: skip
FIELDS = ("config", "network", "tokenizer", "convert", "merge")
# A codec whose codes are colours of squares: a folder as a contributor would add it.
MOSAIC = {
    "__init__.py": "",
    "network.py": """
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from pipelines.models.base import CodecNetwork
from pipelines.models.checkpoint import Config


@dataclass(frozen=True)
class MosaicConfig(Config):
    code_count: int
    factor: int = 8
    image_size: int = 32


class Mosaic(CodecNetwork):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.codes = nn.Parameter(torch.zeros(config.code_count, 3))

    def encode(self, images):
        return F.avg_pool2d(images, self.config.factor)

    def decode(self, codes):
        return F.interpolate(codes, scale_factor=self.config.factor, mode="nearest")
""",
    "convert.py": """
from pipelines.models.mosaic.network import Mosaic, MosaicConfig
from pipelines.models.source import checked, size_of


def convert(original):
    sizes = {"code_count": size_of(original, "colours", 0)}
    return checked("mosaic", original, MosaicConfig, sizes, Mosaic, {"codes": original.tensors["colours"]})
""",
}
ROW = ModelSpec(
    kind="mosaic",
    role="vqgan",
    folder="mosaic",
    config="network.MosaicConfig",
    network="network.Mosaic",
    family="mosaic",
    convert="convert.convert",
)


@pytest.mark.parametrize("kind", SPECS)
def test_every_name_of_a_row_is_there(kind: str) -> None:
    spec = SPECS[kind]
    assert spec.kind == kind and spec.role
    for field in FIELDS:
        if getattr(spec, field):
            part = spec.part(field)
            assert callable(part) and part.__module__.startswith(f"pipelines.models.{spec.folder}")
    if spec.network:
        assert dataclasses.is_dataclass(spec.part("config")) and issubclass(
            spec.part("network"), torch.nn.Module
        )
    if spec.vocabulary:
        assert checkpoint_of(spec.vocabulary).role == "tokenizer"
    if spec.text_encoder:
        assert checkpoint_of(spec.text_encoder).role == "clip"
    if spec.half:
        assert isinstance(getattr(torch, spec.half), torch.dtype)


@pytest.mark.parametrize("kind", [kind for kind, spec in SPECS.items() if spec.role in ROLES])
def test_a_family_has_the_methods_of_its_role(kind: str) -> None:
    spec = SPECS[kind]
    role, own = ROLES[spec.role], spec.part("tokenizer" if spec.role == "tokenizer" else "network")
    for protocol in role.__mro__[:-3]:  # without Protocol, Generic and object
        for name, method in vars(protocol).items():
            if inspect.isfunction(method) and not name.startswith("_"):
                expected = list(inspect.signature(method).parameters)
                assert list(inspect.signature(getattr(own, name)).parameters)[: len(expected)] == expected, (
                    name
                )


# what the studio makes of networks of a pack, or of a folder of diffusers
ASSEMBLED = {
    ("prior", "denoiser"),
    ("prior", "diffusion"),
    *(("flow", name) for name in ("base", "qwen", "t5", "sana", "network")),
    ("stable_diffusion", "denoiser"),
    ("stable_diffusion", "load"),
    ("stable_diffusion", "network"),
    ("stable_diffusion", "previewer"),
}


def test_every_folder_has_a_row_and_every_module_of_it_a_field() -> None:
    folder = Path(pipelines.models.__file__).parent
    modules = {(path.parent.name, path.stem) for path in folder.glob("*/*.py")} - {
        (path.name, "__init__") for path in folder.iterdir()
    }
    named = {
        (spec.folder, getattr(spec, field).partition(".")[0])
        for spec in SPECS.values()
        for field in FIELDS
        if getattr(spec, field)
    }
    assert named == modules - ASSEMBLED


def test_a_family_is_one_folder_and_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A throwaway family is added, found out by its file, converted, listed, loaded and painted with."""
    (tmp_path / "families" / "mosaic").mkdir(parents=True)
    for name, text in MOSAIC.items():
        (tmp_path / "families" / "mosaic" / name).write_text(text, "utf-8")
    monkeypatch.setattr(
        pipelines.models, "__path__", [*pipelines.models.__path__, str(tmp_path / "families")]
    )
    monkeypatch.setitem(table.SPECS, ROW.kind, ROW)

    monkeypatch.setenv("ATELIER_MODELS", str(tmp_path / "models"))
    colours = torch.rand(20, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1
    torch.save({"colours": colours}, tmp_path / "published.pt")
    assert main(["models", "add", str(tmp_path / "published.pt"), "--name", "squares"]) == 0
    assert checkpoint_of("squares").role == "vqgan"

    studio = Studio("tiny", "cpu", {"vqgan": "squares"})
    pipeline = studio.pipeline("optimize")
    assert isinstance(pipeline, Optimize) and type(pipeline.vqgan).__name__ == "Mosaic"
    assert torch.equal(pipeline.vqgan.codes, colours)
    settings = pipeline.prepare(OptimizeSettings(prompt="a red heart", steps=2, size="32x32"))
    steps = pipeline(settings)
    try:
        while True:
            next(steps)
    except StopIteration as end:
        pictures = end.value
    assert pictures[0].image.size == (32, 32)
    assert studio.models("optimize")["vqgan"]["name"] == "squares"
