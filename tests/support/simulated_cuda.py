"""A simulated CUDA device: tensors that say they are on "cuda:0" and compute on the processor, with real numbers.

What CUDA refuses is refused in the same way: tensors of two devices in one operation, a random generator of the processor,
reading as numpy. What makes the processor wait for the device is counted in `syncs`. Graphs, streams and speed are not
simulated, nor what functions of torch that are written in Python do inside.
"""

from __future__ import annotations

import traceback
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_flatten, tree_map

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
# They need a number, or a shape, from the device.
WAITING = {
    Tensor.item, Tensor.tolist, Tensor.__bool__, Tensor.__float__, Tensor.__int__, Tensor.__index__, Tensor.nonzero,
    Tensor.unique, Tensor.masked_select, Tensor.equal, Tensor.allclose, torch.nonzero, torch.unique, torch.equal,
    torch.allclose, torch.masked_select,
}  # fmt: skip
# Indices may be on the processor, and copies come from there.
MIXING = {Tensor.__getitem__, Tensor.__setitem__, Tensor.copy_, Tensor.to, Tensor.type_as, Tensor.index_put_}
SEEN: Counter[str] = (
    Counter()
)  # the operation and the line that asked for it -> how often the processor waited


class CudaTensor(Tensor):
    """A tensor of the processor that says it is on the device. What is computed with it is of its class too."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return CUDA

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    @property
    def is_cpu(self) -> bool:  # type: ignore[override]
        return False

    def cpu(self, *_: Any, **__: Any) -> Tensor:  # type: ignore[override]
        return self.to("cpu")

    def numpy(self, **_: Any) -> Any:  # type: ignore[override]
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            copied = self.detach().clone().requires_grad_(self.requires_grad)
            if isinstance(self, nn.Parameter):
                copied = nn.Parameter(copied, self.requires_grad)
            memo[id(self)] = copied
        return memo[id(self)]

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.numpy()

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


# They tell of devices and kinds, and compute nothing.
ASKING = (torch.device, torch._C._nn._parse_to, torch._has_compatible_shallow_copy_type)


def on_device(value: Any) -> bool:
    """Whether a value names the device, as a string or a torch.device."""
    return isinstance(value, (str, torch.device)) and str(value).startswith("cuda")


def named(value: Any) -> bool:
    """Whether a value names any device."""
    return isinstance(value, torch.device) or (
        isinstance(value, str) and value.split(":")[0] in ("cpu", "cuda")
    )


def computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """One operation. Its result is on the device that is named, or else on that of its tensors."""
    if func in ASKING:
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)
    leaves = tree_flatten((args, kwargs))[0]
    ours = [leaf for leaf in leaves if isinstance(leaf, CudaTensor)]
    asked = [leaf for leaf in leaves if named(leaf)]
    if func is Tensor.to and len(args) > 1 and isinstance(args[1], Tensor):
        asked = [args[1].device]
        args = (args[0], args[1].dtype, *args[2:])
    is_ours = on_device(asked[0]) if asked else bool(ours)
    check(func, leaves, ours, is_ours)
    leaves_it = func is Tensor.to and isinstance(args[0], CudaTensor) and not is_ours
    if ours and (leaves_it or func in WAITING or by_mask(func, args)):
        SEEN[f"{resolve_name(func)} {asker()}"] += 1
    if asked:
        args, kwargs = tree_map(lambda leaf: CPU if named(leaf) else leaf, (args, kwargs))
    with torch._C.DisableTorchFunctionSubclass():
        out = func(*args, **kwargs)
        if func is Tensor.to and isinstance(args[0], CudaTensor) != is_ours and out is args[0]:
            out = out.clone()  # it is on another device, so it is another tensor
    if func is Tensor.__iter__:
        return iter([marked(one, is_ours) for one in out])
    return tree_map(lambda leaf: marked(leaf, is_ours), out)


def marked(value: Any, is_ours: bool) -> Any:
    if not isinstance(value, Tensor) or isinstance(value, CudaTensor) == is_ours:
        return value
    kind = CudaTensor if is_ours else Tensor
    if value.is_leaf and value.requires_grad:  # it stays one
        return value.detach().as_subclass(kind).requires_grad_()
    return value.as_subclass(kind)


def check(func: Any, leaves: list[Any], ours: list[CudaTensor], is_ours: bool) -> None:
    """RuntimeError, as CUDA gives it, for tensors of two devices and for a generator of the other device."""
    strangers = [
        one for one in leaves if isinstance(one, Tensor) and not isinstance(one, CudaTensor) and one.ndim > 0
    ]
    if ours and strangers and func not in MIXING:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found cuda:0 and cpu in {resolve_name(func)}"
        )
    if is_ours and any(isinstance(one, torch.Generator) and one.device.type == "cpu" for one in leaves):
        raise RuntimeError(
            f"Expected a 'cuda' device type for generator but found 'cpu' in {resolve_name(func)}"
        )


def by_mask(func: Any, args: Any) -> bool:
    """Whether elements are picked by a mask, whose number only the device knows."""
    if func is not Tensor.__getitem__:
        return False
    index = args[1] if isinstance(args[1], (tuple, list)) else (args[1],)
    return any(isinstance(one, CudaTensor) and one.dtype == torch.bool for one in index)


def asker() -> str:
    """The line of this project that asked for an operation."""
    for frame in reversed(traceback.extract_stack()):
        if "/pipelines/" in frame.filename and "site-packages" not in frame.filename:
            return f"{frame.filename.rpartition('/pipelines/')[2]}:{frame.lineno} {frame.line}"
    return "tests"


class SimulatedCuda(TorchFunctionMode):
    """Inside it, tensors can be made on "cuda" and moved there. `syncs` counts what made the processor wait."""

    def __enter__(self) -> Any:
        SEEN.clear()
        self.before = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)  # or `Module.to` keeps the class
        return super().__enter__()

    def __exit__(self, *rest: Any) -> None:
        torch.__future__.set_overwrite_module_params_on_conversion(self.before)
        super().__exit__(*rest)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        leaves = tree_flatten((args, kwargs))[0]
        if func not in ASKING and any(isinstance(leaf, CudaTensor) or on_device(leaf) for leaf in leaves):
            return computed(func, args, kwargs)
        return func(*args, **kwargs)

    @property
    def syncs(self) -> Counter[str]:
        return Counter(SEEN)


def moved(network: nn.Module) -> nn.Module:
    """The network on the simulated device, with copies of its weights."""
    for module in network.modules():
        for name, one in module._parameters.items():
            if one is not None:
                there = one.detach().clone().as_subclass(CudaTensor)
                module._parameters[name] = nn.Parameter(there, one.requires_grad)
        for name, one in module._buffers.items():
            if one is not None:
                module._buffers[name] = one.detach().clone().as_subclass(CudaTensor)
    return network


class Card:
    """What torch tells of a card."""

    name, major, minor, multi_processor_count, total_memory = "simulated", 0, 0, 1, 2**34


@pytest.fixture
def simulated_cuda(monkeypatch: pytest.MonkeyPatch) -> SimulatedCuda:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Card)
    return SimulatedCuda()
