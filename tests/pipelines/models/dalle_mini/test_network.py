"""DALL·E mini's network against min-dalle's modules on random weights, and in the bench."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipelines.benchmarks.dalle import MinDalle, step_cost
from pipelines.models.dalle_mini.network import DalleMini, DalleMiniConfig, StepGraphs
from tests.support.dalle_mini import GREEDY, GUIDANCE, assert_near


def test_sizes_are_read_from_shapes(network: DalleMini) -> None:
    config = network.config
    assert (config.text_vocabulary, config.text_length, config.grid) == (50, 64, 16)
    assert (config.width, config.inner_width, config.head_count) == (32, 40, 4)
    assert (config.encoder_layer_count, config.decoder_layer_count) == (3, 2)
    assert (config.start_token, config.image_vocabulary, config.table_size) == (16384, 16384, 16416)


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
    cache, logits = network.prefill(text, 6)
    steps = [logits, *(network.decode_step(cache, images[:, k], k) for k in range(length - 1))]
    assert_near(torch.stack(steps, 1), whole)
    assert cache.text.shape[2] == 2  # keys and values of two texts, not of six rows


def test_one_text_alone_gives_the_same_logits(network: DalleMini, outputs: dict[str, Tensor]) -> None:
    _, both = network.prefill(outputs["text"], 2)
    _, one = network.prefill(outputs["text"][:1], 1)
    assert_near(one, both[:1])


def test_guided_greedy_tokens_equal_min_dalles(network: DalleMini, outputs: dict[str, Tensor]) -> None:
    cache, logits = network.prefill(outputs["text"], 2)
    drawn: list[Tensor] = []
    for place in range(GREEDY):
        said, blank = logits
        drawn.append((blank + GUIDANCE * (said - blank)).argmax())
        logits = network.decode_step(cache, drawn[-1].expand(2), place)
    assert torch.equal(torch.stack(drawn), outputs["drawn"])


def test_a_step_of_a_longer_length_hides_what_comes_after(
    network: DalleMini, outputs: dict[str, Tensor]
) -> None:
    """What CUDA graphs record: one length for many places."""
    cache, _ = network.prefill(outputs["text"], 2)
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
    plain, _ = network.prefill(outputs["text"], 2)
    cache, _ = network.prefill(outputs["text"], 2)
    graphs = StepGraphs(network, cache, (2, 2))
    for position in (*range(3), 30, 31, 126, 127, 254):
        token = torch.tensor([position, 2 * position])
        exact = network.decode_step(plain, token, position)
        monkeypatch.setattr(network, "_graphs", graphs)
        assert_near(network.decode_step(cache, token, position), exact)
        monkeypatch.setattr(network, "_graphs", None)
    assert sorted(graphs.recorded) == [32, 64, 128, 256]


def test_logits_are_float32_in_bfloat16(network: DalleMini, outputs: dict[str, Tensor]) -> None:
    cache, whole = network.prefill(outputs["text"], 2)
    half = DalleMini(network.config)
    half.load_state_dict(network.state_dict())
    half.to(torch.bfloat16)
    half_cache, logits = half.prefill(outputs["text"], 2)
    assert logits.dtype == torch.float32 and half_cache.image.dtype == torch.bfloat16
    assert (logits.bfloat16().float() != logits).any()  # finer than bfloat16
    token = torch.tensor([5, 5])
    apart = half.decode_step(half_cache, token, 0) - network.decode_step(cache, token, 0)
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
