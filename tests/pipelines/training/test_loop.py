"""The loop: resuming, reports, budgets, processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import load_file

from pipelines.errors import BadInput, CannotSave, Stopped
from pipelines.models.checkpoint import load_weights, read_header
from pipelines.models.clip.network import Clip, ClipConfig
from pipelines.models.clip.tokenizer import Tokenizer
from pipelines.models.dalle.network import Dalle, DalleConfig
from pipelines.training.clip.retrieval import retrieval
from pipelines.training.data.dataset import Dataset
from pipelines.training.loop import Budget, fit
from pipelines.training.report import MOST_SHEETS, Sampling, draw_sample, report, sheet_steps
from pipelines.training.state import State
from pipelines.training.trainer import Trainer, learning_rate
from tests.support.training import (
    KINDS,
    trainer_for,
)


def test_what_was_trained_can_be_loaded(trained: Path) -> None:
    book = Tokenizer.load(trained / "tokenizer.json")
    for name in ("clip", "critic"):
        config, facts = read_header(trained / f"{name}.safetensors")
        load_weights(trained / f"{name}.safetensors", Clip(ClipConfig.from_dict(config), book))
        assert set(facts["figures"]) == {"R@1", "R@5", "R@1_chinese", "R@5_chinese"}
    config, _ = read_header(trained / "dalle.safetensors")
    load_weights(trained / "dalle.safetensors", Dalle(DalleConfig.from_dict(config)))


@pytest.mark.parametrize("name", KINDS)
def test_a_resumed_training_repeats_the_uninterrupted_one(
    name: str, data_file: Path, trained: Path, tmp_path: Path
) -> None:
    for folder in (tmp_path / "whole", tmp_path / "resumed"):
        trainer = trainer_for(name, data_file, trained, folder)
        training = fit(trainer, folder, Budget(steps=6), save_every=-1.0)
        if folder.name == "resumed":
            for _ in range(5):  # the state of step 4 was saved when step 5 was asked for; the process dies
                next(training)
            torch.manual_seed(99)  # chance that is drawn from nowhere else would differ now
            trainer = trainer_for(name, data_file, trained, folder)
            training = fit(trainer, folder, Budget(steps=6))
        for _ in training:
            pass
    whole, resumed = (load_file(tmp_path / one / "state.safetensors") for one in ("whole", "resumed"))
    assert whole.keys() == resumed.keys()
    for key, value in whole.items():
        assert torch.equal(value, resumed[key]), key


@pytest.mark.parametrize("name", ["clip", "dalle"])
def test_worker_processes_change_no_number(name: str, data_file: Path, trained: Path, tmp_path: Path) -> None:
    weights = []
    for workers in (0, 2):
        trainer = trainer_for(name, data_file, trained, tmp_path / "bank")
        for _ in fit(trainer, tmp_path / str(workers), Budget(steps=3), workers=workers):
            pass
        weights.append(trainer.networks[name].state_dict())
    for key, value in weights[0].items():
        assert torch.equal(value, weights[1][key]), key


@pytest.mark.parametrize("name", KINDS)
def test_batches_stay_on_the_cpu_and_differ_by_process(
    name: str, data_file: Path, trained: Path, tmp_path: Path
) -> None:
    trainer = trainer_for(name, data_file, trained, tmp_path)
    first, other = (str(trainer.batch(5, rank, 2)) for rank in (0, 1))
    assert first == str(trainer.batch(5, 0, 2)) and first != other
    assert "cuda" not in first


class Counter(Trainer):
    """One weight that is pulled to 1; every step takes ten seconds of a clock of its own."""

    name, ema_networks = "counter", ("counter",)

    def __init__(self, clock: list[float]):
        self.accelerator, self.clock, self.batch_size = Accelerator(cpu=True), clock, 1
        self.emoji: Any = None  # it learns from none
        self.networks = {"counter": torch.nn.Linear(1, 1)}
        self.optimizers = {"all": torch.optim.SGD(self.networks["counter"].parameters(), lr=0.1)}

    def batch(self, step: int, rank: int = 0, count: int = 1) -> torch.Tensor:
        return torch.ones(1, 1)

    def update(self, batch: torch.Tensor, progress: float) -> dict[str, torch.Tensor]:
        self.clock[0] += 10
        loss = (self.networks["counter"](batch) - 1).square().mean()
        self.backward_and_step(loss, None, "all")
        return {"loss": loss}

    def sample_grid(self) -> None:
        return None

    def evaluate(self) -> dict[str, float]:
        return {}

    def export(self, path: Path, facts: dict[str, Any]) -> None:
        raise AssertionError("not here")

    def compile_targets(self) -> list[torch.nn.Module]:
        return []


def test_a_killed_training_loses_no_more_than_the_time_between_two_saves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("pipelines.training.loop.time.perf_counter", lambda: clock[0])
    training = fit(Counter(clock), tmp_path, Budget(minutes=60), save_every=35.0)
    for _ in range(11):
        next(training)
    training.close()  # as far as the state is concerned, the process is killed
    done = next(fit(Counter(clock), tmp_path, Budget(minutes=60), save_every=35.0)).done
    assert 11 - 35 / 10 - 1 <= done - 1 <= 11
    assert (tmp_path / "curves.png").exists() and not (tmp_path / "sheet.png").exists()


def test_reports_are_by_the_averaged_weights_and_keep_the_last_three_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("pipelines.training.loop.time.perf_counter", lambda: clock[0])
    counter = Counter(clock)
    seen: list[float] = []

    def evaluate() -> dict[str, float]:
        seen.append(counter.networks["counter"].weight.item())  # type: ignore[union-attr, operator]
        return {"weight": seen[-1]}

    monkeypatch.setattr(counter, "evaluate", evaluate)
    own = []
    for step in fit(counter, tmp_path, Budget(minutes=3), save_every=1e9, report_every=35.0):
        own.append(counter.networks["counter"].weight.item())  # type: ignore[union-attr, operator]
        assert step.done == len(own)
    lines = [json.loads(line) for line in (tmp_path / "figures.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 8, 12, 16]
    assert [line["figures"]["weight"] for line in lines] == seen
    assert all(one not in own for one in seen) and len(set(own)) == len(own), (
        "the average, and then its own again"
    )
    states = [load_file(tmp_path / f"state{end}.safetensors") for end in ("", "-1", "-2")]
    weights = [state["network/counter/weight"].item() for state in states]
    assert weights == [own[17], own[11], own[7]]


def test_figures_that_cannot_be_written_end_with_a_sentence(
    data_file: Path, trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "figures.jsonl").mkdir()
    with pytest.raises(CannotSave, match=r"figures\.jsonl"):
        report(tmp_path, trainer_for("vqgan", data_file, trained, tmp_path), State())


def test_minutes_of_computing_pass_while_computing_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.training.loop.time.process_time", lambda: 12.0)
    monkeypatch.setattr("pipelines.training.loop.torch.get_num_threads", lambda: 3)
    assert Budget(processor=True).clock() == 4.0
    assert Budget(minutes=2).progress(1, 30) == 0.25


def test_minutes_are_counted_over_all_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("pipelines.training.loop.time.perf_counter", lambda: clock[0])
    training = fit(Counter(clock), tmp_path, Budget(minutes=2), save_every=-1.0)
    for _ in range(5):
        next(training)
    clock[0] += 1e6  # somebody comes back much later
    assert [step.done for step in fit(Counter(clock), tmp_path, Budget(minutes=2))][-1] == 12


def test_one_that_is_stopped_is_saved_and_what_the_caller_takes_is_no_time_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("pipelines.training.loop.time.perf_counter", lambda: clock[0])
    training = fit(Counter(clock), tmp_path, Budget(minutes=10), save_every=1e9)
    for _ in range(3):
        next(training)
        clock[0] += 500  # whoever watches waits
    with pytest.raises(StopIteration) as end:
        training.throw(Stopped())
    assert (end.value.value.step, end.value.value.seconds) == (3, 30)
    assert next(fit(Counter(clock), tmp_path, Budget(minutes=10))).done == 4


def test_sheets_in_between_come_soon_and_few_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("pipelines.training.report.time.monotonic", lambda: clock[0])
    sampling, drawn = Sampling(60.0), []
    for second in range(1, 600):
        clock[0] = max(clock[0], float(second))
        if sampling.due():
            drawn.append(round(clock[0]))
            with sampling.timed():
                clock[0] += 1 if len(drawn) < 6 else 30  # from then on drawing is slow
    assert drawn == [10, 31, 72, 133, 194, 255, 555]
    counter = Counter(clock)
    monkeypatch.setattr(counter, "sample_grid", lambda: Image.new("RGB", (2, 2)))
    for step in range(1, 100):
        draw_sample(tmp_path, counter, State(step))
    steps = sheet_steps(tmp_path)
    assert len(steps) == MOST_SHEETS and steps[:3] == [1, 2, 3] and steps[-1] == 99


def test_a_state_of_another_size_is_refused(data_file: Path, trained: Path, tmp_path: Path) -> None:
    for _ in fit(trainer_for("unet", data_file, trained, tmp_path), tmp_path, Budget(steps=1)):
        pass
    other = trainer_for("unet", data_file, trained, tmp_path, widths=(8, 24))
    with pytest.raises(BadInput, match="no state of this training"):
        next(fit(other, tmp_path, Budget(steps=2)))


def test_training_teaches(data_file: Path, pack: Path, tmp_path: Path) -> None:
    """Thirty steps are enough to tell four shapes apart in a style that was never shown."""
    trainer = trainer_for("clip", data_file, pack, tmp_path, batch_size=8, rate=5e-3)
    losses = [step.metrics["contrast"] for step in fit(trainer, tmp_path, Budget(steps=30))]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    assert retrieval(trainer.networks["clip"], Dataset(data_file, size=64))["R@1"] >= 0.5


def test_learning_rate_rises_then_falls() -> None:
    assert learning_rate(0.0) < 0.1
    assert learning_rate(0.02) == pytest.approx(1.0)
    assert learning_rate(0.5) < learning_rate(0.2)
    assert learning_rate(1.0) == pytest.approx(0.02)


def test_a_prior_that_goes_on_begins_with_earlier_weights(
    data_file: Path, trained: Path, tmp_path: Path
) -> None:
    start = trained / "prior.safetensors"
    trainer = trainer_for("prior", data_file, trained, tmp_path, start=start)
    before = load_file(start)["network.conv_in.weight"].float()
    assert torch.equal(trainer.networks["prior"].state_dict()["network.conv_in.weight"], before)
    assert "prior.safetensors" in trainer.start
    fresh = trainer_for("prior", data_file, trained, tmp_path).optimizers["prior"].param_groups[0]["lr"]
    assert trainer.optimizers["prior"].param_groups[0]["lr"] < fresh
