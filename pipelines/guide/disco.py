"""Settings files of Disco Diffusion 5: their values in the forms of Guide's settings.

Names that mean the same are in `GuideSettings.aliases`. What has no counterpart, such as other models, three dimensions
and names of files, is left out.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, cast

from pipelines.io.values import is_dict, is_list

TEXTS = (
    "clip_guidance_scale", "cut_overview", "cut_innercut", "cut_ic_pow", "cut_icgray_p",
    "zoom", "rotate", "angle", "pan_x", "translation_x", "pan_y", "translation_y",
)  # fmt: skip
USUAL_SKIP = "60%"  # which is ours too
WITHOUT_COUNTERPART = frozenset(
    (
        "batch_name", "n_batches", "display_rate", "batch_size", "set_batch_name", "perlin_mode", "clamp_grad",
        "use_vertical_symmetry", "use_horizontal_symmetry", "animation_mode", "key_frames", "intermediate_saves",
        "intermediates_in_subfolder", "steps_per_checkpoint", "use_secondary_model", "diffusion_model",
        "diffusion_model_config", "diffusion_sampling_mode", "custom_path", "use_checkpoint", "timestep_respacing",
        "diffusion_steps", "max_num_frames", "skip_augs", "randomize_class", "clip_denoised", "fuzzy_prompt",
        "rand_mag", "interp_spline", "translation_z", "rotation_3d_x", "rotation_3d_y", "rotation_3d_z",
        "midas_depth_model", "midas_weight", "near_plane", "far_plane", "fov", "padding_mode", "sampling_mode",
        "video_init_path", "extract_nth_frame", "video_init_seed_continuity", "turbo_mode", "turbo_steps",
        "turbo_preroll", "vr_mode",
        "vr_eye_angle", "vr_ipd", "ViTB32", "ViTB16", "ViTL14", "ViTL14_336px", "RN50", "RN101", "RN50x4", "RN50x16",
        "RN50x64", "video_init_steps", "video_init_clip_guidance_scale", "video_init_tv_scale", "video_init_range_scale",
        "video_init_sat_scale", "video_init_cutn_batches", "video_init_skip_steps", "video_init_frames_scale",
        "video_init_frames_skip_steps", "video_init_flow_warp", "video_init_flow_blend",
        "video_init_check_consistency", "video_init_blend_mode",
    )
)  # fmt: skip


def values_of_disco(values: dict[str, Any]) -> dict[str, Any]:
    """The values with Disco's forms made ours, and without what has no counterpart; other values as they are."""
    own = {name: value for name, value in values.items() if name not in WITHOUT_COUNTERPART}
    for name in TEXTS:
        if isinstance(number := own.get(name), (int, float)) and not isinstance(number, bool):
            with suppress(OverflowError):  # an integer of hundreds of digits is refused like any other value
                own[name] = f"{number:g}"
    if is_dict(own.get("text_prompts")) or is_list(own.get("text_prompts")):
        own["text_prompts"] = prompt_of(own["text_prompts"])
    if is_dict(pictures := own.get("image_prompts")):
        own["image_prompts"] = " | ".join(_scenes(pictures)[0][1]) if pictures else ""
    for name in ("width_height", "size"):
        if is_list(sides := own.get(name)) and len(sides) == 2:
            own[name] = f"{sides[0]}x{sides[1]}"
    if isinstance(seed := own.get("set_seed"), str):
        del own["set_seed"]
        own |= {"set_seed": int(seed)} if seed.isdecimal() else {}
    if own.get("init_image", "") is None:
        own["init_image"] = ""
    if values.get("clamp_grad") is False:
        own["clamp_max"] = 0
    if isinstance(perlin := own.get("perlin_init"), bool):
        own["perlin_init"] = str(values.get("perlin_mode", "mixed")) if perlin else "off"
    axes = [axis for axis in ("vertical", "horizontal") if values.get(f"use_{axis}_symmetry")]
    if axes:
        own["symmetry"] = axes[0] if len(axes) == 1 else "both"
    if is_list(shares := own.get("transformation_percent")):
        own["transformation_percent"] = " ".join(map(str, shares))
    own |= _animation(own, values.get("animation_mode"))
    return own


def _animation(own: dict[str, Any], mode: object) -> dict[str, Any]:
    """The settings of an animation: without one there is one frame; skipped steps may be a percentage."""
    changed: dict[str, Any] = {}
    if mode == "None":
        changed["max_frames"] = 1
    if isinstance(skipped := own.get("frames_skip_steps"), str) and skipped.rstrip("%").isdecimal():
        steps, number = own.get("steps", 250), int(skipped.rstrip("%"))
        changed["frames_skip_steps"] = int(steps * number / 100) if skipped.endswith("%") else number
        if skipped == USUAL_SKIP:
            changed["frames_skip_steps"] = None
    return changed


def prompt_of(texts: object) -> str:
    """Disco's `text_prompts`, lists of prompts by their first frame, or one list, in our grammar."""
    scenes = _scenes(texts)
    parts = [" | ".join(prompts) for _, prompts in scenes]
    return " ^ ".join(
        f"{part} @{frame}" if k else part
        for k, ((frame, _), part) in enumerate(zip(scenes, parts, strict=True))
    )


def _scenes(texts: object) -> list[tuple[int, list[str]]]:
    if not is_dict(texts):
        return [(0, _strings(texts))]
    keyed = {int(key): _strings(prompts) for key, prompts in texts.items() if str(key).isdecimal()}
    return sorted(keyed.items()) or [(0, [])]


def _strings(prompts: object) -> list[str]:
    items = cast("list[object]", prompts) if is_list(prompts) else [prompts]
    return [str(item) for item in items]
