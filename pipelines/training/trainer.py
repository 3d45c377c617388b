"""What one network brings to a training, and how several processes are kept equal.

All processes begin with the first one's weights and average their gradients after each backward pass.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from pipelines.training.data.dataset import Dataset, Pictures
from pipelines.training.data.stream import Stream
from pipelines.training.sharding import clip_gradients, is_sharded

if TYPE_CHECKING:  # the page knows of trainings, and accelerate is for those that run
    from accelerate import Accelerator


class Trainer(ABC):
    """What one network brings to `fit`.

    `networks` and `optimizers` are filled by the subclass before `fit` starts; `ema_networks` names the networks whose
    moving average is what gets exported. SIZES holds the recipe and the network's sizes for each `--size`.
    """

    name: str
    file: str = ""  # of the weights in the pack; the name with .safetensors unless given
    start: str = ""  # what the training begins with, in words
    SIZES: ClassVar[dict[str, dict[str, Any]]]
    accelerator: Accelerator
    emoji: Dataset
    batch_size: int  # of each process
    networks: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]
    ema_networks: tuple[str, ...]
    ema_decay = 0.998

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
    def sample_grid(self) -> Image.Image | None:
        """A picture that shows what the network can do now; None where a package to draw it is missing."""

    @abstractmethod
    def evaluate(self) -> dict[str, float]:
        """The figures on the validation style."""

    @abstractmethod
    def export(self, path: Path, facts: dict[str, Any]) -> None:
        """Write the checkpoint that the studio loads."""

    @abstractmethod
    def compile_targets(self) -> list[nn.Module]:
        """The modules where most of an update's time goes, which `--compile` compiles."""

    @property
    def stream(self) -> Stream | None:
        """What the batches come from, where it is a stream."""
        return self.emoji if isinstance(self.emoji, Stream) else None

    @property
    def sharded(self) -> bool:
        """Whether networks are divided among the processes."""
        return any(is_sharded(network.parameters()) for network in self.networks.values())

    def batch_of_stream(self, pictures: Pictures, step: int, rank: int) -> Any:
        """The batch of a step in which these pictures of a stream are all there is."""
        raise NotImplementedError(self.name)

    def plain(self, name: str) -> nn.Module:
        """Another network like this one, in one piece; of a network that can be divided only."""
        raise NotImplementedError(name)

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
        return sum(p.numel() for name in self.ema_networks for p in self.networks[name].parameters())

    def backward_and_step(self, loss: Tensor, clipped: nn.Module | None, *names: str) -> None:
        """One step of the named optimizers down the gradient of the joint loss, the mean of all processes' losses.

        The gradient of `clipped` is cut to norm 1.
        """
        self.accelerator.backward(loss)
        self.step(clipped, *names)

    def step(self, clipped: nn.Module | None, *names: str) -> None:
        """One step of the named optimizers down the mean of all processes' gradients; see `backward_and_step`."""
        optimizers = [self.optimizers[name] for name in names]
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        average_gradients(self.accelerator, (p for group in groups for p in group["params"]))
        if clipped is not None and self.sharded:
            clip_gradients(self.accelerator, clipped.parameters(), 1.0)
        elif clipped is not None:
            self.accelerator.clip_grad_norm_(clipped.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    def mean_over_processes(self, x: Tensor) -> Tensor:
        """The mean of a tensor over all processes, without gradient; x itself when there is only one."""
        if self.accelerator.num_processes == 1:
            return x.detach()
        return cast(Tensor, self.accelerator.reduce(x.detach(), "mean"))


class PictureTrainer(Trainer):
    """Base of trainings that need no more than pictures and captions, so that a stream can give them."""

    seed: int

    def batch(self, step: int, rank: int = 0, count: int = 1) -> Any:
        rng, n = np.random.default_rng((self.seed, step, rank)), self.batch_size
        rows = rng.choice(self.emoji.train, n, replace=len(self.emoji.train) < n)
        return self.batch_of(self.emoji, rows, rng, step, rank)

    def batch_of_stream(self, pictures: Pictures, step: int, rank: int) -> Any:
        rng = np.random.default_rng((self.seed, step, rank))
        return self.batch_of(pictures, pictures.train, rng, step, rank)

    @abstractmethod
    def batch_of(
        self, pictures: Pictures, rows: np.ndarray, rng: np.random.Generator, step: int, rank: int
    ) -> Any:
        """The batch of a step about these rows of the pictures, by the step's own chance."""


def average_gradients(accelerator: Accelerator, parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over all processes; each of them runs the same graph.

    Gradients that are divided among processes are such means already.
    """
    if accelerator.num_processes == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None and not is_sharded([p.grad])]
    mean = cast(Tensor, accelerator.reduce(torch.cat([grad.flatten() for grad in gradients]), "mean"))
    for gradient, part in zip(gradients, mean.split([grad.numel() for grad in gradients]), strict=True):
        gradient.copy_(part.view(gradient.shape))


@torch.no_grad()
def broadcast_weights(accelerator: Accelerator, networks: Iterable[nn.Module]) -> None:
    """Give every process the first one's weights, but for those that are divided among them."""
    from accelerate.utils import broadcast

    if accelerator.num_processes > 1:
        for network in networks:
            for value in (*network.parameters(), *network.buffers()):
                if is_sharded([value]):
                    continue
                value.copy_(cast(Tensor, broadcast(value.detach().contiguous())))


def learning_rate(progress: float, warmup: float = 0.02) -> float:
    """The factor on every base rate: linear warm-up, then a cosine down to 2 %."""
    if progress < warmup:
        return max(progress / warmup, 0.02)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))
