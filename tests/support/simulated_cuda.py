"""A simulated CUDA device: tensors that say they are on "cuda:0" and compute on the processor, with real numbers.

What CUDA refuses is refused in the same way: tensors of two devices in one operation, a random generator of the processor,
reading from numpy. What makes the processor wait for the device is counted in `syncs`. Graphs, streams and speed are not
simulated.
"""

from __future__ import annotations

import traceback
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_map_only

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
aten = torch.ops.aten
WAITING = {  # they need a number, or a shape, from the device
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten.equal.default,
    aten._unique2.default,
    aten.repeat_interleave.Tensor,
    aten.is_nonzero.default,
}
MIXED = {
    aten.copy_.default,
    aten._to_copy.default,
    aten.index.Tensor,
    aten.index_put_.default,
    aten.index_put.default,
}
Syncs = Counter[str]  # the operation and where the code asked for it -> how often


class CudaTensor(Tensor):
    """A tensor on the simulated device; `held` are its numbers, on the processor."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> CudaTensor:
        made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=CUDA,
            requires_grad=held.requires_grad,
        )
        made.held = held
        return made

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"CudaTensor({self.held})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


SEEN: Syncs = Counter()


def computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """One operation: its result is on the device that it was asked for, or else on that of its tensors."""
    leaves = tree_flatten((args, kwargs))[0]
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    ours = [one for one in tensors if isinstance(one, CudaTensor)]
    asked = kwargs.get("device")
    if isinstance(asked, (str, int)):
        asked = torch.device(asked)
    check(func, tensors, ours, kwargs)
    on_device = asked.type == "cuda" if asked is not None else bool(ours)
    if func in (aten.copy_.default,):
        on_device = isinstance(args[0], CudaTensor)
    if func in WAITING or (func in MIXED and crosses(func, args, ours, on_device)):
        SEEN[f"{func} {asker()}"] += bool(ours)
    plain_args, plain = tree_map_only(CudaTensor, lambda one: one.held, (args, kwargs))
    if asked is not None:
        plain = {**plain, "device": CPU}
    out = func(*plain_args, **plain)
    if not on_device:
        return out
    first = next(iter(func._schema.returns), None)
    if first is not None and first.alias_info is not None and first.alias_info.is_write:
        changed = kwargs.get("out", args[0])
        if isinstance(changed, CudaTensor) and changed.shape != changed.held.shape:
            raise NotImplementedError(f"{func} changes a shape in place, which is not simulated")
        return changed
    return tree_map(lambda one: CudaTensor(one) if type(one) is Tensor else one, out)


def check(func: Any, tensors: list[Tensor], ours: list[CudaTensor], kwargs: dict[str, Any]) -> None:
    """RuntimeError, as CUDA gives it, for tensors of two devices and for a generator of the other device."""
    strangers = [one for one in tensors if not isinstance(one, CudaTensor) and one.ndim > 0]
    if ours and strangers and func not in MIXED:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found cuda:0 and cpu in {func}"
        )
    generator, asked = kwargs.get("generator"), kwargs.get("device")
    is_ours = bool(ours) or (asked is not None and torch.device(asked).type == "cuda")
    if is_ours and generator is not None and generator.device.type == "cpu":
        raise RuntimeError(f"Expected a 'cuda' device type for generator but found 'cpu' in {func}")


def crosses(func: Any, args: Any, ours: list[CudaTensor], on_device: bool) -> bool:
    """Whether numbers leave the device; that way the processor waits, and the other way it does not."""
    if func in (aten.copy_.default, aten._to_copy.default):
        source = args[1] if func is aten.copy_.default else args[0]
        return isinstance(source, CudaTensor) and not on_device
    index = [one for one in args[1] if one is not None]
    return bool(ours) and any(
        one.dtype == torch.bool for one in index
    )  # a mask tells its size only on the device


def asker() -> str:
    """The line of this project that asked for an operation."""
    for frame in reversed(traceback.extract_stack()):
        if "/pipelines/" in frame.filename and "site-packages" not in frame.filename:
            return f"{frame.filename.rpartition('/pipelines/')[2]}:{frame.lineno} {frame.line}"
    return "tests"


class SimulatedCuda(TorchDispatchMode):
    """Inside it, tensors can be made on "cuda" and moved there. `syncs` counts what made the processor wait."""

    def __enter__(self) -> Any:
        torch._C._ensureCUDADeviceGuardSet()
        self.before = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        SEEN.clear()
        return super().__enter__()

    def __exit__(self, *rest: Any) -> None:
        torch._C._set_only_lift_cpu_tensors(self.before)
        super().__exit__(*rest)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})

    @property
    def syncs(self) -> Syncs:
        return Counter(SEEN)


def moved(network: nn.Module) -> nn.Module:
    """The network on the simulated device; its weights are copies."""
    for module in network.modules():
        for name, one in module._parameters.items():
            if one is not None:
                module._parameters[name] = nn.Parameter(CudaTensor(one.detach().clone()), one.requires_grad)
        for name, one in module._buffers.items():
            if one is not None:
                module._buffers[name] = CudaTensor(one.detach().clone())
    return network


@pytest.fixture
def simulated_cuda(monkeypatch: pytest.MonkeyPatch) -> SimulatedCuda:
    """The device; torch asks no driver for it."""
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)
    return SimulatedCuda()
