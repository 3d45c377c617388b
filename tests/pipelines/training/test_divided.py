"""A DALL·E that is divided between two processes learns what one process learns, and its state fits any number of them.

The test starts this very file in two CPU processes that talk by gloo. They read a stream together, too.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipelines.models.dalle.network import Dalle
from pipelines.training import processes
from pipelines.training.cli import main
from pipelines.training.data.folder import check
from pipelines.training.data.tars import tars_of
from pipelines.training.loop import Budget, fit
from pipelines.training.memory import Kept, MemoryPlan, plan_of
from pipelines.training.sharding import local
from pipelines.training.state import State, load_state, save_state
from pipelines.training.trainer import Trainer
from tests.pipelines.training.test_distributed import joined, small_settings
from tests.pipelines.training.test_stream import jpeg, write_tar
from tests.support.training import trainer_for, write_data, write_vocabulary

STEPS, PROGRESS = 3, 0.5


def dalle(folder: Path, **options: Any) -> Trainer:
    return trainer_for("dalle", folder / "emoji.safetensors", folder, folder / "bank", **options)


def clip_on_tars(folder: Path) -> Trainer:
    sample = next((folder / "cache").glob("*.safetensors"))
    return trainer_for("clip", sample, folder, folder / "bank", stream=tars_of(folder / "tars"))


def work(folder: Path) -> None:
    """What each of the two processes does."""
    small_settings(pytest.MonkeyPatch())
    rank = int(os.environ["RANK"])
    trainer = dalle(folder, shard=True)
    assert trainer.sharded
    told = []
    for step in range(STEPS):
        metrics = trainer.update(trainer.batch(step, rank, 2), PROGRESS)
        told.append({name: trainer.mean_over_processes(value).item() for name, value in metrics.items()})
        if step == 0:
            save_state(folder / "divided-first.safetensors", trainer, {}, State())
    save_state(folder / "divided.safetensors", trainer, {}, State(step=STEPS))
    entries = [entry for optimizer in trainer.optimizers.values() for entry in optimizer.state.values()]
    kept = [value for entry in entries for name, value in entry.items() if name != "step"]
    weights = [local(p) for p in trainer.networks["dalle"].parameters()]
    bytes_of = {"weights": weights, "optimizer": [local(value) for value in kept]}
    facts = {name: 4 * sum(x.numel() for x in some) for name, some in bytes_of.items()}
    (folder / f"told-{rank}.json").write_text(json.dumps({"metrics": told, **facts}))

    again = dalle(folder, shard=True)
    assert load_state(folder / "divided.safetensors", again, {}).step == STEPS
    save_state(folder / "again.safetensors", again, {}, State(step=STEPS))
    for _ in fit(dalle(folder, shard=True), folder / "fit", Budget(steps=2), report_every=0.0):
        pass
    for _ in fit(clip_on_tars(folder), folder / "stream", Budget(steps=2)):
        pass
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where two processes have worked."""
    folder = tmp_path_factory.mktemp("divided")
    (folder / "tars").mkdir()
    for number in range(2):
        pictures = range(20 * number, 20 * number + 20)
        write_tar(folder / "tars" / f"{number}.tar", {f"a thing {k}.jpg": jpeg(k) for k in pictures})
    check(folder / "tars", folder / "cache", tars=tars_of(folder / "tars"))
    write_data(folder / "emoji.safetensors")
    write_vocabulary(folder / "emoji.safetensors", folder)
    with pytest.MonkeyPatch.context() as patch:
        small_settings(patch)
        vqgan = trainer_for("vqgan", folder / "emoji.safetensors", folder, folder / "bank")
        vqgan.export(folder / "vqgan.safetensors", {})
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        assert processes.run([str(folder)], 2, folder, (__file__,)) == 0
        yield folder


def told(folder: Path, rank: int = 0) -> dict[str, Any]:
    return json.loads((folder / f"told-{rank}.json").read_text())


@pytest.fixture(scope="module")
def whole(folder: Path) -> Trainer:
    """One process that has learned from the joint batches, and its metrics."""
    trainer = dalle(folder)
    for step, expected in enumerate(told(folder)["metrics"]):
        batch = joined(trainer.batch(step, 0, 2), trainer.batch(step, 1, 2))
        metrics = trainer.update(batch, PROGRESS)
        for name, value in expected.items():
            assert metrics[name].item() == pytest.approx(value, rel=1e-3), (step, name)
        if step == 0:
            save_state(folder / "whole-first.safetensors", trainer, {}, State())
    return trainer


def test_losses_weights_and_optimizers_equal_those_of_one_process(folder: Path, whole: Trainer) -> None:
    assert not whole.sharded and told(folder)["metrics"] == told(folder, 1)["metrics"]
    save_state(folder / "whole.safetensors", whole, {}, State(step=STEPS))
    for end, rtol, atol in (("-first", 1e-3, 1e-5), ("", 1e-2, 5e-3)):  # Muon rounds to bfloat16 on the way
        one, two = (load_file(folder / f"{name}{end}.safetensors") for name in ("whole", "divided"))
        assert one.keys() == two.keys()
        moments = [key for key in one if key.endswith(("/exp_avg", "/momentum_buffer"))]
        scale = float(max(one[key].abs().max() for key in moments))
        for key in moments:
            assert torch.allclose(one[key], two[key], rtol=rtol, atol=atol * scale), (end, key)
    first, weights = load_file(folder / "whole-first.safetensors"), [key for key in one if "network/" in key]
    moved = max(float((one[key] - first[key]).abs().max()) for key in weights)
    assert max(float((one[key] - two[key]).abs().max()) for key in weights) < 0.05 * moved


def test_the_state_of_two_fits_two_and_one(folder: Path) -> None:
    two, again = load_file(folder / "divided.safetensors"), load_file(folder / "again.safetensors")
    alone = dalle(folder)
    assert load_state(folder / "divided.safetensors", alone, {}).step == STEPS
    save_state(folder / "alone.safetensors", alone, {}, State(step=STEPS))
    for other in (again, load_file(folder / "alone.safetensors")):
        assert two.keys() == other.keys() and all(torch.equal(two[key], other[key]) for key in two)


def test_what_two_began_one_ends(folder: Path) -> None:
    lines = (folder / "fit" / "figures.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2] and (folder / "fit" / "sheet.png").exists()
    steps = list(fit(dalle(folder), folder / "fit", Budget(steps=3)))
    assert [step.done for step in steps] == [3]


def test_a_stream_is_shared_and_goes_on_alone(folder: Path) -> None:
    trainer = clip_on_tars(folder)
    assert trainer.stream is not None
    state = load_state(folder / "stream" / "state.safetensors", trainer, _average(trainer))
    assert state.journey is not None and state.journey.ranks == 2
    assert [mark[4] for mark in state.journey.marks] == [2 * trainer.batch_size] * 2
    tars = {trainer.stream.part(state.journey, 0, rank)[0][0] for rank in range(2)}
    assert tars == {0, 1}, "each process has its own"
    steps = list(fit(clip_on_tars(folder), folder / "stream", Budget(steps=3)))
    after = load_state(folder / "stream" / "state.safetensors", trainer, _average(trainer)).journey
    assert len(steps) == 1 and after is not None and after.ranks == 1
    assert after.read()[0] == 5 * trainer.batch_size


def _average(trainer: Trainer) -> dict[str, dict[str, torch.Tensor]]:
    return {"clip": {k: v.clone() for k, v in trainer.networks["clip"].state_dict().items()}}


# ---------------------------------------------------------------------------------------------------------- the plan


def planned(trainer: Trainer, count: int, divided: bool = True) -> MemoryPlan:
    return plan_of(partial(Dalle, trainer.networks["dalle"].config), trainer.batch_size, count, divided)


def test_the_plan_is_what_a_process_has(folder: Path) -> None:
    trainer = dalle(folder)
    plan = planned(trainer, 2)
    assert {name: told(folder)[name] for name in ("weights", "optimizer")} == {
        "weights": plan.weights,
        "optimizer": plan.optimizer,
    }
    assert plan.parameters == trainer.parameter_count() and plan.gathered > 0
    kept = Kept(trainer.networks["dalle"])
    with kept:
        trainer.update(trainer.batch(0), PROGRESS)
    assert 0.9 * kept.bytes < plan.activations < 1.5 * kept.bytes
    alone = planned(trainer, 2, divided=False)
    assert plan.weights < 0.6 * alone.weights and (alone.gathered, alone.weights) == (0, 4 * plan.parameters)


def test_the_command_prints_the_plan_and_trains_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "dalle",
        "--size",
        "small",
        "--shard",
        "--plan",
        "--processes",
        "4",
        "--precision",
        "bf16",
        "--json",
    ]
    assert main([*command, "--out", str(folder), "--state", str(tmp_path), "--data", "nowhere"]) == 0
    said = capsys.readouterr()
    plan = json.loads(said.out)["plan"]
    assert "divided among 4 processes" in said.err and plan["parameters"] > 20e6
    assert plan["weights"] == pytest.approx(plan["parameters"], rel=0.01)  # four bytes over four processes
    assert list(tmp_path.iterdir()) == []
    alone = ["dalle", "--shard", "--plan", "--out", str(folder), "--precision", "no"]
    assert main(alone) == 0 and "parameters in one process" in capsys.readouterr().err
    assert main(["vqgan", "--plan"]) == 2 and "--plan is for dalle" in capsys.readouterr().err


if __name__ == "__main__":
    work(Path(sys.argv[1]))
