"""The one loop that trains everything: on one process or several (started by torchrun), on CPUs or GPUs.

A Trainer brings networks, optimizers and what one update is; `fit` brings the budget, the learning-rate schedule, the
moving average of the weights, saving and resuming, curves and sheets. Several processes are kept equal by plain means:
all begin with the first one's weights, average their gradients after each backward pass, and share one clock.
"""

from __future__ import annotations

import io
import json
import math
import os
import platform
import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from PIL import Image, ImageDraw
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from pipelines.core.pipeline import Step
from pipelines.errors import BadInput
from pipelines.io.files import write_atomically
from pipelines.io.images import to_pil
from pipelines.training.data.emoji import Emoji


@dataclass
class Budget:
    """How long to train: minutes of this machine, or a number of steps when `steps` is given (then exactly resumable).

    With `processor` the minutes are of computing, not of waiting: processor time divided by torch's threads. A training
    beside other work then does as much as one that has the machine for itself, only later.
    """

    minutes: float = 20.0
    steps: int | None = None
    processor: bool = False

    def progress(self, step: int, seconds: float) -> float:
        """The share of the budget that is spent, in [0, 1]."""
        return min(1.0, step / self.steps if self.steps else seconds / (60 * self.minutes))

    def clock(self) -> float:
        """Seconds since some moment, by this budget's kind of time."""
        return time.process_time() / torch.get_num_threads() if self.processor else time.perf_counter()


class Trainer(ABC):
    """What one network brings to `fit`.

    `networks` and `optimizers` are filled by the subclass before `fit` starts; `averaged` names the networks whose
    moving average is what gets exported. SIZES holds the recipe and the network's sizes for each `--size`.
    """

    name: str
    file: str = ""  # of the weights in the pack; the name with .safetensors unless given
    start: str = ""  # what the training begins with, in words
    SIZES: ClassVar[dict[str, dict[str, Any]]]
    accelerator: Accelerator
    emoji: Emoji
    batch_size: int  # of each process
    networks: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]
    averaged: tuple[str, ...]
    average_decay = 0.998

    @abstractmethod
    def batch(self, step: int, rank: int = 0, count: int = 1) -> Any:
        """The batch of one step for process `rank` of `count`: CPU tensors, texts and numbers, in a dict or a tuple.

        A function of its arguments and the seed alone, so that a resumed training sees what the uninterrupted one
        would have seen, and worker processes can prepare it.
        """

    @abstractmethod
    def update(self, batch: Any, progress: float) -> dict[str, Tensor]:
        """One update of all networks; `progress` in [0, 1] says where in the budget we are. Returns metrics."""

    @abstractmethod
    def sheet(self) -> Image.Image | None:
        """A picture that shows what the network can do now; None where a package to draw it is missing."""

    @abstractmethod
    def evaluate(self) -> dict[str, float]:
        """The figures on the validation style."""

    @abstractmethod
    def export(self, path: Path, facts: dict[str, Any]) -> None:
        """Write the checkpoint that the studio loads."""

    @abstractmethod
    def hot(self) -> list[nn.Module]:
        """The modules where most of an update's time goes, which `--compile` compiles."""

    def rate_factor(self, progress: float) -> float:
        """What every base rate is multiplied by at `progress` in [0, 1]."""
        return learning_rate(progress)

    def extra_state(self) -> dict[str, Tensor]:
        """Tensors beside networks and optimizers that the next update depends on; saved, and loaded in place."""
        return {}

    def samples_per_step(self) -> int:
        """Pictures (or sequences) one step sees, over all processes."""
        return self.batch_size * self.accelerator.num_processes

    def parameter_count(self) -> int:
        """Of the networks that are exported."""
        return sum(p.numel() for name in self.averaged for p in self.networks[name].parameters())

    def descend(self, loss: Tensor, clipped: nn.Module | None, *names: str) -> None:
        """One step of the named optimizers down the gradient of the joint loss, the mean of all processes' losses.

        The gradient of `clipped` is cut to norm 1.
        """
        self.accelerator.backward(loss)
        optimizers = [self.optimizers[name] for name in names]
        groups = [group for one in optimizers for group in one.param_groups]
        average_gradients(self.accelerator, (p for group in groups for p in group["params"]))
        if clipped is not None:
            self.accelerator.clip_grad_norm_(clipped.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    def mean_over_processes(self, x: Tensor) -> Tensor:
        """The mean of a tensor over all processes, without gradient; x itself when there is only one."""
        if self.accelerator.num_processes == 1:
            return x.detach()
        return cast(Tensor, self.accelerator.reduce(x.detach(), "mean"))


def average_gradients(accelerator: Accelerator, parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over all processes; each of them runs the same graph."""
    if accelerator.num_processes == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    mean = cast(Tensor, accelerator.reduce(torch.cat([one.flatten() for one in gradients]), "mean"))
    for gradient, part in zip(gradients, mean.split([one.numel() for one in gradients]), strict=True):
        gradient.copy_(part.view(gradient.shape))


@torch.no_grad()
def equalize(accelerator: Accelerator, networks: Iterable[nn.Module]) -> None:
    """Give every process the first one's weights."""
    if accelerator.num_processes > 1:
        for network in networks:
            for value in (*network.parameters(), *network.buffers()):
                value.copy_(cast(Tensor, broadcast(value.detach().contiguous())))


# ----------------------------------------------------------------------------------------------------------- batches


class Batches(Dataset[Any]):
    """The batches of one process as a map from the number of steps after `first`."""

    def __init__(self, trainer: Trainer, first: int):
        self.trainer, self.first = trainer, first
        self.rank, self.count = trainer.accelerator.process_index, trainer.accelerator.num_processes

    def __len__(self) -> int:
        return 10**9  # the budget ends a training, not the data

    def __getitem__(self, index: int) -> Any:
        return self.trainer.batch(self.first + index, self.rank, self.count)


def batches(trainer: Trainer, first: int, workers: int) -> Iterator[Any]:
    """The batches from step `first` on, on the device; `workers` processes prepare them ahead of time (0: none)."""
    device = trainer.accelerator.device
    loader = DataLoader(
        Batches(trainer, first),
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=device.type == "cuda",
        multiprocessing_context="fork" if workers else None,  # shares the pictures in memory
        generator=torch.Generator(),  # or it would draw from the one of everybody
    )
    for batch in loader:
        yield to_device(batch, device)


def to_device(batch: Any, device: torch.device) -> Any:
    """Every tensor inside dicts and tuples moved, everything else as it is."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, (tuple, list)) and any(isinstance(one, Tensor) for one in batch):
        return type(batch)(to_device(one, device) for one in batch)
    return batch


def sensible_workers(device: torch.device) -> int:
    """None beside a CPU that trains; for a GPU the cores that its process can have, at most 16."""
    if device.type != "cuda" or not hasattr(os, "fork"):
        return 0
    return max(1, min(16, (os.cpu_count() or 2) // torch.cuda.device_count() - 1))


def _as_it_is(batch: Any) -> Any:
    return batch


# ---------------------------------------------------------------------------------------------------------- the loop


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
    trainer: Trainer,
    folder: Path,
    budget: Budget,
    save_every: float = 300.0,
    workers: int = 0,
    report_every: float = 1200.0,
) -> Generator[Step, None, State]:
    """Train until the budget is spent, yielding a Step per update; resumes from `folder` when it holds a state.

    Writes into `folder`, which all processes see: state.safetensors (everything, every `save_every` seconds of wall
    time); every `report_every` seconds of the budget's time, by the averaged weights, curves.png, sheet.png,
    sheets/STEP.png and a line of figures.jsonl, and the state before becomes state-1.safetensors, that one state-2.
    """
    equalize(trainer.accelerator, trainer.networks.values())
    state, average, file = State(), {}, folder / "state.safetensors"
    for name in trainer.averaged:
        values = trainer.networks[name].state_dict().items()
        average[name] = {k: v.detach().clone() for k, v in values if v.is_floating_point()}
    if file.exists():
        state = load_state(file, trainer, average)
    main = trainer.accelerator.is_main_process
    base_rates = {
        name: [group.setdefault("base_lr", group["lr"]) for group in one.param_groups]
        for name, one in trainer.optimizers.items()
    }
    ahead = batches(trainer, state.step, workers)
    begun, seconds_before, saved, reported = budget.clock(), state.seconds, time.perf_counter(), state.seconds
    while (progress := budget.progress(state.step, state.seconds)) < 1.0:
        factor = trainer.rate_factor(progress)
        for name, optimizer in trainer.optimizers.items():
            for group, rate in zip(optimizer.param_groups, base_rates[name], strict=True):
                group["lr"] = rate * factor
        metrics = trainer.update(next(ahead), progress)
        _follow(trainer, average, state.step)
        state.step += 1
        seconds = seconds_before + budget.clock() - begun
        numbers, state.seconds = _agreed(trainer, metrics, seconds)
        for key, value in numbers.items():
            if not math.isfinite(value):
                raise ArithmeticError(
                    f"{key} became {value} at step {state.step}; the last good state is in {folder}"
                )
            if state.step % 10 == 0:
                state.curves.setdefault(key, []).append((state.step, value))
        total = budget.steps or round(state.step / max(budget.progress(state.step, state.seconds), 1e-6))
        yield Step("train", state.step, max(total, state.step), numbers)
        if main and time.perf_counter() - saved > save_every:
            save_state(file, trainer, average, state)
            _write_picture(folder / "curves.png", draw_curves(state.curves))
            saved = time.perf_counter()
        if main and state.seconds - reported > report_every:
            keep_earlier_states(file)
            save_state(file, trainer, average, state)
            with averaged_weights(trainer, average):
                report(folder, trainer, state)
            saved, reported = time.perf_counter(), state.seconds
    if main:
        save_state(file, trainer, average, state)
    for name, values in average.items():
        trainer.networks[name].load_state_dict(values, strict=False)
    if main:
        _draw(folder, trainer, state)
    return state


@contextmanager
def averaged_weights(trainer: Trainer, average: dict[str, dict[str, Tensor]]) -> Iterator[None]:
    """Inside, the networks have their averaged weights and are in evaluation mode."""
    modes = {name: network.training for name, network in trainer.networks.items()}
    own = {
        name: {k: trainer.networks[name].state_dict()[k].clone() for k in average[name]} for name in average
    }
    try:
        for name, values in average.items():
            trainer.networks[name].eval().load_state_dict(values, strict=False)
        yield
    finally:
        for name, values in own.items():
            trainer.networks[name].load_state_dict(values, strict=False)
        for name, network in trainer.networks.items():
            network.train(modes[name])


def report(folder: Path, trainer: Trainer, state: State) -> None:
    """Curves, a sheet that is kept under its step's number, and one line of figures on the validation style."""
    _draw(folder, trainer, state)
    line = {"step": state.step, "seconds": round(state.seconds), "figures": trainer.evaluate()}
    with (folder / "figures.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _agreed(trainer: Trainer, metrics: dict[str, Tensor], seconds: float) -> tuple[dict[str, float], float]:
    """Metrics and clock as their means over all processes, so that none stops, or fails, without the others."""
    values = torch.stack([value.detach().float() for value in metrics.values()])
    if trainer.accelerator.num_processes > 1:
        clock = torch.tensor([seconds], device=values.device)
        values, clock = trainer.mean_over_processes(torch.cat([values, clock])).split([len(metrics), 1])
        seconds = clock.item()
    return dict(zip(metrics, values.tolist(), strict=True)), seconds


@torch.no_grad()
def _follow(trainer: Trainer, average: dict[str, dict[str, Tensor]], step: int) -> None:
    """Move the average of the weights towards the weights; fast in the beginning."""
    weight = 1 - min(trainer.average_decay, (1 + step) / (10 + step))
    for name, values in average.items():
        now = trainer.networks[name].state_dict()
        torch._foreach_lerp_(list(values.values()), [now[key] for key in values], weight)


# ------------------------------------------------------------------------------------------------------------- state


def save_state(path: Path, trainer: Trainer, average: dict[str, dict[str, Tensor]], state: State) -> None:
    """Networks, averages, optimizers and counters in one safetensors file, written atomically."""
    tensors = {f"extra/{key}": value for key, value in trainer.extra_state().items()}
    numbers: dict[str, Any] = {}
    for name, network in trainer.networks.items():
        for key, value in network.state_dict().items():
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


def keep_earlier_states(path: Path) -> None:
    """Before `path` is written anew: keep what it holds as NAME-1, and what that held as NAME-2."""
    first, second = (path.with_name(f"{path.stem}-{k}{path.suffix}") for k in (1, 2))
    if first.exists():
        os.replace(first, second)
    if path.exists():
        write_atomically(first, path.read_bytes())


def load_state(path: Path, trainer: Trainer, average: dict[str, dict[str, Tensor]]) -> State:
    """Put everything back where `save_state` found it. BadInput when the state is of another network."""
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()["facts"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        _put_back(facts, tensors, trainer, average)
    except (KeyError, ValueError, RuntimeError) as error:
        raise BadInput(
            f"{path} is no state of this training ({' '.join(str(error).split())[:120]}); go on with the size and the "
            "start that it was begun with, or give another folder to --state"
        ) from error
    curves = {key: [tuple(point) for point in points] for key, points in facts["curves"].items()}
    return State(facts["step"], facts["seconds"], curves)


def _put_back(
    facts: dict[str, Any],
    tensors: dict[str, Tensor],
    trainer: Trainer,
    average: dict[str, dict[str, Tensor]],
) -> None:
    for name, network in trainer.networks.items():
        prefix = f"network/{name}/"
        values = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        network.load_state_dict(values)
    for name, values in average.items():
        for key, value in values.items():
            value.copy_(tensors[f"average/{name}/{key}"])
    for key, value in trainer.extra_state().items():
        value.copy_(tensors[f"extra/{key}"])
    for name, optimizer in trainer.optimizers.items():
        book = facts["optimizers"][name]
        entries = {int(index): dict(entry) for index, entry in book["state"].items()}
        prefix = f"optimizer/{name}/"
        for key, value in tensors.items():
            if key.startswith(prefix):
                index, word = key.removeprefix(prefix).split("/", 1)
                entries.setdefault(int(index), {})[word] = value
        optimizer.load_state_dict({"param_groups": book["param_groups"], "state": entries})


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


def _draw(folder: Path, trainer: Trainer, state: State) -> None:
    """Write curves.png, sheet.png, and the sheet once more under the step's number."""
    _write_picture(folder / "curves.png", draw_curves(state.curves))
    if (sheet := trainer.sheet()) is not None:
        _write_picture(folder / "sheet.png", sheet)
        _write_picture(folder / "sheets" / f"{state.step:08}.png", sheet)


def _write_picture(path: Path, picture: Image.Image) -> None:
    file = io.BytesIO()
    picture.save(file, "PNG")
    write_atomically(path, file.getvalue())
