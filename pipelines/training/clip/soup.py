"""`python -m pipelines.training.clip.soup OUT FILE FILE ...`: the mean of CLIPs whose trainings began alike.

Weights that began alike lie in one basin, and their mean is better than each (model soups, Wortsman et al. 2022).
"""

from __future__ import annotations

from pathlib import Path

import torch

from pipelines.core.arguments import Parser
from pipelines.errors import BadInput
from pipelines.models.checkpoint import load_weights, read_header, save_checkpoint
from pipelines.models.clip.network import Clip, ClipConfig
from pipelines.models.clip.tokenizer import Tokenizer
from pipelines.training.clip.retrieval import retrieval
from pipelines.training.data.dataset import DATA_FILE, Dataset


@torch.no_grad()
def soup_of(files: list[Path], tokenizer: Tokenizer) -> Clip:
    """A CLIP with the mean weights of these files. BadInput when they are not of one form."""
    config = read_header(files[0])[0]
    for file in files:
        if read_header(file)[0] != config:
            raise BadInput("training.start_of_other_network", file=file)
    clip, one = (Clip(ClipConfig.from_dict(config), tokenizer) for _ in range(2))
    sums = {name: torch.zeros_like(value) for name, value in clip.state_dict().items()}
    for file in files:
        load_weights(file, one)
        for name, value in one.state_dict().items():
            sums[name] += value / len(files)
    clip.load_state_dict(sums)
    return clip.eval().requires_grad_(False)


def main() -> None:
    """Write the mean of CLIPs, with the facts of all of them and its own figures."""
    parser = Parser(prog="python -m pipelines.training.clip.soup", description=main.__doc__)
    parser.add_argument("out", type=Path, help="the file to write, beside tokenizer.json")
    parser.add_argument("files", type=Path, nargs="+", help="CLIPs of trainings that began alike")
    parser.add_argument("--data", type=Path, default=DATA_FILE, help=f"made by launch.py data ({DATA_FILE})")
    options = parser.parse_args()
    clip = soup_of(options.files, Tokenizer.load(options.out.with_name("tokenizer.json")))
    facts = [read_header(file)[1] for file in options.files]
    figures = retrieval(clip, Dataset(options.data))
    told = {**facts[0], "figures": figures, "mean_of": [each.get("text", each) for each in facts]}
    save_checkpoint(options.out, clip, clip.config.to_dict(), told)


if __name__ == "__main__":
    main()
