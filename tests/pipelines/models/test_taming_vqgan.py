"""The published VQGANs against the reference modules, in each form that they come in."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import msgpack
import pytest
import torch
from safetensors.torch import save_file
from taming.modules.diffusionmodules.model import Decoder, Encoder
from taming.modules.vqvae.quantize import GumbelQuantize, VectorQuantizer2
from torch import Tensor, nn

from pipelines.errors import BadInput
from pipelines.models.source import Converted, SourceCheckpoint
from pipelines.models.taming_vqgan.convert import convert
from pipelines.models.taming_vqgan.network import TamingVqgan, TamingVqganConfig
from pipelines.weights.readers import read_original

TINY = {
    "ch": 32,
    "out_ch": 3,
    "ch_mult": (1, 2, 3),
    "num_res_blocks": 2,
    "attn_resolutions": [16],
    "in_channels": 3,
    "resolution": 32,
    "z_channels": 12,
    "double_z": False,
}
F8 = TINY | {"ch_mult": (2, 1, 1, 2), "num_res_blocks": 1, "attn_resolutions": [], "z_channels": 4}


class Reference(nn.Module):
    """taming's VQModel, or its GumbelVQ, put together from its parts, with random weights."""

    def __init__(self, sizes: dict[str, Any], code_count: int, code_size: int, gumbel: bool = False):
        super().__init__()
        latent = sizes["z_channels"]
        self.encoder, self.decoder = Encoder(**sizes), Decoder(**sizes)
        if gumbel:
            self.quantize = GumbelQuantize(latent, code_size, n_embed=code_count)
        else:
            self.quantize = VectorQuantizer2(code_count, code_size, beta=0.25)
        self.quant_conv = nn.Conv2d(latent, code_size, 1)
        self.post_quant_conv = nn.Conv2d(code_size, latent, 1)

    @classmethod
    def scattered(cls, *args: Any, **kwargs: Any) -> Reference:
        """With every weight, norm and bias away from where it starts."""
        torch.manual_seed(0)
        return scatter(cls(*args, **kwargs))

    def features(self, images: Tensor) -> Tensor:
        return self.quant_conv(self.encoder(images))

    def tokens(self, images: Tensor) -> Tensor:
        features = self.features(images)
        if isinstance(self.quantize, GumbelQuantize):
            return self.quantize(features, return_logits=True)[3].argmax(1)
        shape = (len(images), *features.shape[2:])
        return self.quantize(features)[2][2].view(shape)

    def picture(self, tokens: Tensor) -> Tensor:
        shape = (*tokens.shape, self.post_quant_conv.in_channels)
        return self.decoder(self.post_quant_conv(self.quantize.get_codebook_entry(tokens.flatten(), shape)))


def scatter(network: Any) -> Any:
    for name, one in network.named_parameters():
        if "quantize.embed" in name:
            one.data.normal_()
        elif one.ndim == 1:
            one.data.add_(torch.randn_like(one) * 0.2)
        elif name in ("quant_conv.weight", "quantize.proj.weight"):
            one.data.mul_(5)  # or all pictures would have the same tokens
    return network.eval()


def images() -> Tensor:
    """(2, 3, 24, 32) in [-1, 1]: coarse blocks, which differ from token to token, and some noise."""
    generator = torch.Generator().manual_seed(1)
    blocks = torch.randint(2, (2, 3, 6, 8), generator=generator).float().repeat_interleave(4, 2)
    noise = torch.rand(2, 3, 24, 32, generator=generator)
    return (0.7 * blocks.repeat_interleave(4, 3) + 0.3 * noise) * 2 - 1


def some_tokens(count: int, *shape: int) -> Tensor:
    return torch.randint(count, shape, generator=torch.Generator().manual_seed(2))


def assert_near(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


def loaded(one: Converted) -> TamingVqgan:
    assert one.kind == "taming-vqgan"
    vqgan = TamingVqgan(TamingVqganConfig.from_dict(one.config))
    vqgan.load_state_dict(one.tensors)
    return vqgan.eval()


def ours(reference: nn.Module) -> TamingVqgan:
    return loaded(convert(SourceCheckpoint("last.ckpt", reference.state_dict(), {})))


# ---------------------------------------------------------------------------------------------- the published forms


def test_a_lightning_checkpoint(tmp_path: Path) -> None:
    reference = Reference.scattered(TINY, 50, 8)
    state = {**reference.state_dict(), "loss.discriminator.main.0.weight": torch.zeros(4, 3, 4, 4)}
    hyper = {"ddconfig": {"resolution": 64, "ch": 32}, "n_embed": 50}
    adam = {"state": {0: {"exp_avg": torch.zeros(3)}}}
    torch.save(
        {"state_dict": state, "hyper_parameters": hyper, "epoch": 3, "optimizer_states": [adam]},
        tmp_path / "last.ckpt",
    )
    vqgan = loaded(convert(read_original(tmp_path / "last.ckpt")))
    assert vqgan.config == TamingVqganConfig(
        image_size=64,
        input_width=32,
        widths=(32, 64, 96),
        block_count=2,
        attention_levels=(1,),
        latent_size=12,
        code_count=50,
        code_size=8,
    )
    assert (vqgan.config.factor, vqgan.config.grid) == (4, 16)
    with torch.no_grad():
        assert_near(vqgan.encode(images()), reference.features(images()))
        tokens = vqgan.encode_tokens(images())
        assert torch.equal(tokens, reference.tokens(images()))
        assert len(tokens.unique()) > 4
        assert_near(vqgan.decode_tokens(tokens), reference.picture(tokens))


@pytest.mark.parametrize("prefix", ["first_stage_model.", "model."])
def test_a_part_of_a_larger_model(tmp_path: Path, prefix: str) -> None:
    reference = Reference.scattered(F8, 40, 4)
    state = {f"{prefix}{name}": one for name, one in reference.state_dict().items()}
    state["cond_stage_model.post_quant_conv.weight"] = torch.zeros(4, 4, 1, 1)
    state["model.diffusion_model.out.2.bias"] = torch.zeros(4)
    save_file(state, tmp_path / "model.safetensors")
    vqgan = loaded(convert(read_original(tmp_path / "model.safetensors")))
    assert vqgan.config.widths == (64, 32, 32, 64)
    assert vqgan.config.input_width == 32
    assert vqgan.config.image_size == 256
    with torch.no_grad():
        assert torch.equal(vqgan.encode_tokens(images()), reference.tokens(images()))
        assert_near(
            vqgan.decode_tokens(some_tokens(40, 1, 2, 3)), reference.picture(some_tokens(40, 1, 2, 3))
        )


@torch.no_grad()
def test_gumbel_codes_are_the_likeliest_not_the_nearest() -> None:
    reference = Reference.scattered(TINY | {"z_channels": 8}, 50, 8, gumbel=True)
    vqgan = ours(reference)
    tokens = vqgan.encode_tokens(images())
    assert torch.equal(tokens, reference.tokens(images()))
    assert len(tokens.unique()) > 4
    assert not torch.equal(tokens, vqgan.quantize(reference.features(images())))
    assert torch.equal(vqgan.quantize(vqgan.encode(images())), tokens)
    assert_near(vqgan.decode_tokens(tokens), reference.picture(tokens))


@torch.no_grad()
def test_the_flax_file_of_dalle_mini_has_pixels_from_0_to_1(tmp_path: Path) -> None:
    reference = Reference.scattered(TINY, 50, 8)
    (tmp_path / "flax_model.msgpack").write_bytes(flax_file(reference.state_dict()))
    vqgan = loaded(convert(read_original(tmp_path / "flax_model.msgpack")))
    assert vqgan.config.unit_range
    assert_near(vqgan.encode(images()), reference.features((images() + 1) / 2))
    tokens = vqgan.encode_tokens(images())
    assert torch.equal(tokens, reference.tokens((images() + 1) / 2))
    assert_near((vqgan.decode_tokens(tokens) + 1) / 2, reference.picture(tokens))


def test_min_dalles_detokenizer_can_only_decode(tmp_path: Path) -> None:
    reference = Reference.scattered(TINY, 50, 8)
    state = {
        name.replace("quantize.", ""): one
        for name, one in reference.state_dict().items()
        if not name.startswith(("encoder.", "quant_conv."))
    }
    torch.save(state, tmp_path / "detoker.pt")
    vqgan = loaded(convert(read_original(tmp_path / "detoker.pt")))
    assert not vqgan.config.has_encoder
    with torch.no_grad():
        tokens = some_tokens(50, 2, 5, 3)
        assert_near((vqgan.decode_tokens(tokens) + 1) / 2, reference.picture(tokens))
    for read in (vqgan.encode, vqgan.encode_tokens):
        with pytest.raises(BadInput, match=r"a decoder only.*vqgan_imagenet_f16_16384"):
            read(images())


@torch.no_grad()
def test_sbers_wavelet_decoder_paints_twice_as_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """rudalle's own module; PyWavelets, which it wants, is only asked for the four numbers of Haar's filters."""
    stand_in = types.ModuleType("pywt")
    stand_in.Wavelet = Haar  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pywt", stand_in)
    folder = Path(importlib.util.find_spec("rudalle").submodule_search_locations[0]) / "vae"  # type: ignore
    package = types.ModuleType("rudalle_vae")
    package.__path__ = [str(folder)]
    monkeypatch.setitem(sys.modules, "rudalle_vae", package)
    model = importlib.import_module("rudalle_vae.model")
    torch.manual_seed(0)
    sizes = Fields(TINY | {"z_channels": 8})
    reference = scatter(model.GumbelVQ(ddconfig=sizes, n_embed=50, embed_dim=8, dwt=True))
    state = {f"model.{name}": one for name, one in reference.state_dict().items()}
    vqgan = loaded(convert(SourceCheckpoint("vqgan.gumbelf8-sber-dwt.model.ckpt", state, {})))
    assert (vqgan.config.wavelet, vqgan.config.factor, vqgan.config.grid) == (True, 8, 64)
    tokens = some_tokens(50, 2, 4, 3)
    assert_near(vqgan.decode_tokens(tokens), reference.decode(vqgan.embed(tokens)))
    smooth = nn.functional.interpolate(images(), scale_factor=2.0)
    expected = reference.encode(images(), disable_gumbel_softmax=True)[2][2]
    assert torch.equal(vqgan.encode_tokens(smooth), expected)


class Fields(dict):  # type: ignore[type-arg]
    """A dictionary whose entries are attributes too."""

    __getattr__ = dict.__getitem__
    __setattr__ = dict.__setitem__  # type: ignore[assignment]


class Haar:
    """What PyWavelets tells of db1."""

    def __init__(self, _: str):
        self.rec_lo, self.rec_hi = [0.5**0.5, 0.5**0.5], [0.5**0.5, -(0.5**0.5)]


def flax_file(state: dict[str, Tensor]) -> bytes:
    """PyTorch's weights as vqgan-jax writes them: lists by underscore, kernels (h, w, in, out), norms' axes kept."""
    tree: dict[str, Any] = {}
    for name, one in state.items():
        parts = name.split(".")
        norm = "norm" in parts[-2]
        if parts[-1] == "weight":
            parts[-1] = "scale" if norm else "kernel" if one.ndim == 4 else "embedding"
        if one.ndim == 4:
            one = one.permute(2, 3, 1, 0)
        if norm:
            one = one[None, None, None]
        path: list[str] = []
        for part in parts:
            if part.isdigit():
                path[-1] += f"_{part}"
            else:
                path.append(part)
        branch = tree
        for part in path[:-1]:
            branch = branch.setdefault(part, {})
        array = (list(one.shape), "float32", one.contiguous().numpy().tobytes())
        branch[path[-1]] = msgpack.ExtType(1, msgpack.packb(array, use_bin_type=True))
    return msgpack.packb(tree, use_bin_type=True)


# ----------------------------------------------------------------------------------------------- the published sizes


@pytest.mark.parametrize(
    ("sizes", "codes", "gumbel", "millions"),
    [
        ({"ch_mult": (1, 1, 2, 2, 4), "attn_resolutions": [16]}, 16384, False, 76.07),
        ({"ch_mult": (1, 1, 2, 2, 4), "attn_resolutions": [16]}, 1024, False, 72.14),
        ({"ch_mult": (1, 1, 2, 4), "attn_resolutions": [32]}, 8192, True, None),
    ],
)
def test_the_published_sizes(sizes: dict[str, Any], codes: int, gumbel: bool, millions: float | None) -> None:
    with torch.device("meta"):
        full = TINY | {"ch": 128, "resolution": 256, "z_channels": 256} | sizes
        reference = Reference(full, codes, 256, gumbel)
    one = convert(SourceCheckpoint("last.ckpt", reference.state_dict(), {}))
    config = TamingVqganConfig.from_dict(one.config)
    count = len(sizes["ch_mult"])
    widths = tuple(128 * k for k in sizes["ch_mult"])
    assert config == TamingVqganConfig(
        widths=widths, attention_levels=(count - 1,), code_count=codes, gumbel=gumbel
    )
    if millions:
        assert round(sum(value.numel() for value in one.tensors.values()) / 1e6, 2) == millions


def test_min_dalles_own_module_has_the_names_and_sizes_we_expect() -> None:
    """Its file alone is loaded: the package turns gradients off for the whole process."""
    folder = Path(importlib.util.find_spec("min_dalle").submodule_search_locations[0])  # type: ignore
    spec = importlib.util.spec_from_file_location("detokenizer", folder / "models" / "vqgan_detokenizer.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with torch.device("meta"):
        state = module.VQGanDetokenizer().state_dict()
    config = convert(SourceCheckpoint("detoker.pt", state, {})).config
    assert TamingVqganConfig.from_dict(config) == TamingVqganConfig(unit_range=True, has_encoder=False)


# ------------------------------------------------------------------------------------------------ what it is good for


@torch.no_grad()
def test_a_seamless_twin_has_no_edges() -> None:
    vqgan = ours(Reference.scattered(TINY, 50, 8))
    twin, tokens = vqgan.seamless(), some_tokens(50, 1, 6, 8)
    assert_near(
        twin.decode_tokens(tokens.roll((1, 3), (1, 2))), twin.decode_tokens(tokens).roll((4, 12), (2, 3))
    )
    assert_near(twin.encode(images().roll((4, 12), (2, 3))), twin.encode(images()).roll((1, 3), (2, 3)))
    plain = vqgan.decode_tokens(tokens).roll((4, 12), (2, 3))
    assert (vqgan.decode_tokens(tokens.roll((1, 3), (1, 2))) - plain).abs().max() > 0.1
    assert twin.codes is vqgan.codes


def test_a_latent_between_codes_has_a_gradient() -> None:
    vqgan = ours(Reference.scattered(TINY, 50, 8))
    z = torch.randn(1, 8, 2, 2, generator=torch.Generator().manual_seed(3), requires_grad=True)
    vqgan.decode(z).square().sum().backward()
    assert z.grad is not None
    assert z.grad.abs().min() > 0


@torch.no_grad()
def test_channels_last_and_half_precision_stay_near() -> None:
    vqgan = ours(Reference.scattered(TINY, 50, 8))
    tokens = some_tokens(50, 1, 4, 4)
    expected = vqgan.decode_tokens(tokens)
    other = copy.deepcopy(vqgan).to(memory_format=torch.channels_last)
    assert_near(other.decode_tokens(tokens), expected)
    assert_near(other.encode(images()), vqgan.encode(images()))
    halved = other.half()
    assert (halved.decode_tokens(tokens).float() - expected).abs().max() < 0.02 * expected.abs().max()
    assert halved.encode_tokens(images()).shape == (2, 6, 8)


# ------------------------------------------------------------------------------------------------------- wrong files


def test_wrong_and_incomplete_files_are_refused(tmp_path: Path) -> None:
    state = Reference.scattered(TINY, 50, 8).state_dict()

    def refused(tensors: dict[str, Tensor], words: str) -> None:
        with pytest.raises(BadInput, match=rf"^file\.ckpt .*{words}"):
            convert(SourceCheckpoint("file.ckpt", tensors, {}))

    refused({"visual.proj": torch.zeros(4, 4)}, "holds no VQGAN")
    kl = {name: one for name, one in state.items() if not name.startswith("quantize.")}
    refused(kl, "a table of codes was expected")
    for gone in ("encoder.mid.attn_1.q.bias", "decoder.up.1.block.0.norm1.weight", "quant_conv.weight"):
        refused({name: one for name, one in state.items() if name != gone}, f"{gone} should be .* is absent")
    for gone in ("decoder.up.0.block.0.conv1.weight", "decoder.conv_out.weight", "post_quant_conv.weight"):
        refused({name: one for name, one in state.items() if name != gone}, f"{gone} was expected")
    refused(state | {"encoder.conv_in.weight": torch.zeros(32, 1, 3, 3)}, "encoder.conv_in.weight should be")
    refused(state | {"decoder.up.0.block.0.conv1.weight": torch.zeros(33, 64, 3, 3)}, "sizes that no network")
    refused(
        state | {"decoder.up.0.block.0.conv1.weight": torch.zeros(3)}, "does not fit|sizes that no network"
    )
    torch.save({"state_dict": state}, tmp_path / "last.ckpt")
    whole = (tmp_path / "last.ckpt").read_bytes()
    (tmp_path / "last.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInput, match=r"last\.ckpt"):
        convert(read_original(tmp_path / "last.ckpt"))


def as_llamagen(state: dict[str, Tensor], levels: int) -> dict[str, Tensor]:
    """taming's names as LlamaGen has them: levels in the order in which they are computed, the middle by numbers."""
    middle = {"block_1": "0", "attn_1": "1", "block_2": "2"}
    renamed = {}
    for name, one in state.items():
        parts = name.split(".")
        if parts[1] in ("down", "up"):
            level = int(parts[2]) if parts[1] == "down" else levels - 1 - int(parts[2])
            inner = {"block": "res"}.get(parts[3], parts[3])
            name = ".".join([parts[0], "conv_blocks", str(level), inner, *parts[4:]])
        elif parts[1] == "mid":
            name = ".".join([parts[0], "mid", middle[parts[2]], *parts[3:]])
        renamed[name] = one
    return renamed


def test_llamagens_codes_are_found_by_their_angle(tmp_path: Path) -> None:
    """LlamaGen's quantizer divides features and codes by their lengths, then looks for the nearest (its vq_model.py)."""
    reference = Reference.scattered(TINY | {"attn_resolutions": [8]}, 50, 8)
    levels = len(TINY["ch_mult"])  # type: ignore[arg-type]
    state = as_llamagen(reference.state_dict(), levels) | {"quantize.codebook_used": torch.zeros(65536)}
    torch.save({"model": state, "epoch": 3}, tmp_path / "vq.pt")
    converted = convert(read_original(tmp_path / "vq.pt"))
    ours = loaded(converted)
    assert ours.config.unit_length and ours.config.attention_levels == (levels - 1,)
    features, table = reference.features(images()), reference.quantize.embedding.weight
    unit = nn.functional.normalize
    distances = torch.cdist(unit(features, dim=1).flatten(2).mT, unit(table, dim=1))
    tokens = distances.argmin(2).view(2, *features.shape[2:])
    plain = torch.cdist(features.flatten(2).mT, table).argmin(2).view_as(tokens)
    assert (tokens != plain).any() and tokens.unique().numel() > 3
    assert ours.encode_tokens(images()).equal(tokens)
    assert_near(ours.encode(images()), unit(features, dim=1))
    codes = unit(table, dim=1)[tokens].permute(0, 3, 1, 2)
    assert_near(ours.decode_tokens(tokens), reference.decoder(reference.post_quant_conv(codes)))


def test_a_first_stage_inside_a_transformers_checkpoint_is_found(tmp_path: Path) -> None:
    """COCO's and FacesHQ's come inside the checkpoint of a transformer, beside a second network of the same kind."""
    first, other = (Reference.scattered(TINY, codes, 8) for codes in (20, 33))
    state = {f"cond_stage_model.{name}": one for name, one in other.state_dict().items()}
    state |= {"transformer.pos_emb": torch.zeros(1, 4, 8)}
    state |= {f"first_stage_model.{name}": one for name, one in first.state_dict().items()}
    torch.save({"state_dict": state, "global_step": 7}, tmp_path / "coco.ckpt")
    ours = loaded(convert(read_original(tmp_path / "coco.ckpt")))
    assert ours.config.code_count == 20
    tokens = some_tokens(20, 2, 6, 8)
    assert_near(ours.decode_tokens(tokens), first.picture(tokens))
    assert ours.encode_tokens(images()).equal(first.tokens(images()))
