"""DALL·E mini: against min-dalle's modules and tokenizer on random weights, through files of both published forms.

Importing min-dalle turns autograd off and sets the threads, so it runs in a process of its own, once.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pipelines.benchmarks.dalle import MinDalle, step_cost
from pipelines.errors import BadInput
from pipelines.models.dalle_mini.convert import convert, merge
from pipelines.models.dalle_mini.network import DalleMini, DalleMiniConfig, StepGraphs
from pipelines.models.dalle_mini.tokenizer import DalleMiniTokenizer
from pipelines.models.source import Original
from pipelines.weights.readers import read_original

WORDS = ["cat", "cats", "red", "hat", "with", "a", "dog's", "t-shirt"]
PROMPTS = [
    "a red cat",
    "  A   Cat,  with a red HAT! ",
    "a dog's t-shirt (red)",
    "it's 3.5% of #cats & more_of ~them",
    "",
]
GUIDANCE, GREEDY = 7.0, 8
HEADS = {"encoder_attention_heads": 4}

REFERENCE = """
import json, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from min_dalle.models import DalleBartDecoder, DalleBartEncoder
from min_dalle.text_tokenizer import TextTokenizer

folder, guidance, greedy = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)
torch.manual_seed(5)
start = 16415  # as in mega: more rows than can be drawn
encoder = DalleBartEncoder(3, 32, 4, 50, 64, 40, "cpu").eval()
decoder = DalleBartDecoder(start, 32, 4, 40, 2, "cpu").eval()
for module, name in ((encoder, "encoder"), (decoder, "decoder")):
    unscaled = ("pre_self_attn_layer_norm.weight", "pre_encoder_attn_layer_norm.weight", "ln0.weight", "ln1.weight",
                "final_ln.weight")
    for key, value in module.named_parameters():
        if not key.endswith(unscaled):  # these stay 1, and are not in the published files
            norm = key.endswith("norm.weight") or key.endswith("embedding.weight") and value.ndim == 1
            value.data = 1 + 0.3 * torch.randn_like(value) if norm else 0.3 * torch.randn_like(value)
    state = {key: value for key, value in module.state_dict().items() if not key.endswith(unscaled)}
    torch.save(state, folder / f"{name}.pt")

text = torch.ones(2, 64, dtype=torch.long)
text[0, :2] = torch.tensor([0, 2])  # they put the empty text first
text[1, :6] = torch.tensor([0, 7, 8, 9, 49, 2])
encoded = encoder(text)
mask = text.not_equal(1)[:, None, None]
image = torch.randint(2**14, (1, 256))
shifted = torch.cat([torch.tensor([[start]]), image[:, :-1]], 1)
common = {"attention_mask": mask, "encoder_state": encoded}
cache = torch.zeros(2, 4, 256, 32)
logits, _ = decoder(**common, attention_state=cache, prev_tokens=shifted, token_index=torch.arange(256))
token, drawn = torch.tensor([start]), []
for place in range(greedy):
    token, cache = decoder.sample_tokens(
        settings=torch.tensor([1.0, 1, guidance]), **common, attention_state=cache,
        prev_tokens=token[:, None], token_index=torch.tensor([place]))
    drawn.append(token)
save_file({"text": text.flip(0).contiguous(), "encoded": encoded.flip(0).contiguous(), "image": image,
           "logits": logits.flip(0)[:, ::5, :2**14].contiguous(), "drawn": torch.cat(drawn)},
          folder / "outputs.safetensors")

vocabulary, merges, prompts = json.loads((folder / "words.json").read_text())
ids = [TextTokenizer(vocabulary, merges).tokenize(prompt)[1:-1] for prompt in prompts]
(folder / "ids.json").write_text(json.dumps(ids))
"""


def made_up_words() -> tuple[dict[str, int], list[str]]:
    """A vocabulary and its merges: printable ASCII but "~", and WORDS merged from their left."""
    pieces, merges = [chr(code) for code in range(33, 126)], []
    for word in WORDS:
        left = "Ġ"
        for letter in word:
            if f"{left} {letter}" not in merges:
                merges.append(f"{left} {letter}")
            left += letter
    merges += ["c a", "ca t", "' s", "r e"]
    pieces += ["Ġ", *("".join(pair.split()) for pair in merges)]
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    return vocabulary | {piece: 4 + k for k, piece in enumerate(pieces)}, merges


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with min-dalle's encoder.pt and decoder.pt, and what its modules and its tokenizer make."""
    folder = tmp_path_factory.mktemp("min_dalle")
    (folder / "words.json").write_text(json.dumps([*made_up_words(), PROMPTS]))
    command = [sys.executable, "-c", REFERENCE, str(folder), str(GUIDANCE), str(GREEDY)]
    subprocess.run(command, check=True)
    return folder


@pytest.fixture(scope="module")
def outputs(reference: Path) -> dict[str, Tensor]:
    return load_file(reference / "outputs.safetensors")


@pytest.fixture(scope="module")
def halves(reference: Path) -> tuple[Original, Original]:
    """encoder.pt and decoder.pt, and the number of heads, which so narrow a network does not tell."""
    found = [read_original(reference / f"{half}.pt") for half in ("encoder", "decoder")]
    encoder, decoder = (replace(one, numbers=HEADS) for one in found)
    return encoder, decoder


def network_of(original: Original) -> DalleMini:
    converted = convert(original)
    network = DalleMini(DalleMiniConfig.from_dict(json.loads(json.dumps(converted.config))))
    network.load_state_dict(converted.tensors)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def network(halves: tuple[Original, Original]) -> DalleMini:
    return network_of(merge(*halves))


def assert_near(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


# ---------------------------------------------------------------------------------------------------------- the network


def test_sizes_are_read_from_shapes(network: DalleMini) -> None:
    config = network.config
    assert (config.text_vocabulary, config.text_length, config.grid) == (50, 64, 16)
    assert (config.width, config.inner_width, config.head_count) == (32, 40, 4)
    assert (config.encoder_layer_count, config.decoder_layer_count) == (3, 2)
    assert (config.start_token, config.image_vocabulary) == (16415, 16384)


def test_the_encoder_equals_min_dalles(network: DalleMini, outputs: dict[str, Tensor]) -> None:
    encoded, mask = network.encode_text(outputs["text"])
    assert_near(encoded, outputs["encoded"])
    assert mask.flatten(1).sum(1).tolist() == [6, 2]


def test_logits_of_a_whole_picture_equal_min_dalles(network: DalleMini, outputs: dict[str, Tensor]) -> None:
    logits = network(outputs["text"], outputs["image"].expand(2, -1))
    assert_near(logits[:, ::5], outputs["logits"])


def test_cached_logits_equal_those_of_the_whole_picture(
    network: DalleMini, outputs: dict[str, Tensor]
) -> None:
    text, length = outputs["text"], 40
    images = torch.randint(2**14, (6, 256), generator=torch.Generator().manual_seed(1))
    whole = network(text.repeat_interleave(3, 0), images)[:, :length]
    cache, logits = network.read_text(text, 6)
    steps = [logits, *(network.next_logits(cache, images[:, k], k) for k in range(length - 1))]
    assert_near(torch.stack(steps, 1), whole)
    assert cache.text.shape[2] == 2  # keys and values of two texts, not of six rows


def test_one_text_alone_gives_the_same_logits(network: DalleMini, outputs: dict[str, Tensor]) -> None:
    _, both = network.read_text(outputs["text"], 2)
    _, one = network.read_text(outputs["text"][:1], 1)
    assert_near(one, both[:1])


def test_guided_greedy_tokens_equal_min_dalles(network: DalleMini, outputs: dict[str, Tensor]) -> None:
    cache, logits = network.read_text(outputs["text"], 2)
    drawn: list[Tensor] = []
    for place in range(GREEDY):
        said, blank = logits
        drawn.append((blank + GUIDANCE * (said - blank)).argmax())
        logits = network.next_logits(cache, drawn[-1].expand(2), place)
    assert torch.equal(torch.stack(drawn), outputs["drawn"])


def test_a_step_of_a_longer_length_hides_what_comes_after(
    network: DalleMini, outputs: dict[str, Tensor]
) -> None:
    """What CUDA graphs record: one length for many places."""
    cache, _ = network.read_text(outputs["text"], 2)
    cache.image.normal_(generator=torch.Generator().manual_seed(2))
    token, place = torch.tensor([3, 4]), torch.tensor([37])
    with torch.no_grad():
        exact = network.step(cache, token, place, 38)
        assert_near(network.step(cache, token, place, 64, masked=True), exact)
        assert not torch.allclose(network.step(cache, token, place, 64), exact)


def test_graphs_serve_every_place_from_a_few_lengths(
    network: DalleMini, outputs: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in for CUDA's recording: a "graph" that computes the same step into the same buffer again."""

    class Graph:
        def __init__(self, graphs: StepGraphs, length: int):
            self.graphs, self.length = graphs, length
            self.logits = torch.zeros(2, network.config.image_vocabulary)

        def replay(self) -> None:
            self.logits.copy_(self.graphs._step(self.length))

    def record(graphs: StepGraphs, length: int) -> tuple[Graph, Tensor]:
        graph = Graph(graphs, length)
        return graph, graph.logits

    monkeypatch.setattr(StepGraphs, "_record", record)
    plain, _ = network.read_text(outputs["text"], 2)
    cache, _ = network.read_text(outputs["text"], 2)
    graphs = StepGraphs(network, cache, (2, 2))
    for position in (*range(3), 30, 31, 126, 127, 254):
        token = torch.tensor([position, 2 * position])
        exact = network.next_logits(plain, token, position)
        monkeypatch.setattr(network, "_graphs", graphs)
        assert_near(network.next_logits(cache, token, position), exact)
        monkeypatch.setattr(network, "_graphs", None)
    assert sorted(graphs.recorded) == [32, 64, 128, 256]


def test_logits_are_float32_in_bfloat16(network: DalleMini, outputs: dict[str, Tensor]) -> None:
    cache, whole = network.read_text(outputs["text"], 2)
    half = DalleMini(network.config)
    half.load_state_dict(network.state_dict())
    half.to(torch.bfloat16)
    half_cache, logits = half.read_text(outputs["text"], 2)
    assert logits.dtype == torch.float32 and half_cache.image.dtype == torch.bfloat16
    assert (logits.bfloat16().float() != logits).any()  # finer than bfloat16
    token = torch.tensor([5, 5])
    apart = half.next_logits(half_cache, token, 0) - network.next_logits(cache, token, 0)
    assert 0 < apart.abs().max() < 0.1 * whole.abs().max()


def test_a_prompt_is_laid_out_with_its_ends(network: DalleMini) -> None:
    assert network.text_tokens([7, 8]).tolist() == [0, 7, 8, 2] + [1] * 60
    assert network.text_tokens([]).tolist() == [0, 2] + [1] * 62
    long = network.text_tokens(list(range(4, 49)) * 2).tolist()
    assert len(long) == 64 and long[0] == 0 and long[-2:] == [4 + 61 % 45, 2]


def test_gradients_reach_every_parameter(network: DalleMini, outputs: dict[str, Tensor]) -> None:
    learning = DalleMini(network.config)
    learning.load_state_dict(network.state_dict())
    learning(outputs["text"], outputs["image"].expand(2, -1)).logsumexp(-1).mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in learning.parameters())


# ------------------------------------------------------------------------------------------------------------ the files


def flax_tree(halves: tuple[Original, Original]) -> dict[str, Any]:
    """dalle-mini's tree of the same weights, by its documented names: layers stacked, kernels transposed."""
    names = {
        "self_attn": "FlaxBartAttention_0",
        "encoder_attn": "FlaxBartAttention_1",
        "pre_self_attn_layer_norm": "LayerNorm_0",
        "self_attn_layer_norm": "LayerNorm_1",
        "pre_encoder_attn_layer_norm": "LayerNorm_2",
        "encoder_attn_layer_norm": "LayerNorm_3",
        "glu": "GLU_0",
        "ln0": "LayerNorm_0",
        "ln1": "LayerNorm_1",
        "fc0": "Dense_0",
        "fc1": "Dense_1",
        "fc2": "Dense_2",
    }

    def leaf(name: str, tensor: Tensor) -> tuple[str, Tensor]:
        *path, kind = name.split(".")
        if kind == "bias":
            return name, tensor
        if path[-1].startswith("embed_"):
            return ".".join([*path, "embedding"]), tensor
        if tensor.ndim == 1:
            return ".".join([*path, "scale"]), tensor
        return ".".join([*path, "kernel"]), tensor.T

    flat: dict[str, Tensor] = {}
    stacks: dict[str, list[Tensor]] = {}
    for side, original in zip(("encoder", "decoder"), halves, strict=True):
        for key, value in original.tensors.items():
            name, tensor = leaf(key, value)
            if key.startswith("layers."):
                renamed = ".".join(names.get(part, part) for part in name.split(".")[2:])
                stack = f"model.{side}.layers.FlaxBart{side.title()}Layers.{renamed}"
                stacks.setdefault(stack, []).append(tensor)
            else:
                flat["lm_head.kernel" if key == "lm_head.weight" else f"model.{side}.{name}"] = tensor
    flat |= {name: torch.stack(tensors) for name, tensors in stacks.items()}
    tree: dict[str, Any] = {}
    for name, tensor in flat.items():
        *path, last = name.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        content = msgpack.packb((tuple(tensor.shape), "float32", tensor.contiguous().numpy().tobytes()))
        node[last] = msgpack.ExtType(1, content)
    return tree


def test_the_flax_form_holds_the_same_network(
    network: DalleMini, halves: tuple[Original, Original], tmp_path: Path
) -> None:
    content = msgpack.packb(flax_tree(halves))
    assert content is not None
    (tmp_path / "flax_model.msgpack").write_bytes(content)
    original = replace(read_original(tmp_path / "flax_model.msgpack"), numbers=HEADS)
    assert "model.decoder.layers.FlaxBartDecoderLayers.GLU_0.Dense_2.kernel" in original.tensors
    ours = network_of(original)
    assert ours.config == network.config
    for name, tensor in network.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor), name


def test_norms_that_keep_a_scale_use_it(halves: tuple[Original, Original]) -> None:
    encoder, decoder = halves
    scale = torch.linspace(0.5, 2, 40)
    scaled = replace(decoder, tensors={**decoder.tensors, "layers.1.glu.ln1.weight": scale})
    found = convert(merge(encoder, scaled)).tensors
    assert torch.equal(found["decoder.1.feed_forward.norm_inner.weight"], scale)
    assert torch.equal(found["decoder.0.feed_forward.norm_inner.weight"], torch.ones(40))


def test_heads_are_64_wide_when_nothing_tells() -> None:
    one = {name: torch.zeros(shape) for name, shape in small_shapes(width=128).items()}
    assert convert(Original("x.pt", one, {})).config["head_count"] == 2
    narrow = {name: torch.zeros(shape) for name, shape in small_shapes(width=24).items()}
    assert convert(Original("x.pt", narrow, {"encoder_attention_heads": "3"})).config["head_count"] == 3
    for numbers in ({}, {"encoder_attention_heads": 5}, {"encoder_attention_heads": 0}):
        with pytest.raises(BadInput, match=r"x\.pt is 24 wide.*encoder_attention_heads"):
            convert(Original("x.pt", narrow, numbers))


def small_shapes(width: int) -> dict[str, tuple[int, ...]]:
    """Both halves of min-dalle's names at a 2 x 2 grid, without the scales that the published files lack."""
    shapes: dict[str, tuple[int, ...]] = {"decoder.lm_head.weight": (15, width)}
    for side, vocabulary, length in (("encoder", 9, 6), ("decoder", 15, 4)):
        shapes[f"{side}.embed_tokens.weight"] = (vocabulary, width)
        shapes[f"{side}.embed_positions.weight"] = (length, width)
        shapes[f"{side}.layernorm_embedding.weight"] = (width,)
        for norm in ("layernorm_embedding", "final_ln"):
            shapes[f"{side}.{norm}.bias"] = (width,)
        for attention in ("self_attn", "encoder_attn")[: 1 + (side == "decoder")]:
            layer = f"{side}.layers.0"
            shapes |= {f"{layer}.{attention}.{p}_proj.weight": (width, width) for p in ("q", "k", "v", "out")}
            shapes[f"{layer}.pre_{attention}_layer_norm.bias"] = (width,)
            shapes[f"{layer}.{attention}_layer_norm.weight"] = (width,)
            shapes[f"{layer}.{attention}_layer_norm.bias"] = (width,)
        shapes |= {f"{side}.layers.0.glu.{name}.weight": (8, width) for name in ("fc0", "fc1")}
        shapes[f"{side}.layers.0.glu.fc2.weight"] = (width, 8)
        shapes |= {f"{side}.layers.0.glu.ln0.bias": (width,), f"{side}.layers.0.glu.ln1.bias": (8,)}
    return shapes


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"decoder.layers.0.self_attn_layer_norm.weight": None}, "self_attn_layer_norm.weight should be"),
        ({"decoder.layernorm_embedding.weight": None}, "layernorm_embedding.weight should be"),
        ({"encoder.layers.0.glu.ln0.bias": None}, "ln0.bias should be .* absent"),
        ({"encoder.layers.0.self_attn.q_proj.weight": (128, 64)}, "q_proj.weight should be .*128, 64"),
        ({"decoder.extra": (3,)}, r"decoder.extra should be absent and is \(3,\)"),
        ({"decoder.layers.7.glu.ln0.bias": (128,)}, "layers.1"),
        ({"decoder.embed_positions.weight": (5, 128)}, "5 image positions"),
        ({"decoder.layers.0.glu.fc0.weight": (8,)}, "no matrix decoder.layers.0.glu.fc0.weight"),
        ({"decoder.lm_head.weight": None}, "other names"),
    ],
)
def test_wrong_weights_are_refused(change: dict[str, tuple[int, ...] | None], words: str) -> None:
    shapes = small_shapes(width=128)
    tensors = {name: torch.zeros(shape) for name, shape in shapes.items()}
    for name, shape in change.items():
        if shape is None:
            del tensors[name]
        else:
            tensors[name] = torch.zeros(shape)
    with pytest.raises(BadInput, match=rf"half\.pt.*{words}"):
        convert(Original("half.pt", tensors, {}))


def test_halves_alone_or_swapped_are_refused(halves: tuple[Original, Original]) -> None:
    encoder, decoder = halves
    with pytest.raises(BadInput, match=r"encoder\.pt .* holds only min-dalle's encoder"):
        convert(encoder)
    with pytest.raises(BadInput, match=r"decoder\.pt .* holds only min-dalle's decoder"):
        convert(decoder)
    with pytest.raises(BadInput, match=r"decoder\.pt should hold min-dalle's encoder and holds decoder"):
        merge(decoder, encoder)
    with pytest.raises(BadInput, match=r"x\.pt should hold min-dalle's decoder and holds other names"):
        merge(encoder, Original("x.pt", {"weight": torch.zeros(2)}, {}))


# -------------------------------------------------------------------------------------------------------- the tokenizer


def tokenizer_files(folder: Path) -> Path:
    vocabulary, merges = made_up_words()
    (folder / "vocab_mini.json").write_text(json.dumps(vocabulary), "utf-8")
    (folder / "merges_mini.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), "utf-8")
    return folder / "vocab_mini.json"


def test_token_ids_of_ascii_equal_min_dalles(reference: Path, tmp_path: Path) -> None:
    tokenizer = DalleMiniTokenizer.load(tokenizer_files(tmp_path))
    theirs = json.loads((reference / "ids.json").read_text())
    assert [tokenizer.encode(prompt) for prompt in PROMPTS] == theirs
    assert any(3 in ids for ids in theirs) and tokenizer.vocabulary_size == len(made_up_words()[0])


def test_a_tokenizer_json_gives_the_same_ids(tmp_path: Path) -> None:
    tokenizer = DalleMiniTokenizer.load(tokenizer_files(tmp_path))
    (tmp_path / "tokenizer.json").write_text(tokenizer.book.to_str(), "utf-8")
    again = DalleMiniTokenizer.load(tmp_path / "tokenizer.json")
    assert all(again.encode(prompt) == tokenizer.encode(prompt) for prompt in PROMPTS)


def test_letters_lose_accents_and_what_is_left_is_told(tmp_path: Path) -> None:
    tokenizer = DalleMiniTokenizer.load(tokenizer_files(tmp_path))
    for text, plain in {
        "Ça Naïve Çåt": "ca naive cat",
        "“red”\u00a0hat…": '"red" hat...',
        "Łódź straße": "lodz strasse",
        "a 🐶": "a dog face",
        "½ hat\n\tred": "1/2 hat red",
    }.items():
        assert tokenizer.encode(text) == tokenizer.encode(plain), text
        assert tokenizer.unknown_words(text) == []
    assert tokenizer.encode("red 猫 hat") == tokenizer.encode("red hat")
    assert tokenizer.unknown_words("red 猫 hat, кошка ~ 猫") == ["猫", "кошка", "~"]


def test_pieces_read_as_the_text(tmp_path: Path) -> None:
    tokenizer = DalleMiniTokenizer.load(tokenizer_files(tmp_path))
    assert tokenizer.pieces("Red cats, hat") == [" red", " cats", ",", " hat"]


def test_damaged_vocabularies_are_refused(tmp_path: Path) -> None:
    path = tokenizer_files(tmp_path)
    (tmp_path / "merges_mini.txt").write_text("#version: 0.2\nq q\n", "utf-8")
    with pytest.raises(BadInput, match=r"vocab_mini\.json with merges_mini\.txt"):
        DalleMiniTokenizer.load(path)
    (tmp_path / "merges_mini.txt").unlink()
    with pytest.raises(BadInput, match=r"vocab_mini\.json with merges_mini\.txt"):
        DalleMiniTokenizer.load(path)


# ------------------------------------------------------------------------------------------------------------ the bench


def test_the_bench_gives_min_dalle_our_weights(tmp_path: Path) -> None:
    torch.manual_seed(3)
    config = DalleMiniConfig(
        700, width=32, inner_width=40, encoder_layer_count=1, decoder_layer_count=2, head_count=4
    )
    network = DalleMini(config).eval()
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter) * (parameter != 1)  # absent scales stay 1
    reference = MinDalle(network, tmp_path)
    assert reference.difference(network) < 1e-5
    assert len(reference.steps(2, 80)) == 6 and min(reference.steps(2, 80)) > 0
    reference.close()
    assert reference.process.returncode == 0


def test_a_steps_cost_is_mostly_its_weights() -> None:
    flops, traffic = step_cost(DalleMiniConfig(50264), 1)
    assert traffic == pytest.approx(4 * 193e6, rel=0.05)  # 0.1929 B weights are streamed
    assert flops == pytest.approx(4 * 193e6, rel=0.05)
