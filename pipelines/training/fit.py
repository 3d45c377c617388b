"""The one loop that trains everything, on accelerate: one process, several, CPU or GPU.

A Trainer brings networks, optimizers and what one update is; `fit` brings the budget, the learning-rate schedule, the
moving average of the weights, saving and resuming, curves and sheets.
"""

from __future__ import annotations

import json
import math
import platform
import time
from abc import ABC, abstractmethod
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from PIL import Image, ImageDraw
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from pipelines.base import Step
from pipelines.files import write_atomically
from pipelines.training.data import Emoji


@dataclass
class Budget:
    """How long to train: minutes of this machine, or a number of steps when `steps` is given (then exactly resumable)."""

    minutes: float = 20.0
    steps: int | None = None

    def progress(self, step: int, seconds: float) -> float:
        """The share of the budget that is spent, in [0, 1]."""
        return min(1.0, step / self.steps if self.steps else seconds / (60 * self.minutes))


class Trainer(ABC):
    """What one network brings to `fit`.

    `networks` and `optimizers` are filled by the subclass before `fit` starts; `averaged` names the networks whose
    moving average is what gets exported. `batch(step)` must depend on nothing but its arguments and the seed, so that
    a resumed training sees what the uninterrupted one would have seen.
    """

    name: str
    file: str = ""  # of the weights in the pack; the name with .safetensors unless given
    accelerator: Accelerator
    emoji: Emoji
    networks: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]
    averaged: tuple[str, ...]
    average_decay = 0.998

    @abstractmethod
    def batch(self, step: int) -> Any:
        """The batch of one step, on the accelerator's device."""

    @abstractmethod
    def update(self, batch: Any, progress: float) -> dict[str, float]:
        """One update of all networks; `progress` in [0, 1] says where in the budget we are. Returns metrics."""

    @abstractmethod
    def sheet(self) -> Image.Image:
        """A picture that shows what the network can do now."""

    @abstractmethod
    def evaluate(self) -> dict[str, float]:
        """The figures on the validation style."""

    @abstractmethod
    def export(self, path: Path, facts: dict[str, Any]) -> None:
        """Write the checkpoint that the studio loads."""

    def samples_per_step(self) -> int:
        """Pictures (or sequences) one step sees, over all processes."""
        return 0


def learning_rate(progress: float, warmup: float = 0.02) -> float:
    """The factor on every base rate: linear warm-up, then a cosine down to 2 %."""
    if progress < warmup:
        return max(progress / warmup, 0.02)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


@dataclass
class State:
    """Where a training stands besides its tensors."""

    step: int = 0
    seconds: float = 0.0
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)


def fit(
    trainer: Trainer, folder: Path, budget: Budget, save_every: float = 300.0
) -> Generator[Step, None, State]:
    """Train until the budget is spent, yielding a Step per update; resumes from `folder` when it holds a state.

    Writes into `folder`: state.safetensors (everything, every `save_every` seconds), curves.png, sheet.png.
    """
    state, average = State(), {}
    for name in trainer.averaged:
        network = trainer.accelerator.unwrap_model(trainer.networks[name])
        average[name] = {
            k: v.detach().clone() for k, v in network.state_dict().items() if v.is_floating_point()
        }
    if (folder / "state.safetensors").exists():
        state = load_state(folder / "state.safetensors", trainer, average)
    base_rates = {
        name: [group.setdefault("base_lr", group["lr"]) for group in one.param_groups]
        for name, one in trainer.optimizers.items()
    }
    begun, seconds_before, saved = time.perf_counter(), state.seconds, time.perf_counter()
    while (progress := budget.progress(state.step, state.seconds)) < 1.0:
        factor = learning_rate(progress)
        for name, optimizer in trainer.optimizers.items():
            for group, rate in zip(optimizer.param_groups, base_rates[name], strict=True):
                group["lr"] = rate * factor
        metrics = trainer.update(trainer.batch(state.step), progress)
        _follow(trainer, average, state.step)
        state.step += 1
        state.seconds = seconds_before + time.perf_counter() - begun
        for key, value in metrics.items():
            if not math.isfinite(value):
                raise ArithmeticError(
                    f"{key} became {value} at step {state.step}; the last good state is in {folder}"
                )
            if state.step % 10 == 0:
                state.curves.setdefault(key, []).append((state.step, value))
        total = budget.steps or round(state.step / max(budget.progress(state.step, state.seconds), 1e-6))
        yield Step("train", state.step, max(total, state.step), metrics)
        if time.perf_counter() - saved > save_every and trainer.accelerator.is_main_process:
            saved = time.perf_counter()
            save_state(folder / "state.safetensors", trainer, average, state)
            _write_picture(folder / "curves.png", draw_curves(state.curves))
            _write_picture(folder / "sheet.png", trainer.sheet())
    if trainer.accelerator.is_main_process:
        save_state(folder / "state.safetensors", trainer, average, state)
        _write_picture(folder / "curves.png", draw_curves(state.curves))
    for name, values in average.items():
        trainer.accelerator.unwrap_model(trainer.networks[name]).load_state_dict(values, strict=False)
    if trainer.accelerator.is_main_process:
        _write_picture(folder / "sheet.png", trainer.sheet())
    return state


@torch.no_grad()
def _follow(trainer: Trainer, average: dict[str, dict[str, Tensor]], step: int) -> None:
    """Move the average of the weights towards the weights; fast in the beginning."""
    weight = 1 - min(trainer.average_decay, (1 + step) / (10 + step))
    for name, values in average.items():
        now = trainer.accelerator.unwrap_model(trainer.networks[name]).state_dict()
        for key, value in values.items():
            value.lerp_(now[key], weight)


# ------------------------------------------------------------------------------------------------------------- state


def save_state(path: Path, trainer: Trainer, average: dict[str, dict[str, Tensor]], state: State) -> None:
    """Networks, averages, optimizers and counters in one safetensors file, written atomically."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for name, network in trainer.networks.items():
        for key, value in trainer.accelerator.unwrap_model(network).state_dict().items():
            tensors[f"network/{name}/{key}"] = value
    for name, values in average.items():
        for key, value in values.items():
            tensors[f"average/{name}/{key}"] = value
    for name, optimizer in trainer.optimizers.items():
        book = optimizer.state_dict()
        numbers[name] = {"param_groups": book["param_groups"], "state": {}}
        for index, entry in book["state"].items():
            for key, value in entry.items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer/{name}/{index}/{key}"] = value
                else:
                    numbers[name]["state"].setdefault(index, {})[key] = value
    facts = {"step": state.step, "seconds": state.seconds, "curves": state.curves, "optimizers": numbers}
    plain = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    write_atomically(path, save(plain, {"facts": json.dumps(facts)}))


def load_state(path: Path, trainer: Trainer, average: dict[str, dict[str, Tensor]]) -> State:
    """Put everything back where `save_state` found it."""
    with safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()["facts"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    for name, network in trainer.networks.items():
        prefix = f"network/{name}/"
        values = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        trainer.accelerator.unwrap_model(network).load_state_dict(values)
    for name, values in average.items():
        for key, value in values.items():
            value.copy_(tensors[f"average/{name}/{key}"])
    for name, optimizer in trainer.optimizers.items():
        book = facts["optimizers"][name]
        entries = {int(index): dict(entry) for index, entry in book["state"].items()}
        prefix = f"optimizer/{name}/"
        for key, value in tensors.items():
            if key.startswith(prefix):
                index, word = key.removeprefix(prefix).split("/", 1)
                entries.setdefault(int(index), {})[word] = value
        optimizer.load_state_dict({"param_groups": book["param_groups"], "state": entries})
    curves = {key: [tuple(point) for point in points] for key, points in facts["curves"].items()}
    return State(facts["step"], facts["seconds"], curves)


def hardware() -> str:
    """What a training ran on, in words."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def fastest_precision(device: torch.device) -> str:
    """ "bf16" or "no": on a GPU bf16; on a CPU whichever multiplies matrices faster here, since it differs by maker."""
    if device.type == "cuda":
        return "bf16"
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.ones(768, 768, dtype=dtype)
        torch.mm(a, a)
        begun = time.perf_counter()
        for _ in range(5):
            torch.mm(a, a)
        seconds[dtype] = time.perf_counter() - begun
    return "bf16" if seconds[torch.bfloat16] < 0.8 * seconds[torch.float32] else "no"


# ---------------------------------------------------------------------------------------------------------- pictures


def sheet_of(pictures: Tensor, columns: int) -> Image.Image:
    """(n, 3, h, w) in [-1, 1] -> one picture, row by row, 2 pixels apart."""
    from pipelines.images import to_pil

    tiles = to_pil(pictures)
    rows = -(-len(tiles) // columns)
    w, h = tiles[0].width + 2, tiles[0].height + 2
    sheet = Image.new("RGB", (columns * w, rows * h), "white")
    for k, tile in enumerate(tiles):
        sheet.paste(tile, (k % columns * w, k // columns * h))
    return sheet


def draw_curves(
    curves: dict[str, list[tuple[int, float]]], width: int = 640, height: int = 160
) -> Image.Image:
    """One small plot a metric, the smoothed curve over the raw one."""
    picture = Image.new("RGB", (width, height * max(1, len(curves))), "#FAF8F4")
    pen = ImageDraw.Draw(picture)
    for k, (name, points) in enumerate(curves.items()):
        top = k * height
        values = [value for _, value in points]
        lo, hi = min(values), max(values)
        last_step = max(points[-1][0], 1)
        place = [
            (
                50 + step / last_step * (width - 60),
                top + height - 20 - (value - lo) / ((hi - lo) or 1) * (height - 50),
            )
            for step, value in points
        ]
        smooth, mean = [], place[0][1]
        for x, y in place:
            mean += (y - mean) * 0.1
            smooth.append((x, mean))
        if len(place) > 1:
            pen.line(place, fill="#E6B8AC")
            pen.line(smooth, fill="#D9432F", width=2)
        pen.text((50, top + 6), f"{name}: {values[-1]:.4g} at step {last_step:,}", fill="#1E1B16")
        pen.text((4, top + 26), f"{hi:.3g}", fill="#6F685C")
        pen.text((4, top + height - 30), f"{lo:.3g}", fill="#6F685C")
    return picture


def _write_picture(path: Path, picture: Image.Image) -> None:
    import io

    file = io.BytesIO()
    picture.save(file, "PNG")
    write_atomically(path, file.getvalue())
