"""The environment of a run: what decides pixels besides settings and models, as short texts by name.

How a sum of floating-point numbers rounds depends on its order, which the number of threads, the instruction set and the
kernels decide. An edit that follows a gradient makes one bit at the start a visible difference at the end.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F

MOST_THREADS = 256  # that a record may ask for
UNKNOWN = "unknown"
VARIABLES = re.compile(  # of the environment that choose among kernels
    "(ATEN_CPU_CAPABILITY|(ONEDNN|DNNL)_.*|MKL_(CBWR|ENABLE_INSTRUCTIONS|DEBUG_CPU_TYPE|DYNAMIC)|NPY_DISABLE_CPU_FEATURES"
    "|OPENBLAS_CORETYPE|NVIDIA_TF32_OVERRIDE|TORCH_ALLOW_TF32_CUBLAS_OVERRIDE|CUBLAS.*_CONFIG|CUDNN_.*|OMP_(DYNAMIC|THREAD_LIMIT))"
)


def _on_or_off(
    get: Callable[[], bool], set_: Callable[[bool], Any]
) -> tuple[Callable[[], str], Callable[[str], Any]]:
    return lambda: "on" if get() else "off", lambda text: set_(text == "on")


def _cudnn(name: str) -> tuple[Callable[[], str], Callable[[str], Any]]:
    return _on_or_off(
        lambda: getattr(torch.backends.cudnn, name), lambda on: setattr(torch.backends.cudnn, name, on)
    )


# Name -> how a choice of torch's is read and made, in the words of a record.
SWITCHES: dict[str, tuple[Callable[[], str], Callable[[str], Any]]] = {
    "float32 products": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "flash attention": _on_or_off(
        torch.backends.cuda.flash_sdp_enabled, torch.backends.cuda.enable_flash_sdp
    ),
    "memory-efficient attention": _on_or_off(
        torch.backends.cuda.mem_efficient_sdp_enabled, torch.backends.cuda.enable_mem_efficient_sdp
    ),
    "plain attention": _on_or_off(torch.backends.cuda.math_sdp_enabled, torch.backends.cuda.enable_math_sdp),
    "cuDNN attention": _on_or_off(
        torch.backends.cuda.cudnn_sdp_enabled, torch.backends.cuda.enable_cudnn_sdp
    ),
    "deterministic kernels": _on_or_off(
        torch.are_deterministic_algorithms_enabled,
        lambda on: torch.use_deterministic_algorithms(on, warn_only=True),
    ),
    "oneDNN": _on_or_off(
        lambda: cast(Any, torch.backends.mkldnn).enabled,
        lambda on: cast(Any, torch.backends.mkldnn).set_flags(on),
    ),
}
GPU_SWITCHES = {
    "cuDNN": _cudnn("enabled"),
    "cuDNN's search": _cudnn("benchmark"),
    "cuDNN's deterministic kernels": _cudnn("deterministic"),
}
WORDS = ("on", "off", "highest", "high", "medium")  # what a switch may be set to


def environment_of(pipeline: object) -> dict[str, str]:
    """The environment of a pipeline's runs in this process now: its name -> what it is, each in a few words."""
    networks = dict(_networks(pipeline))
    device = next(
        (p.device for network in networks.values() for p in network.parameters()), torch.device("cpu")
    )
    threads = torch.get_num_threads()
    facts = {
        "threads": str(threads),
        "MKL's threads": _mkl_threads(),
        "precision": _precision(networks),
        "processor": _processor(),
        "instructions": _instructions(),
        "system": _system(),
        "kernels": _kernels(),
        "denormal numbers": "kept" if (torch.full((1,), 1e-39) * 1).item() else "taken as 0",
        "variables": _variables(),
    }
    facts |= {name: get() for name, (get, _) in SWITCHES.items()}
    if device.type == "cuda":
        facts |= {name: get() for name, (get, _) in GPU_SWITCHES.items()} | _gpu(device)
    return facts | {"rounding": _rounding(str(device), threads, tuple(facts.items()))}


@contextmanager
def as_recorded(environment: Mapping[str, str]) -> Generator[None]:
    """With the threads and the kernels that a record names, where this machine has them; afterwards as before.

    Values come from a stranger's file: what cannot be is passed over, and the comparison then names it.
    """
    threads = torch.get_num_threads()
    before = {name: get() for name, (get, _) in SWITCHES.items()}
    wanted = environment.get("threads", "")
    try:
        if re.fullmatch("[0-9]{1,3}", wanted) and 1 <= int(wanted) <= MOST_THREADS:
            torch.set_num_threads(int(wanted))
        _switch({name: value for name, value in environment.items() if value in WORDS})
        yield
    finally:
        torch.set_num_threads(threads)
        _switch(before)


def followed_by(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """The environment of a run that was begun in one and goes on in another: "2, then 1" where they differ."""
    merged: dict[str, str] = {}
    for name in {**before, **now}:
        then, value = before.get(name, UNKNOWN), now.get(name, UNKNOWN)
        merged[name] = then if then.split(", then ")[-1] == value else f"{then}, then {value}"[:400]
    return merged


def _switch(values: Mapping[str, str]) -> None:
    for name, (get, set_) in SWITCHES.items():
        value = values.get(name, get())
        if value != get() and (value in ("on", "off")) == (get() in ("on", "off")):
            set_(value)


def _networks(part: object, name: str = "", depth: int = 0) -> Iterator[tuple[str, nn.Module]]:
    """The networks in a pipeline by the names of their fields, but for those that only make previews."""
    if getattr(part, "only_shows", False):
        return
    if isinstance(part, nn.Module):
        yield name, part
    elif depth < 3:
        for field, value in getattr(part, "__dict__", {}).items():
            yield from _networks(value, f"{name}.{field}" if name else field, depth + 1)


def _precision(networks: dict[str, nn.Module]) -> str:
    """The number types of networks' weights: one for all, or each network's own."""
    types = {
        name: "+".join(sorted({str(p.dtype).removeprefix("torch.") for p in network.parameters()}))
        for name, network in networks.items()
    }
    if len(kinds := set(types.values()) - {""}) <= 1:
        return next(iter(kinds), "none")
    return ", ".join(f"{name} {kind}" for name, kind in sorted(types.items()))[:400]


def _variables() -> str:
    found = [
        f"{name}={value[:60]}" for name, value in sorted(os.environ.items()) if VARIABLES.fullmatch(name)
    ]
    return ", ".join(found)[:900] or "none"


def _mkl_threads() -> str:
    """MKL's own number of threads, which MKL_NUM_THREADS may set apart from torch's."""
    found = re.search(r"mkl_get_max_threads\(\)\s*:\s*(\d+)", torch.__config__.parallel_info())
    return found[1] if found else "none"


@cache
def _processor() -> str:
    """The processor's model and the machine's kind."""
    name = platform.processor()
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            found = re.search(
                r"^(?:model name|Hardware|CPU implementer)\s*:\s*(.+)$", file.read(100_000), re.MULTILINE
            )
        name = found[1] if found else name
    except OSError:
        pass
    return f"{' '.join(name.split())[:120]} ({platform.machine()})"


@cache
def _instructions() -> str:
    """The instruction sets that torch and oneDNN choose their kernels by."""
    cpu = cast(Any, torch.cpu)
    names = {
        "AVX512-VNNI": "_is_vnni_supported",
        "AVX512-BF16": "_is_avx512_bf16_supported",
        "AMX": "_is_amx_tile_supported",
        "AMX-FP16": "_is_amx_fp16_supported",
    }
    more = [name for name, check in names.items() if hasattr(cpu, check) and getattr(cpu, check)()]
    return " ".join([torch.backends.cpu.get_cpu_capability(), *more])


@cache
def _system() -> str:
    """The operating system and its C library, whose exp and log round in their own way."""
    return " ".join(filter(None, (platform.system(), *platform.libc_ver())))


@cache
def _kernels() -> str:
    """torch's build and the libraries that compute in it."""
    text = torch.__config__.show()
    found = [torch.__version__, str(torch.version.git_version)[:10]]
    for library, pattern in (
        ("MKL", r"Math Kernel Library Version (\S+)"),
        ("oneDNN", r"MKL-DNN (v\S+)"),
        ("OpenMP", r"OpenMP (\d+)"),
        ("BLAS", r"BLAS_INFO=(\w+)"),
    ):
        if match := re.search(pattern, text):
            found.append(f"{library} {match[1]}")
    return ", ".join(found)


def _gpu(device: torch.device) -> dict[str, str]:
    cuda = cast(Any, torch.cuda)
    facts = cuda.get_device_properties(device)
    return {
        "GPU": f"{facts.name}, {facts.major}.{facts.minor}, {facts.multi_processor_count} multiprocessors",
        "CUDA": f"{torch.version.cuda or getattr(torch.version, 'hip', '')}, cuDNN {torch.backends.cudnn.version()}",
    }


@cache
def _rounding(device: str, threads: int, facts: tuple[tuple[str, str], ...]) -> str:
    """A hash of what convolutions, products, attention and sums come to here, forward and, on a CPU, backward.

    It differs where a cause has no name of its own. `threads` and `facts` are what the cache goes by.
    """
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 64, 32, 32), (96, 64, 3, 3), (96, 256), (2, 4, 64, 32))
    with torch.enable_grad():
        x, kernel, matrix, q = (
            torch.randn(shape, generator=generator).to(device).requires_grad_(device == "cpu")
            for shape in shapes
        )
        y = F.conv2d(x.contiguous(memory_format=torch.channels_last), kernel, padding=1)
        z = F.silu(F.group_norm(y, 8)).mean((2, 3)) @ matrix
        seen = F.scaled_dot_product_attention(q, q, q)
        enlarged = F.interpolate(y, scale_factor=0.4, mode="bilinear")
        loss = F.layer_norm(z, (256,)).softmax(1).square().sum() + enlarged.mean() + seen.exp().mean()
        parts = [y, z, seen, loss]
        if device == "cpu":
            parts += torch.autograd.grad(loss, [x, kernel, matrix, q])
    data = b"".join(part.detach().cpu().contiguous().numpy().tobytes() for part in parts)
    return hashlib.sha256(data).hexdigest()[:12]
