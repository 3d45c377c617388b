"""One network over several processes (FSDP; Zhao et al. 2023): each keeps a share of weights, gradients and optimizer.

torch's `fully_shard` gathers the weights of a block when they are needed, and averages and divides its gradients. Such a
tensor is a DTensor, divided along its first dimension. Numbers without a dimension stay whole in every process, and the
trainer averages their gradients as ever.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeGuard, cast

import torch
from torch import Tensor, nn

if TYPE_CHECKING:  # importing DTensor takes half a second, and only what `divide` made is one
    from accelerate import Accelerator
    from torch.distributed.tensor import DTensor


def divide(network: nn.Module, blocks: Sequence[nn.Module], accelerator: Accelerator) -> None:
    """Divide a network, whose weights are equal in all processes, in place; optimizers are made after it.

    Each of the blocks is gathered by itself, and what is outside of them for a whole update. In mixed precision blocks are
    gathered in bfloat16, and a state that goes through them stays as it is.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    numbers = {p for p in network.parameters() if p.ndim == 0}
    low = torch.bfloat16 if accelerator.mixed_precision == "bf16" else None
    policy = MixedPrecisionPolicy(param_dtype=low, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy, ignored_params=numbers)
    fully_shard(network, mesh=mesh, ignored_params=numbers)
    for part in network.modules():
        if isinstance(part, FSDPModule) and accelerator.device.type == "cpu":
            part.set_force_sum_reduction_for_comms(True)  # gloo has no mean


class WholeMuon(torch.optim.Muon):
    """Muon over matrices that are divided. Each is gathered for its step: what Muon makes of it is no sum of parts.

    All processes then compute the same, as they do over matrices that are whole.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for matrix in (p for p in group["params"] if p.grad is not None):
                buffer = self.state[matrix].setdefault("momentum_buffer", torch.zeros_like(matrix.grad))
                gathered = nn.Parameter(whole(matrix))
                gathered.grad = whole(matrix.grad)
                muon = torch.optim.Muon([{**group, "params": [gathered]}])
                muon.state[gathered]["momentum_buffer"] = momentum = whole(buffer)
                muon.step()
                for kept, value in ((matrix, gathered), (buffer, momentum)):
                    local(kept).copy_(local(divided_as(value, kept)))


def is_sharded(tensors: Iterable[Tensor]) -> bool:
    """Whether some of them are divided among processes."""
    return any(_is_divided(tensor) for tensor in tensors)


def _is_divided(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether a tensor is divided among processes; without DTensor's module nothing is."""
    kind = getattr(sys.modules.get("torch.distributed.tensor"), "DTensor", None)
    return kind is not None and isinstance(tensor, kind)


def local(tensor: Tensor) -> Tensor:
    """This process's share of a tensor, in the same memory; a tensor that is whole as it is."""
    return tensor.to_local() if _is_divided(tensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor. All processes must ask for it."""
    return tensor.full_tensor() if _is_divided(tensor) else tensor


def divided_as(tensor: Tensor, other: Tensor) -> Tensor:
    """A whole tensor divided as another one of its shape is; each process takes its share of what it has."""
    if not _is_divided(other):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    mesh = other.device_mesh
    return distribute_tensor(tensor.to(mesh.device_type), mesh, other.placements, src_data_rank=None)


@torch.no_grad()
def clip_gradients(accelerator: Accelerator, parameters: Iterable[Tensor], most: float) -> None:
    """Cut the gradient of parameters, some of them divided, to a norm."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    divided = [local(grad) for grad in gradients if _is_divided(grad)]
    equal = [grad for grad in gradients if not _is_divided(grad)]
    shares = cast(Tensor, accelerator.reduce(_squares(divided, accelerator.device), "sum"))
    norm = (shares + _squares(equal, accelerator.device)).sqrt()
    factor = (most / (norm + 1e-6)).clamp(max=1.0)  # as torch's
    for gradient in (*divided, *equal):
        gradient.mul_(factor)


def _squares(tensors: Iterable[Tensor], device: torch.device) -> Tensor:
    """The sum of the squares of all numbers."""
    return sum((x.float().square().sum() for x in tensors), torch.zeros((), device=device))
