"""ruDALL-E: against its own model files on random weights, through a file of its own form, and its vocabulary."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipelines.errors import BadInput
from pipelines.models.rudalle.convert import convert
from pipelines.models.rudalle.network import Rudalle, RudalleConfig, attention_mask
from pipelines.models.rudalle.tokenizer import RudalleTokenizer
from pipelines.models.source import SourceCheckpoint
from pipelines.weights.readers import read_original

TEXT, GRID, WIDTH, LAYERS, VOCABULARY, CODES = 6, 12, 128, 4, 40, 30


@pytest.fixture(scope="module")
def reference() -> Iterator[ModuleType]:
    """rudalle.dalle.model, under stand-ins for its packages, whose own __init__ need libraries long gone."""
    spec = importlib.util.find_spec("rudalle")
    assert spec and spec.submodule_search_locations
    package, inner = ModuleType("rudalle"), ModuleType("rudalle.dalle")
    package.__path__ = list(spec.submodule_search_locations)
    inner.__path__ = [str(Path(package.__path__[0]) / "dalle")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "rudalle", package)
        patch.setitem(sys.modules, "rudalle.dalle", inner)
        yield importlib.import_module("rudalle.dalle.model")
    for name in [name for name in sys.modules if name.startswith("rudalle.")]:
        del sys.modules[name]


def randomize(network: nn.Module, seed: int) -> None:
    """Every parameter random and of a size that matters, norms' scales about 1."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in network.named_parameters():
        noise = torch.randn(value.shape, generator=generator)
        value.data = 1 + 0.3 * noise if "norm" in name and name.endswith("weight") else noise * 0.2
    for name, value in network.named_parameters():
        if "embeddings" in name:
            value.data *= 5


def original_of(reference: ModuleType, version: int, **sizes: Any) -> Any:
    """A tiny DalleModel with random weights."""
    given: dict[str, Any] = {
        "num_layers": LAYERS,
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "num_attention_heads": WIDTH // 64,
        "embedding_dropout_prob": 0,
        "attention_dropout_prob": 0,
        "output_dropout_prob": 0,
        "text_seq_length": TEXT,
        "image_tokens_per_dim": GRID,
        "image_vocab_size": CODES,
        "cogview_sandwich_layernorm": True,
        "cogview_pb_relax": True,
        "hf_version": f"v{version}",
    }
    model = reference.DalleModel("cpu", **(given | sizes)).eval()
    randomize(model, seed=version)
    return model


@pytest.fixture(scope="module", params=[2, 3])
def pair(request: pytest.FixtureRequest, reference: ModuleType, tmp_path_factory: Any) -> tuple[Any, Rudalle]:
    """The reference, and ours by way of a file of the published form."""
    theirs = original_of(reference, request.param)
    path = tmp_path_factory.mktemp("rudalle") / f"pytorch_model_v{request.param}.bin"
    torch.save(theirs.state_dict(), path)
    return theirs, ours_from(read_original(path))


def ours_from(original: SourceCheckpoint) -> Rudalle:
    converted = convert(original)
    assert converted.kind == "rudalle"
    network = Rudalle(RudalleConfig.from_dict(converted.config))
    network.load_state_dict(converted.tensors)
    return network.eval().requires_grad_(False)


def texts_and_images(count: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    text = torch.randint(1, VOCABULARY - TEXT, (count, TEXT), generator=generator)
    text[0, 3:] = 0
    return text, torch.randint(0, CODES, (count, GRID * GRID), generator=generator)


@torch.no_grad()
def their_logits(theirs: Any, text: Tensor, image: Tensor) -> Tensor:
    """Those of every image token, given the text and the image tokens before it."""
    causal = torch.ones(1, 1, theirs.total_seq_length, theirs.total_seq_length).tril()
    logits, _ = theirs(torch.cat([text, image], 1), causal)
    start = TEXT - (theirs.hf_version == "v3")
    return logits[:, start : start + image.shape[1], VOCABULARY:]


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


def test_logits_are_the_references(pair: tuple[Any, Rudalle]) -> None:
    theirs, ours = pair
    text, image = texts_and_images()
    assert_close(ours(text, image), their_logits(theirs, text, image))


def test_masks_are_the_references(pair: tuple[Any, Rudalle]) -> None:
    theirs, ours = pair
    for layer in range(LAYERS):
        expected = theirs.transformer._get_layer_mask(layer)
        assert ours.masks[ours.mask_of_layer[layer]].equal(expected)
    assert [ours.config.pattern(layer) for layer in range(LAYERS)] == ["row", "column", "row", "convolution"]


def test_cached_drawing_is_the_whole_stream(pair: tuple[Any, Rudalle]) -> None:
    _, ours = pair
    text, image = texts_and_images()
    expected = ours(text, image)
    rows = torch.tensor([0, 0, 1, 1])  # two rows a text, as with guidance
    cache, logits = ours.prefill(text, 4)
    for position in range(GRID * GRID):
        assert_close(logits, expected[rows, position])
        if position + 1 < GRID * GRID:
            logits = ours.decode_step(cache, image[rows, position], position)


def test_a_half_precision_file_gives_the_same_network(reference: ModuleType, tmp_path: Path) -> None:
    theirs = original_of(reference, 3).half()
    torch.save(theirs.state_dict(), tmp_path / "half.bin")
    ours = ours_from(read_original(tmp_path / "half.bin"))
    text, image = texts_and_images()
    assert_close(ours(text, image), their_logits(theirs.float(), text, image))


def test_patterns_hold_at_other_sizes(reference: ModuleType) -> None:
    """The last layer may be a column one, and the number of heads may be told."""
    theirs = original_of(
        reference, 2, num_layers=2, hidden_size=24, num_attention_heads=3, image_tokens_per_dim=5
    )
    with pytest.raises(BadInput, match=r"heads share its width of 24"):
        convert(SourceCheckpoint("m.bin", theirs.state_dict(), {}))
    ours = ours_from(
        SourceCheckpoint("m.bin", theirs.state_dict(), {"num_attention_heads": 3, "hf_version": "v2"})
    )
    text, image = texts_and_images()
    assert_close(ours(text, image[:, :25]), their_logits(theirs, text, image[:, :25]))
    assert ours.config == RudalleConfig(VOCABULARY, CODES, TEXT, 5, 24, 2, 3, 11, 2)
    for file, version in (
        ("pytorch_model_v2.bin", 2),
        ("pytorch_model.bin", 3),
    ):  # so small that both masks are one
        converted = convert(SourceCheckpoint(file, theirs.state_dict(), {"num_attention_heads": 3}))
        assert converted.config["version"] == version


def test_malevich_has_its_published_layers() -> None:
    config = RudalleConfig()
    patterns = [config.pattern(layer) for layer in range(config.layer_count)]
    assert [patterns.count(one) for one in ("row", "column", "convolution")] == [17, 6, 1]
    assert (config.length, config.text_slots, replace(config, version=2).text_slots) == (1152, 128, 129)


def test_a_window_wraps_in_version_2_only() -> None:
    config = RudalleConfig(text_length=0, grid=12)
    last_of_first_row, first_of_second_row = 11, 12
    for version in (2, 3):
        mask = attention_mask(replace(config, version=version), "convolution")
        assert mask[first_of_second_row, last_of_first_row] == (version == 2)


def test_a_prompt_is_laid_out_with_bos_eos_and_pads() -> None:
    network = Rudalle(RudalleConfig(VOCABULARY, CODES, TEXT, 2, 8, 1, 1))
    assert network.text_tokens([9, 8]).tolist() == [2, 9, 8, 3, 0, 0]
    assert network.text_tokens([]).tolist() == [2, 3, 0, 0, 0, 0]
    assert network.text_tokens(list(range(10, 20))).tolist() == [2, 10, 11, 12, 13, 14]
    padded = network.embed_text(network.text_tokens([9, 8])[None])[0]
    own_pad = network.text_token.weight[VOCABULARY - TEXT + 4] + network.text_position.weight[4]
    assert padded[4].equal(own_pad)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("text_embeddings.weight", None, "text_embeddings.weight was expected"),
        ("transformer.layers.2.mlp.dense_4h_to_h.bias", None, "blocks.2.down.bias should be"),
        ("to_logits.1.weight", lambda value: value[:-3], r"head.weight should be \(30, 128\)"),
        ("transformer.row_mask", lambda value: value[1:], "attention masks"),
        ("transformer.conv_mask", lambda value: value.tril(-1), "attention masks"),
        ("unheard.of", lambda value: torch.ones(3), "unheard.of should be absent"),
    ],
)
def test_a_wrong_file_is_refused_by_name(reference: ModuleType, name: str, change: Any, said: str) -> None:
    tensors = original_of(reference, 3, image_tokens_per_dim=4).state_dict()
    if change is None:
        del tensors[name]
    else:
        tensors[name] = change(tensors.get(name))
    with pytest.raises(BadInput, match=said) as refusal:
        convert(SourceCheckpoint("malevich.bin", tensors, {}))
    assert "malevich.bin" in str(refusal.value)


def test_a_truncated_file_is_refused(reference: ModuleType, tmp_path: Path) -> None:
    torch.save(original_of(reference, 3, image_tokens_per_dim=4).state_dict(), tmp_path / "whole.bin")
    (tmp_path / "cut.bin").write_bytes((tmp_path / "whole.bin").read_bytes()[:-5000])
    with pytest.raises(BadInput, match=r"cut\.bin"):
        read_original(tmp_path / "cut.bin")


# --------------------------------------------------------------------------------------------------------- the vocabulary

CHARACTERS = "\u2581абвкотш "[:-1]  # ids 4, 5, ...: space 4, а 5, б 6, в 7, к 8, о 9, т 10, ш 11
RULES = [(8, 9), (4, 12), (13, 10), (5, 5), (12, 10), (15, 5)]  # ко, _ко, _кот, аа, кот, ааа


def vocabulary_lines() -> list[str]:
    lines = [f"{len(CHARACTERS)} {len(RULES)}"]
    lines += [f"{ord(character)} {4 + k}" for k, character in reversed(list(enumerate(CHARACTERS)))]
    lines += [f"{left} {right} {4 + len(CHARACTERS) + k}" for k, (left, right) in enumerate(RULES)]
    return [*lines, "1 0 2 3"]


@pytest.fixture
def tokenizer(tmp_path: Path) -> RudalleTokenizer:
    (tmp_path / "bpe.model").write_text("\n".join(vocabulary_lines()) + "\n")
    return RudalleTokenizer.load(tmp_path / "bpe.model")


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", []),
        ("кот", [14]),  # к о -> ко, _ ко -> _ко, _ко т -> _кот
        ("КОТ  \n кот", [14, 14]),
        ("окот", [4, 9, 16]),  # inside a word nothing joins the space: о, кот
        ("ааааа", [4, 15, 17]),  # аа аа а, from the left; then the last two, since _ joins nothing
        ("ааа", [4, 17]),
        ("шzzш", [4, 11, 1, 11]),  # one unknown a run
        ("кzот😀😀", [4, 8, 1, 9, 10, 1]),
        ("\u2581кот\u2581", [14]),  # the sign of the space is a space
        ("кот\u00a0ш", [14, 1, 11]),  # a space that does not break is no space, and unknown
    ],
)
def test_words_merge_by_the_rules_in_their_order(
    tokenizer: RudalleTokenizer, text: str, ids: list[int]
) -> None:
    assert tokenizer.encode(text) == ids


def test_merging_a_pair_at_a_time_gives_the_same(tokenizer: RudalleTokenizer) -> None:
    """The definition, slowly: of all pairs the one of the earliest rule, the leftmost first, again and again."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        letters = torch.randint(1, len(CHARACTERS), (12,), generator=generator).tolist()
        ids = [4, *(4 + letter for letter in letters)]
        while found := [(RULES.index(pair), k) for k, pair in enumerate(pairwise(ids)) if pair in RULES]:
            rank, k = min(found)
            ids[k : k + 2] = [4 + len(CHARACTERS) + rank]
        assert tokenizer.encode("".join(CHARACTERS[letter] for letter in letters)) == ids


def test_pieces_give_the_text_back(tokenizer: RudalleTokenizer) -> None:
    assert tokenizer.pieces("Кот коткоаа") == [" кот", " кот", "ко", "аа"]
    assert "".join(tokenizer.pieces("  ваш  КОТ аввабк")).strip() == "ваш кот аввабк"
    assert tokenizer.pieces("шzzш") == [" ", "ш", "?", "ш"]


def test_words_with_unknown_characters_are_named(tokenizer: RudalleTokenizer) -> None:
    assert tokenizer.unknown_words("кот cat ваш 猫 cat кот!") == ["cat", "猫", "кот!"]
    assert tokenizer.unknown_words("Кот ваш") == []


def test_the_vocabulary_counts_its_specials(tokenizer: RudalleTokenizer) -> None:
    assert tokenizer.vocabulary_size == 4 + len(CHARACTERS) + len(RULES)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda lines: lines[:-1], "lines"),
        (lambda lines: [], "bpe.model"),
        (lambda lines: [*lines[:-1], "0 1 2 3"], r"last line should be \(1, 0, 2, 3\)"),
        (lambda lines: [lines[0], "97 x", *lines[2:]], "invalid literal"),
        (lambda lines: [lines[0], "97 4", *lines[2:]], "ids should be 4 to 17"),
        (lambda lines: [*lines[:-2], "15 99 17", lines[-1]], "does not join two earlier tokens"),
        (lambda lines: [*lines[:-2], "15 5", lines[-1]], "bpe.model"),
        (lambda lines: [*lines[:8], f"{10**7} 4", *lines[9:]], "bpe.model"),
        (lambda lines: [*lines[:8], "32 4", *lines[9:]], "begins a word"),
    ],
)
def test_a_damaged_vocabulary_is_refused(tmp_path: Path, damage: Any, said: str) -> None:
    path = tmp_path / "bpe.model"
    path.write_text("\n".join(damage(vocabulary_lines())))
    with pytest.raises(BadInput, match=said) as refusal:
        RudalleTokenizer.load(path)
    assert "bpe.model" in str(refusal.value)


def test_a_missing_or_binary_vocabulary_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    for name in ("absent", "binary"):
        with pytest.raises(BadInput, match=name):
            RudalleTokenizer.load(tmp_path / name)
