"""OpenAI's dVAE against OpenAI's own modules, saved as they were published."""

from __future__ import annotations

import copy

import dall_e
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pipelines.errors import BadInput
from pipelines.models.openai_dvae.convert import convert, merge
from pipelines.models.openai_dvae.network import Dvae, DvaeConfig
from pipelines.models.source import Converted, SourceCheckpoint
from pipelines.weights.readers import read_original

Both = tuple[nn.Module, nn.Module, Dvae]


def reference(**decoder_sizes: int) -> tuple[nn.Module, nn.Module]:
    """Their encoder and decoder with random weights, biases too."""
    torch.manual_seed(0)
    sizes = {"n_init": 24, "n_hid": 68, "n_blk_per_group": 2, "vocab_size": 520} | decoder_sizes
    encoder = dall_e.Encoder(n_hid=64, n_blk_per_group=1, vocab_size=520)
    decoder = dall_e.Decoder(**sizes)
    for module in (encoder, decoder):
        for name, one in module.named_parameters():
            if name.endswith(".b"):
                one.data.normal_(std=0.1)
            elif "res_path" in name:
                one.data.mul_(4 if module is encoder else 3)  # or the gain would hide the paths
    return encoder, decoder


def original(module: nn.Module, file: str) -> SourceCheckpoint:
    return SourceCheckpoint(file, module.state_dict(), {})


def converted(encoder: nn.Module, decoder: nn.Module) -> Converted:
    return convert(merge(original(encoder, "encoder.pkl"), original(decoder, "decoder.pkl")))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    """Their encoder and decoder, and our dVAE, which went through their files."""
    folder, modules = tmp_path_factory.mktemp("dvae"), reference()
    files = [folder / "encoder.pkl", folder / "decoder.pkl"]
    for module, file in zip(modules, files, strict=True):
        torch.save(module, file)  # the whole module, as it was published
    one = convert(merge(*map(read_original, files)))
    dvae = Dvae(DvaeConfig.from_dict(one.config))
    dvae.load_state_dict(one.tensors)
    return *modules, dvae.eval()


def pictures() -> torch.Tensor:
    return torch.rand(2, 3, 32, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1


def picture_of(decoder: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """(n, 3, h, w) in [-1, 1] by their decoder."""
    one_hot = F.one_hot(tokens, 520).permute(0, 3, 1, 2).float()
    return dall_e.unmap_pixels(decoder(one_hot)[:, :3].sigmoid()) * 2 - 1


def assert_near(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


@torch.no_grad()
def test_tokens_and_pictures_are_those_of_the_reference(both: Both) -> None:
    encoder, decoder, dvae = both
    images = pictures()
    logits = encoder(dall_e.map_pixels((images + 1) / 2))
    assert_near(dvae.encoder(0.4 * images + 0.5), logits)
    tokens = dvae.encode_tokens(images)
    assert torch.equal(tokens, logits.argmax(1))
    assert len(tokens.unique()) > 4
    expected = picture_of(decoder, tokens)
    assert (expected.abs() < 1).float().mean() > 0.5
    assert expected.std() > 0.1
    assert_near(dvae.decode_tokens(tokens).clamp(-1, 1), expected)


@torch.no_grad()
def test_a_code_is_what_the_first_convolution_makes_of_a_one_hot(both: Both) -> None:
    _, decoder, dvae = both
    tokens = torch.arange(520).view(1, 20, 26)
    one_hot = F.one_hot(tokens, 520).permute(0, 3, 1, 2).float()
    assert_near(dvae.embed(tokens), decoder.blocks.input(one_hot))
    assert torch.equal(dvae.quantize(dvae.embed(tokens)), tokens)


@torch.no_grad()
def test_what_encode_gives_is_understood_by_nearest_and_decode(both: Both) -> None:
    _, _, dvae = both
    images = pictures()
    z = dvae.encode(images)
    assert torch.equal(dvae.quantize(z), dvae.encode_tokens(images))
    assert torch.equal(dvae.decode(z), dvae.decode_tokens(dvae.encode_tokens(images)))


def test_a_latent_between_codes_has_a_gradient(both: Both) -> None:
    _, _, dvae = both
    z = torch.randn(1, 24, 2, 2, generator=torch.Generator().manual_seed(2), requires_grad=True)
    dvae.decode(z).square().sum().backward()
    assert z.grad is not None
    assert z.grad.abs().min() > 0


@torch.no_grad()
def test_a_seamless_twin_has_no_edges(both: Both) -> None:
    _, _, dvae = both
    tokens = torch.randint(520, (1, 4, 4), generator=torch.Generator().manual_seed(3))
    moved, twin = tokens.roll((1, 2), (1, 2)), dvae.seamless()
    whole = twin.decode_tokens(tokens).roll((8, 16), (2, 3))
    assert_near(twin.decode_tokens(moved), whole)
    plain = dvae.decode_tokens(tokens).roll((8, 16), (2, 3))
    assert (dvae.decode_tokens(moved) - plain).abs().max() > 1e-2
    assert twin.codes is dvae.codes


@torch.no_grad()
def test_half_precision_stays_near(both: Both) -> None:
    _, _, dvae = both
    tokens = torch.randint(520, (1, 2, 2), generator=torch.Generator().manual_seed(4))
    expected = dvae.decode_tokens(tokens)
    halved = copy.deepcopy(dvae).half()
    assert (halved.decode_tokens(tokens).float() - expected).abs().max() < 0.02
    assert halved.encode_tokens(pictures()).shape == (2, 4, 3)


def test_the_published_sizes_are_the_defaults() -> None:
    meta = torch.device("meta")
    one = converted(dall_e.Encoder(device=meta), dall_e.Decoder(device=meta))
    assert DvaeConfig.from_dict(one.config) == DvaeConfig()
    assert (DvaeConfig().factor, DvaeConfig().grid) == (8, 32)
    assert round(sum(value.numel() for value in one.tensors.values()) / 1e6, 1) == 97.6


def test_wrong_and_incomplete_files_are_refused() -> None:
    encoder, decoder = (original(one, f"{one.__class__.__name__}.pkl") for one in reference())
    with pytest.raises(BadInput, match=r"Decoder\.pkl is not the encoder"):
        merge(decoder, encoder)
    with pytest.raises(BadInput, match=r"clip\.pt is not the decoder"):
        merge(encoder, SourceCheckpoint("clip.pt", {"visual.proj": torch.zeros(2, 2)}, {}))
    for name in (
        "blocks.group_3.block_1.res_path.conv_2.w",
        "blocks.output.conv.w",
        "blocks.group_1.block_1.id_path.b",
    ):
        less = {key: one for key, one in decoder.tensors.items() if key != name}
        with pytest.raises(BadInput, match=r"Decoder\.pkl"):
            convert(merge(encoder, SourceCheckpoint("Decoder.pkl", less, {})))
    short = decoder.tensors | {"blocks.input.b": torch.zeros(3)}
    with pytest.raises(BadInput, match=r"Decoder\.pkl does not fit: codes should be"):
        convert(merge(encoder, SourceCheckpoint("Decoder.pkl", short, {})))
    other = original(reference(vocab_size=512)[1], "Decoder.pkl")
    with pytest.raises(BadInput, match=r"Decoder\.pkl does not fit"):
        convert(merge(encoder, other))
