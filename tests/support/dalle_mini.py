"""Small DALL·E minis: min-dalle's modules with random weights, their names, and a vocabulary.

Importing min-dalle turns autograd off and sets the threads, so REFERENCE runs in a process of its own. Its modules are
the oracle; its choice of mega's start token is not. It begins with 16415, the last row of the table, since it dropped
dalle-mini's config.json. That config says `decoder_start_token_id` 16384, and training shifted the labels by it, so row
16415 was never seen. REFERENCE gives its modules the tokens itself, and begins with 16384.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgpack
import torch
from torch import Tensor

from pipelines.models.dalle_mini.convert import convert
from pipelines.models.dalle_mini.network import DalleMini, DalleMiniConfig
from pipelines.models.source import SourceCheckpoint

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
rows, start = 16415, 16384  # as in mega: a table of 16416 rows, of which 16384 can be drawn
encoder = DalleBartEncoder(3, 32, 4, 50, 64, 40, "cpu").eval()
decoder = DalleBartDecoder(rows, 32, 4, 40, 2, "cpu").eval()
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


def tokenizer_files(folder: Path) -> Path:
    vocabulary, merges = made_up_words()
    (folder / "vocab_mini.json").write_text(json.dumps(vocabulary), "utf-8")
    (folder / "merges_mini.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), "utf-8")
    return folder / "vocab_mini.json"


def network_of(original: SourceCheckpoint) -> DalleMini:
    converted = convert(original)
    network = DalleMini(DalleMiniConfig.from_dict(json.loads(json.dumps(converted.config))))
    network.load_state_dict(converted.tensors)
    return network.eval().requires_grad_(False)


def flax_tree(halves: tuple[SourceCheckpoint, SourceCheckpoint]) -> dict[str, Any]:
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


def assert_near(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()
