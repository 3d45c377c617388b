"""Samplers by name, each a scheduler of diffusers with its steps set. diffusers is imported when one is asked for.

euler: Euler's method. heun: Heun's, of second order, which computes the network twice a step (both Karras et al. 2022).
dpm++2m: DPM-Solver++ of second order (Lu et al. 2022), which uses the step before. ddim: DDIM (Song et al. 2021).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipelines.models.ddim import linear_alphas_cumprod
from pipelines.models.typed import floats

CLASSES: dict[str, tuple[str, dict[str, Any]]] = {  # and what is so whatever the model's own scheduler does
    "euler": ("EulerDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "dpm++2m": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "ddim": ("DDIMScheduler", {"clip_sample": False}),  # latents lie outside [-1, 1]
}
SAMPLERS = tuple(CLASSES)


def diffusion_scheduler(own: Any, sampler: str, steps: int, device: torch.device) -> Any:
    """One of SAMPLERS with the noise levels of a model's own scheduler, which stays as it is."""
    import diffusers

    name, options = CLASSES[sampler]
    scheduler = getattr(diffusers, name).from_config(own.config, **options)
    scheduler.set_timesteps(steps, device=device)
    return scheduler


def flow_scheduler(sampler: str, steps: int, device: torch.device, shift: float = 1.0) -> Any:
    """One of SAMPLERS on the line of a rectified flow (Liu et al. 2023), x_t = (1 - t) x_0 + t noise.

    Its noise level is the time itself; its timesteps are thousandths. On this line DDIM's step is Euler's, so "ddim" is
    Euler's method at times that have the noise levels of Ho et al. 2020, most of them at much noise.
    `shift` above 1 moves all times towards noise, t to shift * t / (1 + (shift - 1) * t) (Esser et al. 2024).
    """
    from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
    from diffusers.schedulers.scheduling_flow_match_heun_discrete import FlowMatchHeunDiscreteScheduler

    if sampler == "dpm++2m":
        scheduler: Any = DPMSolverMultistepScheduler(
            use_flow_sigmas=True,
            prediction_type="flow_prediction",
            algorithm_type="dpmsolver++",
            flow_shift=shift,
        )
        scheduler.set_timesteps(steps, device=device)
    elif sampler == "heun":
        scheduler = FlowMatchHeunDiscreteScheduler(shift=shift)
        scheduler.set_timesteps(steps, device=device)
    else:
        scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
        times = ddim_times(steps) if sampler == "ddim" else floats(torch.linspace(1, 0, steps + 1))[:-1]
        scheduler.set_timesteps(sigmas=times, device=device)
    return scheduler


def ddim_times(steps: int) -> list[float]:
    """The first `steps` of steps + 1 times of a flow with the noise levels of evenly spaced steps of Ho et al. 2020.

    The times fall from 1, which is pure noise, and are above 0.
    """
    alphas = linear_alphas_cumprod()
    chosen = alphas[torch.linspace(len(alphas) - 1, 0, steps + 1).round().long()[:-1]]
    ratio = ((1 - chosen) / chosen).sqrt()  # of noise to picture
    return [1.0, *floats(ratio / (1 + ratio))[1:]]


class ConsistencyScheduler:
    """Multistep consistency sampling (Song et al. 2023) on a flow's line, in the form of diffusers' schedulers.

    A step goes to the clean latents at once, and adds fresh noise for the next time. `times` fall from about 1 and are
    above 0; the last step ends at clean latents.
    """

    order = 1

    def __init__(self, times: list[float], device: torch.device):
        self.timesteps: Tensor = torch.tensor(times, device=device) * 1000
        self._next = [*times[1:], 0.0]
        self._at = 0

    def set_begin_index(self, index: int) -> None:
        """Begin at this step."""
        self._at = index

    def scale_noise(self, latents: Tensor, times: Tensor, noise: Tensor) -> Tensor:
        """The latents with the noise of a time (1,), in thousandths."""
        t = times.to(latents) / 1000
        return (1 - t) * latents + t * noise

    def step(
        self,
        output: Tensor,
        t: Tensor,
        latents: Tensor,
        generator: list[torch.Generator],
        return_dict: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """The latents of the next step and the clean ones that the velocity means, (n, c, h, w) for n generators."""
        clean = latents - t.to(latents) / 1000 * output
        following, self._at = self._next[self._at], self._at + 1
        noise = torch.cat([torch.randn(clean[:1].shape, generator=one) for one in generator]).to(clean)
        return (1 - following) * clean + following * noise, clean


# ------------------------------------------------------------------------------------------- what only some of them have


def start_deviation(scheduler: Any) -> Any:
    """The standard deviation of the noise that a walk begins with; 1 on a flow's line."""
    return getattr(scheduler, "init_noise_sigma", 1.0)


def scaled(scheduler: Any, latents: Tensor, t: Tensor) -> Tensor:
    """The latents as the network reads them; on a flow's line they are so already."""
    if not hasattr(scheduler, "scale_model_input"):
        return latents
    return scheduler.scale_model_input(latents, t)


def noised(scheduler: Any, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """The latents with as much noise as at the scheduler's present step; `times` (1,) is its time."""
    if hasattr(scheduler, "add_noise"):
        return scheduler.add_noise(latents, noise, times)
    return scheduler.scale_noise(latents, times, noise)


def is_first_order(scheduler: Any) -> bool:
    """Whether the next step does not correct the one before, as every second one of Heun's method does."""
    return getattr(scheduler, "state_in_first_order", True)
