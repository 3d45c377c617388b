"""A user's DALLE-pytorch checkpoint: against the library's own files on random weights, through a saved checkpoint."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipelines.errors import BadInput
from pipelines.models.dalle_pytorch.convert import convert, convert_vae
from pipelines.models.dalle_pytorch.network import (
    DallePytorch,
    DallePytorchConfig,
    DiscreteVae,
    DiscreteVaeConfig,
    attention_mask,
    rotary_angles,
)
from pipelines.models.source import SourceCheckpoint
from pipelines.weights.readers import read_original

TEXT, GRID, WORDS, CODES = 6, 8, 20, 24
ALL_TYPES = ("full", "axial_row", "axial_col", "conv_like")
VAE_PARAMS = {
    "image_size": 16,
    "num_layers": 1,
    "num_tokens": CODES,
    "codebook_dim": 12,
    "hidden_dim": 8,
    "num_resnet_blocks": 1,
}


@pytest.fixture(scope="module")
def reference() -> Iterator[ModuleType]:
    """dalle_pytorch.dalle_pytorch, under stand-ins for its package and for the parts that need libraries long gone."""
    spec = importlib.util.find_spec("dalle_pytorch")
    assert spec and spec.submodule_search_locations
    package = ModuleType("dalle_pytorch")
    package.__path__ = list(spec.submodule_search_locations)
    distributed: Any = ModuleType("dalle_pytorch.distributed_utils")
    distributed.is_distributed = None
    codecs: Any = ModuleType("dalle_pytorch.vae")
    codecs.OpenAIDiscreteVAE, codecs.VQGanVAE = type("OpenAI", (), {}), type("VQGan", (), {})
    package.distributed_utils = distributed  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        for module in (package, distributed, codecs):
            patch.setitem(sys.modules, module.__name__, module)
        yield importlib.import_module("dalle_pytorch.dalle_pytorch")
    for name in [name for name in sys.modules if name.startswith("dalle_pytorch.")]:
        del sys.modules[name]


def randomize(network: nn.Module, seed: int = 0) -> None:
    """Every parameter random and of a size that matters, norms' scales about 1, but for fixed frequencies."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in network.named_parameters():
        noise = torch.randn(value.shape, generator=generator)
        if "norm" in name and name.endswith("weight"):
            value.data = 1 + 0.3 * noise
        elif "emb" in name or "scale" in name:
            value.data = noise
        else:
            value.data = noise * 0.3


def trained(reference: ModuleType, **hparams: Any) -> tuple[Any, dict[str, Any]]:
    """A tiny DALLE with random weights, and its hparams."""
    told: dict[str, Any] = {
        "num_text_tokens": WORDS,
        "text_seq_len": TEXT,
        "dim": 24,
        "depth": 2,
        "heads": 2,
        "dim_head": 20,
        "attn_types": ALL_TYPES,
        "reversible": False,
        "shift_tokens": True,
        "rotary_emb": True,
    }
    told |= hparams
    theirs = reference.DALLE(vae=reference.DiscreteVAE(**VAE_PARAMS), **told).eval()
    randomize(theirs)
    return theirs, told


def saved(theirs: nn.Module, hparams: dict[str, Any], path: Path) -> Path:
    """A checkpoint as train_dalle.py writes it."""
    torch.save(
        {
            "hparams": hparams,
            "vae_params": VAE_PARAMS,
            "epoch": 3,
            "version": "1.6.6",
            "vae_class_name": "DiscreteVAE",
            "weights": theirs.state_dict(),
            "opt_state": torch.optim.Adam(theirs.parameters()).state_dict(),
            "scheduler_state": None,
        },
        path,
    )
    return path


def original_of(theirs: nn.Module, hparams: dict[str, Any], file: str = "dalle.pt") -> SourceCheckpoint:
    """What reading such a checkpoint gives, without the file."""
    tensors = {f"weights.{name}": tensor for name, tensor in theirs.state_dict().items()}
    return SourceCheckpoint(file, tensors, {"hparams": hparams, "vae_params": VAE_PARAMS})


def ours_from(original: SourceCheckpoint) -> DallePytorch:
    converted = convert(original)
    assert converted.kind == "dalle-pytorch"
    network = DallePytorch(DallePytorchConfig.from_dict(converted.config))
    network.load_state_dict(converted.tensors)
    return network.eval().requires_grad_(False)


def texts_and_images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    text = torch.randint(1, WORDS, (2, TEXT), generator=generator)
    text[0, 3:] = 0
    return text, torch.randint(0, CODES, (2, GRID * GRID), generator=generator)


@torch.no_grad()
def their_logits(theirs: Any, text: Tensor, image: Tensor) -> Tensor:
    return theirs(text.clone(), image)[:, TEXT:, theirs.num_text_tokens :]


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


def assert_cached_is_whole(ours: DallePytorch, text: Tensor, image: Tensor) -> None:
    expected = ours(text, image)
    rows = torch.tensor([0, 0, 1, 1])  # two rows a text, as with guidance
    cache, logits = ours.prefill(text, 4)
    for position in range(GRID * GRID):
        assert_close(logits, expected[rows, position])
        if position + 1 < GRID * GRID:
            logits = ours.decode_step(cache, image[rows, position], position)


@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("rotary", [True, False])
@pytest.mark.parametrize("attention", ALL_TYPES)
def test_logits_are_the_librarys(reference: ModuleType, attention: str, rotary: bool, shift: bool) -> None:
    theirs, hparams = trained(reference, attn_types=(attention,), rotary_emb=rotary, shift_tokens=shift)
    ours = ours_from(original_of(theirs, hparams))
    assert (ours.config.rotary, ours.config.shift_tokens) == (rotary, shift)
    text, image = texts_and_images()
    assert_close(ours(text, image), their_logits(theirs, text, image))
    assert_cached_is_whole(ours, text, image)


@pytest.mark.parametrize(
    "hparams",
    [
        {"depth": 5},
        {"depth": 3, "attn_types": ["axial_col", "conv_like"], "sandwich_norm": True, "stable": True},
        {"share_input_output_emb": True, "shared_attn_ids": [0, 1, 2, 3], "shared_ff_ids": [0], "depth": 6},
        {
            "attn_types": None,
            "dim": 22,
            "dim_head": 19,
            "heads": 3,
        },  # sizes that thirds and quarters do not divide
        {"attn_types": ["axial_row", "axial_col"], "optimize_for_inference": True},
    ],
)
def test_a_saved_checkpoint_gives_the_same_logits(
    reference: ModuleType, tmp_path: Path, hparams: dict[str, Any]
) -> None:
    theirs, told = trained(reference, **hparams)
    ours = ours_from(read_original(saved(theirs, told, tmp_path / "dalle.pt")))
    text, image = texts_and_images()
    assert_close(ours(text, image), their_logits(theirs, text, image))
    assert_cached_is_whole(ours, text, image)


def test_a_checkpoint_of_half_precision_is_read(reference: ModuleType, tmp_path: Path) -> None:
    theirs, told = trained(reference, rotary_emb=False)
    ours = ours_from(read_original(saved(theirs.half(), told, tmp_path / "half.pt")))
    text, image = texts_and_images()
    assert_close(ours(text, image), their_logits(theirs.float(), text, image))


def test_older_names_and_frequencies_are_known(reference: ModuleType) -> None:
    """Before 1.4 no layer was wrapped for a cache; axial positions and pixel frequencies had other forms."""
    theirs, told = trained(reference, rotary_emb=False, shift_tokens=False)
    original = original_of(theirs, told)
    renamed = {
        name.replace(".fn.fn.fn.to_", ".fn.fn.to_").replace(
            "image_pos_emb.weights.", "image_pos_emb.weights_"
        ): one
        for name, one in original.tensors.items()
    }
    assert renamed.keys() != original.tensors.keys()
    ours = ours_from(SourceCheckpoint("old.pt", renamed, original.metadata))
    text, image = texts_and_images()
    assert_close(ours(text, image), their_logits(theirs, text, image))

    theirs, told = trained(reference)
    size = told["dim_head"] // 3
    octaves = 2 ** torch.linspace(0, torch.tensor(5.0).log2().item(), size // 2) * torch.pi
    table = theirs.transformer.pos_emb[0]  # replace the angles of both axes, as the old library had them
    axis = (torch.linspace(-1, 1, GRID)[:, None] * octaves).repeat_interleave(2, 1)
    third = table.shape[1] // 3
    table[: TEXT + 1, third:] = (-10 * octaves).repeat_interleave(2).repeat(2)
    table[TEXT + 1 :, third : 2 * third] = axis.repeat_interleave(GRID, 0)
    table[TEXT + 1 :, 2 * third :] = axis.repeat(GRID, 1)
    ours = ours_from(original_of(theirs, told))
    assert ours.config.pixel_frequencies == "octaves"
    assert_close(ours(text, image), their_logits(theirs, text, image))


def test_angles_are_the_librarys(reference: ModuleType) -> None:
    theirs, told = trained(reference, dim_head=64)
    angles = rotary_angles(ours_from(original_of(theirs, told)).config)
    assert torch.allclose(angles, theirs.transformer.pos_emb[0], rtol=1e-6)
    assert angles.shape[1] == 60


def test_patterns_are_the_librarys_own() -> None:
    """By hand, for the token in row 5, column 3 of 8."""
    config = DallePytorchConfig(10, 10, text_length=2, grid=8)
    image = {
        kind: attention_mask(config, kind)[3:, 3:][5 * 8 + 3].nonzero()[:, 0].tolist() for kind in ALL_TYPES
    }
    assert image["full"] == list(range(44))
    assert image["axial_row"] == [40, 41, 42, 43]
    assert image["axial_col"] == [3, 11, 19, 27, 35, 43]
    assert image["conv_like"] == [row * 8 + column for row in range(1, 6) for column in range(4)]
    assert attention_mask(config, "conv_like")[3:, :3].all()


def test_a_prompt_is_laid_out_with_a_pad_for_each_position() -> None:
    network = DallePytorch(DallePytorchConfig(WORDS + TEXT, CODES, TEXT, 2, 8, 1, 1, 8))
    assert network.text_tokens([9, 8]).tolist() == [9, 8, 0, 0, 0, 0]
    assert network.text_tokens(list(range(1, 9))).tolist() == [1, 2, 3, 4, 5, 6]
    assert network.text_tokens([]).tolist() == [0] * TEXT
    embedded = network.embed_text(network.text_tokens([9])[None])[0]
    assert embedded.equal(network.text_token.weight[[0, 9, *range(WORDS + 1, WORDS + TEXT)]])


@pytest.mark.parametrize(
    ("hparams", "said"),
    [
        ({"reversible": True}, "reversible True"),
        ({"attn_types": ["full", "sparse"]}, "attention type 'sparse'"),
        ({"attn_types": ["mlp"]}, "attention type 'mlp'"),
        ({"sparse_attn": True}, "sparse_attn True"),
        ({"heads": "two"}, "heads 'two'"),
        ({"heads": 3}, "blocks.0.out.weight should be"),
        ({"text_seq_len": TEXT + 1}, "rotary positions"),
    ],
)
def test_what_cannot_be_drawn_with_is_refused_by_its_value(
    reference: ModuleType, hparams: dict[str, Any], said: str
) -> None:
    theirs, told = trained(reference)
    with pytest.raises(BadInput, match=said) as refusal:
        convert(original_of(theirs, told | hparams, "mine.pt"))
    assert "mine.pt" in str(refusal.value)


def test_a_reversible_checkpoint_is_refused(reference: ModuleType, tmp_path: Path) -> None:
    theirs, told = trained(reference, reversible=True)
    with pytest.raises(BadInput, match="without --reversible"):
        convert(read_original(saved(theirs, told, tmp_path / "reversible.pt")))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensors: tensors.pop("weights.text_emb.weight"), "text_emb.weight was expected"),
        (lambda tensors: tensors.pop("weights.transformer.pos_emb"), "transformer.pos_emb was expected"),
        (lambda tensors: tensors["weights.transformer.pos_emb"].mul_(1.1), "rotary positions"),
        (lambda tensors: tensors.pop("weights.to_logits.1.bias"), "head.bias should be"),
        (lambda tensors: tensors.update({"weights.odd": torch.ones(2)}), "odd should be absent"),
        (lambda tensors: tensors.clear(), "no checkpoint of DALLE-pytorch"),
    ],
)
def test_a_wrong_file_is_refused_by_name(
    reference: ModuleType, change: Callable[[dict[str, Tensor]], None], said: str
) -> None:
    original = original_of(*trained(reference), file="mine.pt")
    change(original.tensors)
    for read in (convert, convert_vae) if not original.tensors else (convert,):
        with pytest.raises(BadInput, match=said if read is convert else "no DiscreteVAE") as refusal:
            read(original)
        assert "mine.pt" in str(refusal.value)


def test_a_truncated_file_is_refused(reference: ModuleType, tmp_path: Path) -> None:
    whole = saved(*trained(reference), tmp_path / "whole.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInput, match=r"cut\.pt"):
        read_original(tmp_path / "cut.pt")


# --------------------------------------------------------------------------------------------------------- image tokens


@pytest.mark.parametrize(("layers", "blocks"), [(1, 0), (2, 2)])
def test_the_vae_is_the_librarys(reference: ModuleType, tmp_path: Path, layers: int, blocks: int) -> None:
    params = VAE_PARAMS | {"num_layers": layers, "num_resnet_blocks": blocks}
    theirs = reference.DiscreteVAE(**params).eval()
    randomize(theirs)
    torch.save({"hparams": params, "weights": theirs.state_dict()}, tmp_path / "vae.pt")
    ours = vae_from(read_original(tmp_path / "vae.pt"))
    assert (ours.config.image_size, ours.config.factor, ours.config.grid) == (16, 2**layers, 16 // 2**layers)
    pixels = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        tokens = theirs.get_codebook_indices(pixels)
        assert ours.encode_tokens(pixels * 2 - 1).flatten(1).equal(tokens)
        assert len(tokens.unique()) > 3
        pictures = theirs.decode(tokens)
        assert_close(ours.decode_tokens(ours.encode_tokens(pixels * 2 - 1)), pictures)
        assert_close(ours.decode(ours.encode(pixels * 2 - 1)), pictures)


def vae_from(original: SourceCheckpoint) -> DiscreteVae:
    converted = convert_vae(original)
    assert converted.kind == "dalle-pytorch-vae"
    vae = DiscreteVae(DiscreteVaeConfig.from_dict(converted.config))
    vae.load_state_dict(converted.tensors)
    return vae.eval().requires_grad_(False)


def test_the_vae_inside_a_dalle_is_found(reference: ModuleType, tmp_path: Path) -> None:
    theirs, told = trained(reference)
    vae = vae_from(read_original(saved(theirs, told, tmp_path / "dalle.pt")))
    tokens = texts_and_images()[1]
    with torch.no_grad():
        assert_close(vae.decode_tokens(tokens.view(2, GRID, GRID)), theirs.vae.decode(tokens))


def test_seamless_pictures_wrap(reference: ModuleType) -> None:
    vae = vae_from(original_of(*trained(reference)))
    twin, tokens = vae.seamless(), texts_and_images()[1].view(2, GRID, GRID)
    rolled = twin.decode_tokens(tokens.roll((2, 3), (1, 2)))
    assert_close(rolled, twin.decode_tokens(tokens).roll((4, 6), (2, 3)))
    inside = (
        slice(None),
        slice(None),
        slice(6, -6),
        slice(6, -6),
    )  # two residual blocks' kernels and a doubling away from the edges
    assert_close(twin.decode_tokens(tokens)[inside], vae.decode_tokens(tokens)[inside])
    assert not torch.allclose(twin.decode_tokens(tokens), vae.decode_tokens(tokens))
