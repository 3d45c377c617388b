"""A training that looks as if it were going on or had ended, as files only, for tests of what is shown of it."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

from app.trainings.manager import Trainings
from app.trainings.order import Order

SHEETS = (40, 160, 640, 1240)


def pretend(trainings: Trainings, how: str, data: str = "/home/me/cats", network: str = "codec") -> Path:
    """Make `trainings` believe in a training of a whole pack that is at `network`: its folder.

    `how` is "running", or what a training writes when it ends: "paused", "done", "failed".
    """
    made = trainings.folder / f"20260101-120000-{time.time_ns():x}"
    made.mkdir(parents=True)
    order = Order("pack", data, "my-cats", str(made / "pack"), minutes=60.0)
    (made / "training.json").write_text(json.dumps({"began": time.time(), "order": order.to_dict()}))
    state = trainings.state / "own" / "my-cats-0" / network
    facts = {"network": network, "folder": str(state), "parameters": 5_700_000, "batch": 32}
    lines: list[dict[str, Any]] = [{"facts": {**facts, "hardware": "x86_64 CPU, 2 threads"}}]
    for step in range(10, 1241, 10):
        wave = 0.03 * math.sin(step * 7.3) + 0.02 * math.sin(step * 1.7)
        metrics = {
            "pixel": 0.08 + 0.4 * math.exp(-step / 220) + wave / 4,
            "perceptual": 0.3 + 0.6 * math.exp(-step / 400) + wave,
        }
        lines.append({"clock": step / 6, "step": step, "total": 4100, "metrics": metrics})
    (state / "sheets").mkdir(parents=True, exist_ok=True)
    for step in SHEETS:
        noise = Image.effect_noise((384, 256), 90 * 40 / step).convert("RGB")
        shapes = Image.linear_gradient("L").resize((384, 256)).convert("RGB")
        Image.blend(noise, shapes, 1 - 40 / step).save(state / "sheets" / f"{step:08}.png")
    (made / "progress.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (state / "figures.jsonl").write_text(json.dumps({"figures": {"PSNR": 24.81, "codes used": 0.93}}) + "\n")
    end(made, how)
    trainings.id, trainings._progress = made.name, None
    return made


def end(made: Path, how: str) -> None:
    """Let it go on, or have it end so."""
    if how == "running":
        other = psutil.Process(os.getppid())  # some process that lives
        (made / "process.json").write_text(json.dumps([other.pid, other.create_time()]))
        return
    (made / "process.json").unlink(missing_ok=True)
    problem = {"code": "io.disk_full", "facts": {"file": "state.safetensors"}}
    (made / "ended.json").write_text(json.dumps({"how": how, "problem": problem}))
    (made / "log.txt").write_text("codec step 1,240 of about 4,100  pixel 0.081\natelier: the disk is full\n")
