"""`python launch.py train NAME`: one command per network, to a time budget, resumable."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator

from pipelines.arguments import Parser, number
from pipelines.base import BadInput
from pipelines.training.data import DATA_FILE
from pipelines.training.fit import Budget, State, Trainer, fastest_precision, fit, hardware

ASSETS = Path(__file__).parents[2] / "assets" / "tiny"


def clip_trainer(accelerator: Accelerator, options: argparse.Namespace) -> Trainer:
    """CLIP and its critic; the tokenizer is made on the first training and kept."""
    from pipelines.models.tokenizer import Tokenizer
    from pipelines.training.clip import ClipTrainer, CriticTrainer, caption_words, train_tokenizer
    from pipelines.training.data import Emoji

    emoji = Emoji(options.data)
    path = options.out / "tokenizer.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(train_tokenizer(emoji).book.to_str(), "utf-8")
        path.with_name("words.txt").write_text("\n".join(caption_words(emoji)), "utf-8")
    trainer = {"clip": ClipTrainer, "critic": CriticTrainer}[options.name]
    return trainer(
        accelerator,
        emoji,
        Tokenizer.load(path),
        options.state / "clip",
        seed=options.seed,
        start=options.start,
    )


def vqgan_trainer(accelerator: Accelerator, options: argparse.Namespace) -> Trainer:
    """The image-token codec, with perceptual features from the CLIP in `out` when there is one."""
    from pipelines.training.data import Emoji
    from pipelines.training.vqgan import VqganTrainer

    return VqganTrainer(accelerator, Emoji(options.data), options.out, seed=options.seed)


def decoder_trainer(accelerator: Accelerator, options: argparse.Namespace) -> Trainer:
    """More training for the decoder of the VQGAN in `out`; its tokens stay the same."""
    from pipelines.training.data import Emoji
    from pipelines.training.vqgan import DecoderTrainer

    return DecoderTrainer(accelerator, Emoji(options.data), options.out, seed=options.seed)


def dalle_trainer(accelerator: Accelerator, options: argparse.Namespace) -> Trainer:
    """DALL·E over the tokens of the VQGAN in `out`."""
    from pipelines.training.dalle import DalleTrainer
    from pipelines.training.data import Emoji

    return DalleTrainer(
        accelerator, Emoji(options.data), options.out, options.state / "dalle", seed=options.seed
    )


def unet_trainer(accelerator: Accelerator, options: argparse.Namespace) -> Trainer:
    """The diffusion model that edits start from, at 64 x 64."""
    from pipelines.training.data import Emoji
    from pipelines.training.unet import UnetTrainer

    return UnetTrainer(accelerator, Emoji(options.data, size=64), seed=options.seed)


TRAINERS: dict[str, Callable[[Accelerator, argparse.Namespace], Trainer]] = {
    "clip": clip_trainer,
    "critic": clip_trainer,
    "vqgan": vqgan_trainer,
    "decoder": decoder_trainer,
    "dalle": dalle_trainer,
    "unet": unet_trainer,
}


def main(argv: list[str]) -> int:
    """Train one network; returns the exit code."""
    parser = Parser(prog="launch.py train", description="Train one network of the tiny pack.")
    parser.add_argument("name", choices=sorted(TRAINERS))
    parser.add_argument(
        "--minutes", type=number(float, 0.01, 100_000), default=20.0, help="time budget (default 20)"
    )
    parser.add_argument(
        "--steps",
        type=number(int, 1, 10**9),
        help="a budget in steps instead; then a resumed run repeats exactly",
    )
    parser.add_argument("--seed", type=number(int, 0, 2**32 - 1), default=0)
    parser.add_argument(
        "--data", type=Path, default=DATA_FILE, help=f"made by launch.py data (default {DATA_FILE})"
    )
    parser.add_argument(
        "--state", type=Path, default=Path("runs"), help="where trainings keep their state (runs)"
    )
    parser.add_argument(
        "--out", type=Path, default=ASSETS, help="where the finished weights go (assets/tiny)"
    )
    parser.add_argument(
        "--start",
        type=Path,
        help="clip and critic: an earlier checkpoint, of which the tensors that fit are taken",
    )
    options = parser.parse_args(argv)
    try:
        train(options)
    except (BadInput, FileNotFoundError, ArithmeticError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def train(options: argparse.Namespace) -> dict[str, float]:
    """Fit, evaluate, export; prints progress to standard error. Returns the figures."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    accelerator = Accelerator(mixed_precision=fastest_precision(device), cpu=device.type == "cpu")
    trainer = TRAINERS[options.name](accelerator, options)
    folder = options.state / options.name
    training, state = fit(trainer, folder, Budget(options.minutes, options.steps)), State()
    while True:
        try:
            step = next(training)
        except StopIteration as end:
            state = end.value
            break
        if accelerator.is_main_process and (step.done % 25 == 0 or step.done == step.total):
            words = "  ".join(f"{name} {value:.4g}" for name, value in step.metrics.items())
            print(
                f"{options.name} step {step.done:,} of about {step.total:,}  {words}",
                file=sys.stderr,
                flush=True,
            )
    if not accelerator.is_main_process:
        return {}
    figures = trainer.evaluate()
    facts = {
        "name": options.name,
        "steps": state.step,
        "samples": state.step * trainer.samples_per_step(),
        "seconds": round(state.seconds),
        "hardware": hardware(),
        "precision": accelerator.mixed_precision,
        "data": trainer.emoji.hash,
        "seed": options.seed,
        "start": getattr(trainer, "start", ""),
        "figures": figures,
        "licence": "MIT; trained on Apache-2.0, MIT and CC-BY-4.0 art, see assets/NOTICE",
    }
    trainer.export(options.out / (trainer.file or f"{trainer.name}.safetensors"), facts)
    print("  ".join(f"{name} {value:.4g}" for name, value in figures.items()), file=sys.stderr)
    return figures


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
