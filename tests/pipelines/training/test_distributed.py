"""Two processes with half batches learn what one process learns from the joint batch; and they stop together.

The test starts this very file under torchrun, on two CPU processes that talk by gloo.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pipelines.training import loop as fit_module
from pipelines.training.clip import teacher
from pipelines.training.loop import Budget, fit
from pipelines.training.state import State, save_state
from pipelines.training.trainer import Trainer
from tests.support.training import KINDS, trainer_for, write_data, write_vocabulary

ROOT = Path(__file__).parents[3]
PROGRESS = 0.75  # here the VQGAN has its discriminator, and still moves codes that nobody uses


VARIANTS: dict[str, dict[str, Any]] = {"clip by parts": {"chunk": 2}, "clip by sigmoids": {"sigmoid": True}}
NAMES = (*KINDS, *VARIANTS)


def trainer_of(name: str, folder: Path) -> Trainer:
    kind, options = ("clip", VARIANTS[name]) if name in VARIANTS else (name, {})
    trainer = trainer_for(kind, folder / "emoji.safetensors", folder, folder / "bank", **options)
    trainer.patience = -1  # type: ignore[attr-defined]  # the VQGAN's: every code may be moved at once
    return trainer


def small_settings(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(teacher, "teacher_available", lambda: True)
    patch.setattr(teacher, "sentence_vectors", some_vectors)
    patch.setattr("pipelines.training.dalle.SCENE_COUNT", 16)
    patch.setattr("pipelines.training.token_bank.SCENE_COUNT", 16)
    patch.setattr("pipelines.training.token_bank.VIEWS", 8)
    patch.setattr("pipelines.training.prior.SCENE_COUNT", 16)
    patch.setattr("pipelines.training.matting.BANK", 8)


def some_vectors(texts: list[str]) -> Any:
    return torch.nn.functional.normalize(
        torch.randn(len(texts), 384, generator=torch.Generator().manual_seed(0)), dim=1
    ).numpy()


def work(folder: Path) -> None:
    """What each of the two processes does."""
    small_settings(pytest.MonkeyPatch())
    rank = int(os.environ["RANK"])
    for name in NAMES:
        trainer = trainer_of(name, folder)
        trainer.update(trainer.batch(0, rank, 2), PROGRESS)
        save_state(folder / f"{name}-{rank}.safetensors", trainer, {}, State())

    seconds = time.perf_counter
    if (
        rank == 1
    ):  # the clocks differ, and so do the weights at first; two equal processes could not show anything
        fit_module.time.perf_counter = lambda: 1.7 * seconds()  # type: ignore[assignment]
    trainer = trainer_of("clip", folder)
    with torch.no_grad():
        trainer.networks["clip"].text.token.weight += rank  # type: ignore[union-attr, operator]
    steps = sum(1 for _ in fit(trainer, folder / f"state-{rank}", Budget(minutes=0.02)))
    save_state(folder / f"end-{rank}.safetensors", trainer, {}, State(step=steps))
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where two processes have worked."""
    folder = tmp_path_factory.mktemp("two")
    write_data(folder / "emoji.safetensors")
    write_vocabulary(folder / "emoji.safetensors", folder)
    with pytest.MonkeyPatch.context() as patch:
        small_settings(patch)
        for name in ("clip", "vqgan", "codec"):  # the pack that the others build on
            trainer_of(name, folder).export(folder / f"{name}.safetensors", {})
        command = [
            sys.executable,
            "-B",
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            "2",
        ]
        done = subprocess.run(
            [*command, __file__, str(folder)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert "all_gather" not in done.stderr, "torch calls its own deprecated"
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as in the two processes: over more, sums differ too much
        yield folder
        torch.set_num_threads(threads)


def joined(a: Any, b: Any) -> Any:
    """The joint batch of two halves: rows one after the other; what is equal in both stays as it is."""
    if isinstance(a, Tensor):
        return torch.cat([a, b])
    if isinstance(a, dict):
        return {key: joined(a[key], b[key]) for key in a}
    if isinstance(a, tuple):
        return tuple(joined(one, other) for one, other in zip(a, b, strict=True))
    if isinstance(a, list):
        return a + b
    assert a == b
    return a


@pytest.mark.parametrize("name", NAMES)
def test_two_half_batches_give_the_gradient_of_the_joint_batch(name: str, folder: Path) -> None:
    """Adam's first moment and Muon's buffer are the gradient, times a constant, after one update."""
    trainer = trainer_of(name, folder)
    trainer.update(joined(trainer.batch(0, 0, 2), trainer.batch(0, 1, 2)), PROGRESS)
    save_state(folder / f"{name}.one.safetensors", trainer, {}, State())
    one, first, second = (load_file(folder / f"{name}{end}.safetensors") for end in (".one", "-0", "-1"))
    assert one.keys() == first.keys() == second.keys()
    moments = [key for key in one if key.endswith(("/exp_avg", "/momentum_buffer"))]
    assert len(moments) == sum(len(list(p.parameters())) for p in trainer.networks.values()) - frozen(trainer)
    scale = max(one[key].abs().max() for key in moments)
    for key in moments:
        assert torch.allclose(first[key], one[key], rtol=1e-3, atol=1e-5 * float(scale)), key
    for key, value in first.items():
        assert torch.equal(value, second[key]), key  # no process knows anything that the other one does not
    if name in ("vqgan", "codec", "vqvae"):
        assert torch.equal(first["extra/unused"], one["extra/unused"])
        assert torch.allclose(first["network/vqgan/codes"], one["network/vqgan/codes"], atol=2e-3)


def frozen(trainer: Trainer) -> int:
    """How many parameters get no gradient."""
    idle = [p for network in trainer.networks.values() for p in network.parameters() if not p.requires_grad]
    if trainer.name == "decoder":  # has no use for its discriminator
        idle += list(trainer.networks["discriminator"].parameters())
    return len(idle)


def test_a_half_batch_alone_would_give_another_gradient(folder: Path) -> None:
    """Or the test above would prove nothing."""
    for name in NAMES:
        trainer = trainer_of(name, folder)
        trainer.update(trainer.batch(0, 0, 2), PROGRESS)
        save_state(folder / "half.safetensors", trainer, {}, State())
        half, two = load_file(folder / "half.safetensors"), load_file(folder / f"{name}-0.safetensors")
        moments = [key for key in two if key.endswith(("/exp_avg", "/momentum_buffer"))]
        scale = max(two[key].abs().max() for key in moments)
        assert max((half[key] - two[key]).abs().max() for key in moments) > 0.02 * scale, name


def test_processes_with_different_clocks_and_weights_end_together_and_equal(folder: Path) -> None:
    first, second = (load_file(folder / f"end-{rank}.safetensors") for rank in (0, 1))
    assert first.keys() == second.keys()
    assert float(first["optimizer/all/0/step"]) == float(second["optimizer/all/0/step"]) > 1
    for key, value in first.items():
        assert torch.equal(value, second[key]), key
    assert (folder / "state-0" / "state.safetensors").exists()
    assert not (folder / "state-1").exists()  # only the first process writes


if __name__ == "__main__":
    work(Path(sys.argv[1]))
