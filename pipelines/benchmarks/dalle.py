"""`python launch.py bench dalle`: how fast DALL·E mini draws, on random weights.

On a CPU beside min-dalle's own modules (where that package is installed) with the same weights, by turns, so that both
see the same machine; on CUDA mega in bfloat16, whole pictures.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipelines.benchmarks.machine import matmul_rate, memory_bandwidth
from pipelines.models.dalle_mini.network import DalleMini, DalleMiniConfig, KVCache
from pipelines.models.sampling import sample

MINI = DalleMiniConfig(text_vocabulary=50264)
MEGA = DalleMiniConfig(50272, token_rows=16416, width=2048, inner_width=4096, encoder_layer_count=24,
                       decoder_layer_count=24, head_count=32)  # fmt: skip
PROMPT = [100, 200, 300, 400, 500, 600]
BLOCKS, BLOCK = (0, 80, 160, 248), 6  # steps are timed in blocks spread over the picture
GUIDANCE, TOP_K = 10.0, 256


def bench_dalle(device: str = "auto") -> dict[str, Any]:
    """Tokens a second at 1 and at 9 candidates with guidance on a CPU; seconds for 9 and for 64 pictures on CUDA."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    return _whole_pictures(torch.device(device)) if device.startswith("cuda") else _beside_min_dalle(MINI)


# ------------------------------------------------------------------------------------------------------------- on a CPU


@torch.no_grad()
def _beside_min_dalle(config: DalleMiniConfig, counts: tuple[int, ...] = (1, 9)) -> dict[str, Any]:
    network, device = DalleMini(config).eval(), torch.device("cpu")
    rate, bandwidth = matmul_rate(device), memory_bandwidth(device)
    figures: dict[str, Any] = {
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "machine: GFLOP/s (float32 matmul)": rate / 1e9,
        "machine: GB/s (copy, read and write)": bandwidth / 1e9,
    }
    with tempfile.TemporaryDirectory() as folder:
        reference = MinDalle(network, Path(folder)) if importlib.util.find_spec("min_dalle") else None
        if reference:
            figures["logits: greatest difference from min-dalle's"] = reference.difference(network)
        else:
            figures["min-dalle"] = "is not installed, so nothing to compare with"
        for count in counts:
            cache, _ = network.prefill(_texts(network), 2 * count)
            ours, theirs = [], []
            for first in BLOCKS:
                ours.append(median(_our_steps(network, cache, count, first)))
                if reference:
                    theirs.append(median(reference.steps(count, first)))
            name = f"{count} candidate{'s' * (count > 1)}"
            flops, traffic = step_cost(config, count)
            figures[f"{name}: tokens a second"] = count / mean(ours)
            if reference:
                figures[f"{name}: min-dalle, tokens a second"] = count / mean(theirs)
                figures[f"{name}: times min-dalle"] = mean(theirs) / mean(ours)
            figures[f"{name}: GFLOP a step"] = flops / 1e9
            figures[f"{name}: GB read a step"] = traffic / 1e9
            figures[f"{name}: times the machine's limit"] = mean(ours) / max(
                flops / rate, traffic / bandwidth
            )
        if reference:
            reference.close()
    return figures


def step_cost(config: DalleMiniConfig, candidates: int, bytes_each: int = 4) -> tuple[float, float]:
    """FLOPs and bytes read of a guided step in mid-picture: weights once, image keys once a row, text keys once a text."""
    layers, width, rows = config.decoder_layer_count, config.width, 2 * candidates
    weights = layers * (6 * width**2 + 3 * width * config.inner_width) + width * config.image_vocabulary
    seen = config.image_length / 2
    flops = rows * (2 * weights + 4 * layers * width * (seen + config.text_length))
    keys = 2 * layers * width * (rows * seen + 2 * config.text_length)
    return flops, bytes_each * (weights + keys)


def _texts(network: DalleMini) -> Tensor:
    return torch.stack([network.text_tokens(PROMPT), network.text_tokens([])])


def _drawn(logits: Tensor) -> Tensor:
    """Guide, and draw a token a row; rows of the prompt, then of the empty text."""
    prompted, blank = logits.chunk(2)
    uniform = torch.rand(len(prompted), device=logits.device)
    return sample(blank + GUIDANCE * (prompted - blank), uniform, 1.0, TOP_K, 1.0)


def _our_steps(network: DalleMini, cache: KVCache, count: int, first: int) -> list[float]:
    """Seconds of each of a block's steps, from a token to the next one."""
    token, seconds = torch.zeros(count, dtype=torch.long), []
    for position in range(first, first + BLOCK):
        begun = time.perf_counter()
        token = _drawn(network.decode_step(cache, token.repeat(2), position))
        seconds.append(time.perf_counter() - begun)
    return seconds


class MinDalle:
    """min-dalle's decoder in a process of its own, since importing it turns autograd off and sets the threads."""

    def __init__(self, network: DalleMini, folder: Path):
        self.file, texts = folder / "weights.safetensors", _texts(network)
        tensors = published_decoder(network) | {"state": network.encode_text(texts)[0], "text": texts}
        save_file({name: value.contiguous() for name, value in tensors.items()}, self.file)
        config = network.config
        sizes = [
            config.table_size - 1,
            config.start_token,
            config.width,
            config.head_count,
            config.inner_width,
        ]
        arguments = [*sizes, config.decoder_layer_count, torch.get_num_threads()]
        command = [sys.executable, "-m", "pipelines.benchmarks.dalle", str(self.file), *map(str, arguments)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, *question: int) -> list[float]:
        """One line there, one line back."""
        assert self.process.stdin and self.process.stdout
        print(*question, file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def steps(self, count: int, first: int) -> list[float]:
        """Seconds of each of a block's steps."""
        return self.ask(count, first)

    def difference(self, network: DalleMini, length: int = 4) -> float:
        """The greatest difference of their logits from ours over a few cached tokens, as a share of the greatest logit."""
        self.ask(0, length)
        # (length, 2, vocabulary), blank first
        theirs = load_file(self.file.with_name("logits.safetensors"))["logits"]
        cache, logits = network.prefill(_texts(network), 2)
        ours = [logits] + [network.decode_step(cache, torch.tensor([k, k]), k - 1) for k in range(1, length)]
        stacked = torch.stack(ours)
        return ((stacked - theirs.flip(1)).abs().max() / stacked.abs().max()).item()

    def close(self) -> None:
        """End the process."""
        self.process.communicate("")


def published_decoder(network: DalleMini) -> dict[str, Tensor]:
    """The decoder's weights under the names of min-dalle's state dict."""
    weights: dict[str, Tensor] = {
        "embed_tokens.weight": network.image_token.weight,
        "embed_positions.weight": network.image_position.weight,
        "layernorm_embedding.weight": network.image_norm_in.weight,
        "layernorm_embedding.bias": network.image_norm_in.bias,
        "final_ln.bias": network.image_norm_out.bias,
    }
    head = network.image_token.weight.new_zeros(network.config.table_size, network.config.width)
    head[: network.config.image_vocabulary] = network.image_head.weight
    weights["lm_head.weight"] = head
    for number, layer in enumerate(network.decoder_layers):
        self_attention, cross, feed = layer.attention, layer.cross, layer.feed_forward
        queries, keys, values = self_attention.qkv.weight.chunk(3)
        text_keys, text_values = cross.keys_values.weight.chunk(2)
        gate, value = feed.gate_value.weight.chunk(2)
        names = {
            "pre_self_attn_layer_norm.bias": self_attention.norm_in.bias,
            "self_attn.q_proj.weight": queries,
            "self_attn.k_proj.weight": keys,
            "self_attn.v_proj.weight": values,
            "self_attn.out_proj.weight": self_attention.out.weight,
            "self_attn_layer_norm.weight": self_attention.norm_out.weight,
            "self_attn_layer_norm.bias": self_attention.norm_out.bias,
            "pre_encoder_attn_layer_norm.bias": cross.norm_in.bias,
            "encoder_attn.q_proj.weight": cross.query.weight,
            "encoder_attn.k_proj.weight": text_keys,
            "encoder_attn.v_proj.weight": text_values,
            "encoder_attn.out_proj.weight": cross.out.weight,
            "encoder_attn_layer_norm.weight": cross.norm_out.weight,
            "encoder_attn_layer_norm.bias": cross.norm_out.bias,
            "glu.ln0.bias": feed.norm_in.bias,
            "glu.fc0.weight": gate,
            "glu.fc1.weight": value,
            "glu.ln1.bias": feed.norm_inner.bias,
            "glu.fc2.weight": feed.down.weight,
        }
        weights |= {f"layers.{number}.{name}": tensor for name, tensor in names.items()}
    return weights


def answer(
    file: Path, vocabulary: int, start: int, width: int, heads: int, inner: int, layers: int, threads: int
) -> None:
    """The other process: build min-dalle's decoder from a file, then answer lines "candidates first" with seconds.

    "0 length" asks for the logits of that many tokens instead, written beside the file.
    """
    modules: Any = importlib.import_module("min_dalle.models")
    torch.set_num_threads(threads)
    tensors = load_file(file)
    state, text = tensors.pop("state").flip(0), tensors.pop("text").flip(0)  # they put the empty text first
    decoder = modules.DalleBartDecoder(vocabulary, width, heads, inner, layers, "cpu").eval()
    decoder.load_state_dict(tensors, strict=False)
    for line in sys.stdin:
        count, first = map(int, line.split())
        logits_wanted, count = count == 0, count or 1
        repeated = torch.tensor([0] * count + [1] * count)
        cache = torch.zeros(layers, 4 * count, 256, width)
        mask = text[repeated].not_equal(1)[:, None, None]
        common = {"attention_mask": mask, "encoder_state": state[repeated], "attention_state": cache}
        if logits_wanted:
            logits = []
            for place in range(first):
                token = torch.tensor([[place or start]])
                logits.append(
                    decoder(**common, prev_tokens=token, token_index=torch.tensor([place]))[0][:, 0]
                )
            save_file(
                {"logits": torch.stack(logits)[:, :, : 2**14].contiguous()},
                file.with_name("logits.safetensors"),
            )
            print("[]", flush=True)
            continue
        settings, token = torch.tensor([1.0, TOP_K, GUIDANCE]), torch.zeros(count, dtype=torch.long)
        seconds = []
        for position in range(first + 1, first + 1 + BLOCK):
            begun = time.perf_counter()
            token, _ = decoder.sample_tokens(
                settings=settings, prev_tokens=token[:, None], token_index=torch.tensor([position]), **common
            )
            seconds.append(time.perf_counter() - begun)
        print(json.dumps(seconds), flush=True)


# ------------------------------------------------------------------------------------------------------------- on a GPU


@torch.no_grad()
def _whole_pictures(
    device: torch.device, counts: tuple[int, ...] = (9, 64), rounds: int = 3
) -> dict[str, Any]:
    with device:
        network = DalleMini(MEGA).to(torch.bfloat16).eval()
    figures: dict[str, Any] = {"device": torch.cuda.get_device_name(device), "precision": "bfloat16"}
    bandwidth = memory_bandwidth(device)
    figures["machine: GB/s (copy, read and write)"] = bandwidth / 1e9
    for count in counts:
        seconds = []
        for _ in range(rounds + 1):  # the first round records the graphs
            torch.cuda.synchronize()
            begun = time.perf_counter()
            cache, logits = network.prefill(_texts(network), 2 * count)
            for position in range(MEGA.image_length):
                token = _drawn(logits)
                if position + 1 < MEGA.image_length:
                    logits = network.decode_step(cache, token.repeat(2), position)
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - begun)
        best = median(seconds[1:])
        flops, traffic = step_cost(MEGA, count, bytes_each=2)
        figures[f"{count} candidates: seconds, 256 tokens each"] = best
        figures[f"{count} candidates: image tokens a second"] = count * MEGA.image_length / best
        figures[f"{count} candidates: TFLOP/s"] = flops * MEGA.image_length / best / 1e12
        figures[f"{count} candidates: times the memory's limit"] = (
            best * bandwidth / traffic / MEGA.image_length
        )
    figures["peak memory, GB"] = torch.cuda.max_memory_allocated(device) / 1e9
    return figures


if __name__ == "__main__":
    answer(Path(sys.argv[1]), *map(int, sys.argv[2:]))
