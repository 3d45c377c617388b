"""What a training reports: curves, sheets of pictures, figures on the validation style, and what it ran on."""

from __future__ import annotations

import io
import json
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from pipelines.io.files import cannot_save, write_atomically
from pipelines.io.images import to_pil
from pipelines.training.sharding import whole
from pipelines.training.state import State
from pipelines.training.trainer import Trainer


@contextmanager
def ema_weights(trainer: Trainer, average: dict[str, dict[str, Tensor]]) -> Iterator[None]:
    """Inside, the networks have their averaged weights and are in evaluation mode.

    Those that are divided among processes are others then: see `averaged_networks`.
    """
    if trainer.sharded:
        divided = dict(trainer.networks)
        trainer.networks.update(averaged_networks(trainer, average))
        try:
            yield
        finally:
            trainer.networks.update(divided)
        return
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


@torch.no_grad()
def averaged_networks(trainer: Trainer, average: dict[str, dict[str, Tensor]]) -> dict[str, nn.Module]:
    """The averaged networks in one piece in the first process, which draws and measures with them; {} in the others.

    All processes must ask for them.
    """
    networks: dict[str, nn.Module] = {}
    for name, values in average.items():
        network = trainer.plain(name).eval() if trainer.accelerator.is_main_process else None
        places = {} if network is None else network.state_dict()
        for key, value in values.items():
            value = whole(value)
            if network is not None:
                places[key].copy_(value)
        if network is not None:
            networks[name] = network
    return networks


FIRST_SAMPLE = 10.0  # seconds; the waits grow to what was asked for, each twice the one before
SAMPLING_SHARE = 0.1  # of the time that drawing may take
MOST_SHEETS = 40


class Sampling:
    """When to draw a sheet for whoever watches: soon at first, then every `seconds`, later where drawing takes long."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._wait = seconds, min(FIRST_SAMPLE, seconds)
        self._next = time.monotonic() + self._wait

    def due(self) -> bool:
        """Whether it is time."""
        return time.monotonic() >= self._next

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Inside, a sheet is drawn; the next one is due after a time that follows from how long it took."""
        begun = time.monotonic()
        yield
        ended = time.monotonic()
        self._wait = min(2 * self._wait, self._seconds)
        self._next = ended + max(self._wait, (ended - begun) * (1 / SAMPLING_SHARE - 1))


def report(folder: Path, trainer: Trainer, state: State) -> None:
    """Curves, a sheet that is kept under its step's number, and one line of figures on the validation style.

    CannotSave when the disk is full or the folder may not be written.
    """
    draw_pictures(folder, trainer, state)
    line = {"step": state.step, "seconds": round(state.seconds), "figures": trainer.evaluate()}
    path = folder / "figures.jsonl"
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        raise cannot_save(path, error) from error


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


def image_grid(pictures: Tensor, columns: int) -> Image.Image:
    """(n, 3, h, w) in [-1, 1] -> one picture, row by row, 2 pixels apart."""
    tiles = to_pil(pictures)
    rows = -(-len(tiles) // columns)
    w, h = tiles[0].width + 2, tiles[0].height + 2
    grid = Image.new("RGB", (columns * w, rows * h), "white")
    for k, tile in enumerate(tiles):
        grid.paste(tile, (k % columns * w, k // columns * h))
    return grid


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


def draw_pictures(folder: Path, trainer: Trainer, state: State) -> None:
    """Write curves.png, sheet.png, and the sheet once more under the step's number."""
    write_picture(folder / "curves.png", draw_curves(state.curves))
    if (grid := trainer.sample_grid()) is not None:
        write_picture(folder / "sheet.png", grid)
        write_picture(folder / "sheets" / f"{state.step:08}.png", grid)


def draw_sample(folder: Path, trainer: Trainer, state: State) -> None:
    """Write the sheet under the step's number, and delete the one that tells least when there are over MOST_SHEETS."""
    if (grid := trainer.sample_grid()) is None:
        return
    write_picture(folder / "sheets" / f"{state.step:08}.png", grid)
    steps = sheet_steps(folder)
    if len(steps) > MOST_SHEETS:
        gaps = [(after - before) / after for before, after in zip(steps, steps[2:], strict=False)]
        with suppress(OSError):
            (folder / "sheets" / f"{steps[1 + gaps.index(min(gaps))]:08}.png").unlink()


def sheet_steps(folder: Path) -> list[int]:
    """The steps of which `folder` keeps sheets, in order."""
    return sorted(int(file.stem) for file in folder.glob("sheets/*.png") if file.stem.isdecimal())


def write_picture(path: Path, picture: Image.Image) -> None:
    """Write the picture as PNG, atomically."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    write_atomically(path, file.getvalue())
