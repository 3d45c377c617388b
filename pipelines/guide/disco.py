"""Settings of Disco Diffusion's notebooks (4 to 5.7, Turbo, and those that took over their names) as Guide's.

Every name of a notebook is carried over, or told of with why it is not. What is off in the notebook is carried over by
leaving it off.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.core.prompts import MAX_WEIGHT, Target, said
from pipelines.core.settings import Knob, Settings
from pipelines.errors import BadInput, Message
from pipelines.guide.notebook_text import values_in
from pipelines.guide.schedules import as_keyframes, as_number, as_schedule
from pipelines.io.values import is_dict, is_list

SIDE = 64  # pixels; a notebook's sides are reduced to multiples of it
UNCHANGED_FRAMES = (1000, 10_000)  # max_frames of a notebook in which nobody set it
USUAL_SKIP = 60  # percent of the steps that frames skip, here as well
MOST_NAMES = 60  # that a sentence lists
CLIPS = {  # a notebook's name -> ours
    "ViTB32": "clip-vit-b-32", "ViTB16": "clip-vit-b-16", "ViTL14": "clip-vit-l-14",
    "ViTL14_336px": "clip-vit-l-14-336", "ViTL14_336": "clip-vit-l-14-336",
    "ViTL14336": "clip-vit-l-14-336", "RN50": "clip-rn50",
    "RN101": "clip-rn101", "RN50x4": "clip-rn50x4", "RN50x16": "clip-rn50x16", "RN50x64": "clip-rn50x64",
}  # fmt: skip
A_CLIP = re.compile(r"(?:ViT[A-Z]|RN|SLIP)\w*\d\w*")
DEPTH = (
    "translation_z", "rotation_3d_x", "rotation_3d_y", "rotation_3d_z", "midas_depth_model", "midas_weight",
    "near_plane", "far_plane", "fov", "padding_mode", "sampling_mode",
)  # fmt: skip
DONE_OTHERWISE: dict[str, tuple[Any, ...]] = {  # name -> the values with which it does nothing, besides none and false
    "skip_augs": (), "clip_denoised": (), "fuzzy_prompt": (), "turbo_mode": (), "vr_mode": (),
    "diffusion_sampling_mode": ("ddim",), "sampling_mode": ("ddim", "bicubic", "bilinear", "nearest"),
    "interp_spline": ("Linear",), "sharpen_preset": ("Off",), "cut_schedules_group": (), "cutn": (16,),
    "clip_models_schedules": (), "diffusion_model_config": (), "cut_ic_pow_final": (), "cutn_batches_final": (),
    "smooth_schedules": (), "symmetry_loss_v": (), "symmetry_loss_h": (), "stop_early": (0,), "render_mask": (),
    "fix_brightness_contrast": (),
}  # fmt: skip
WITHOUT_EFFECT = re.compile(  # on a picture that is drawn here: files, display, memory, and parts of what is off
    r"n_batches|batch_size|batch_name|set_batch_name|batch_?folder|display_rate|save_rate|intermediate\w*|steps_per_checkpoint|use_checkpoint"
    r"|timestep_respacing|diffusion_steps|randomize_class|rand_mag|resume_\w+|run_to_resume|retain_\w+|cuda_device"
    r"|console_\w+|simple_nvidia\w*|skip_video_for_run_all|check_model_SHA|cutout_debug|name_docarray|use_jpg"
    r"|on_misspelled_token|clip_sequential_evaluate|text_clip_on_cpu|truncate_overlength_prompt|visualize_cuts"
    r"|skip_event|stop_event|image_output|gif_\w+|key_frames|turbo_(?:steps|preroll)|vr_\w+|video_init_\w+"
    r"|extract_nth_frame|flow_\w+|symm_loss_scale|symm_switch|gobig_\w+|keep_unsharp|(?:high|low)_(?:contrast|brightness)_\w+"
    r"|custom_path|width_height_for_\w+"
)
PERLIN = {"grey": "gray", "colored": "color", "coloured": "color", "colour": "color"}
NO_PICTURE = ("", "none", "None", "NONE")  # as notebooks write it


def read_disco(
    text: str, kind: type[Settings], beside: Mapping[str, Any]
) -> tuple[dict[str, Any], list[Message]]:
    """What the text of a notebook's settings means for the settings `kind`.

    Args:
        text: A settings file, or cells or lines that were copied; see `values_in`.
        kind: Where the values go. They are not checked here.
        beside: Values by present names that are given beside the file and win over it.

    Returns:
        The values by present names, and what is told of all others. BadInput for another text.
    """
    knobs = {knob.name: knob for knob in kind.knobs()}
    notebook = _Notebook(values_in(text), knobs, kind.aliases, beside)
    notebook.animation()
    notebook.prompts()
    notebook.canvas()
    notebook.start()
    notebook.symmetry()
    notebook.models()
    notebook.rest()
    notebook.steps()
    notebook.without()
    return notebook.values, notebook.notes


@dataclass
class _Notebook:
    """What is left of a notebook's values, and what was read of them."""

    left: dict[str, Any]
    knobs: Mapping[str, Knob]
    aliases: Mapping[str, str]
    beside: Mapping[str, Any]
    values: dict[str, Any] = field(default_factory=dict[str, Any])
    notes: list[Message] = field(default_factory=list[Message])
    moves: bool = False  # whether it is an animation

    def __post_init__(self) -> None:
        self.left = {name: value for name, value in self.left.items() if value is not None}

    def take(self, name: str, default: Any = None) -> Any:
        """A value, which is then no longer left."""
        return self.left.pop(name, default)

    def switch(self, name: str) -> bool | None:
        """Whether a value is on; None where there is none. A number is on unless it is 0."""
        value = self.take(name)
        if isinstance(value, str):
            return bool(as_number(value)) or value.strip().lower() in ("true", "yes", "on")
        return None if value is None else bool(value)

    # ----------------------------------------------------------------------------------------------------- animation

    def animation(self) -> None:
        """How many frames there are. What is no animation in two or three dimensions is a still."""
        mode, given = self.take("animation_mode"), self.take("max_frames")
        frames, beside = as_number(given), as_number(self.beside.get("max_frames"))
        most = int(self.knobs["max_frames"].hi or 0)
        if frames is None and given is not None:
            self.notes.append(
                Message("guide.notebook_usual", {"setting": "max_frames", "value": _shown(given)})
            )
        if mode not in (None, "2D", "3D", "None", "none", False):
            self.notes.append(Message("guide.notebook_mode", {"mode": _shown(mode)}))
        if beside is not None:
            self.moves = beside > 1
        elif mode is not None:
            self.moves = mode in ("2D", "3D")
        else:
            self.moves = frames not in (None, 1, *UNCHANGED_FRAMES)
            if frames in UNCHANGED_FRAMES:
                self.notes.append(Message("guide.notebook_still", {"frames": frames}))
        if mode == "3D":
            self.notes.append(
                Message(
                    "guide.notebook_flat",
                    {"names": _listed(name for name in DEPTH if self.take(name) is not None)},
                )
            )
        if self.moves and beside is None and frames is not None and frames > most:
            self.notes.append(Message("guide.notebook_frames", {"frames": f"{frames:g}", "most": most}))
            frames = most
        self.values["max_frames"] = 1 if not self.moves else most if frames is None else frames

    # ------------------------------------------------------------------------------------------------------- prompts

    def prompts(self) -> None:
        """Texts and pictures to steer to. A still has those of its first frame only."""
        scenes = [(frame, _written(items)) for frame, items in self._scenes("text_prompts") if items]
        for _, words in scenes[:1]:
            later = [f"{words} @{frame}" for frame, words in scenes[1:]] if self.moves else []
            self.values["prompt"] = " ^ ".join([words, *later])
        if not scenes and "prompt" not in {**self.left, **self.beside}:
            self.notes.append(Message("guide.notebook_no_prompt", {"usual": self.knobs["prompt"].default}))
        pictures = [(frame, map(str, items)) for frame, items in self._scenes("image_prompts") if items]
        for _, sources in pictures[:1]:
            self.values["image_prompts"] = " | ".join(sources)
        for name, later in (("text_prompts", scenes[1:] * (not self.moves)), ("image_prompts", pictures[1:])):
            if later:
                self.notes.append(
                    Message(
                        "guide.notebook_later",
                        {"setting": name, "frames": _listed(str(frame) for frame, _ in later)},
                    )
                )

    def _scenes(self, name: str) -> list[tuple[int, list[Any]]]:
        """Lists of prompts by their first frame, in order of frames. BadInput for another form."""
        texts = self.take(name)
        if is_dict(texts) and is_list(texts.get("prompts")):  # DiscoArt's
            texts = texts["prompts"]
        keyed = texts if is_dict(texts) else {} if texts in (None, "", []) else {"0": texts}
        scenes: dict[int, list[Any]] = {}
        for key, prompts in keyed.items():
            items = prompts if is_list(prompts) else [prompts]
            if not re.fullmatch(r"\s*\d{1,6}\s*", key) or not all(map(_is_prompt, items)):
                raise BadInput("guide.notebook_prompts", setting=name, text=_shown(prompts))
            scenes[int(key)] = [item for item in items if _target(item)[0]]
        return sorted(scenes.items())

    # ------------------------------------------------------------------------------------------------ canvas and start

    def canvas(self) -> None:
        """Size and seed."""
        sides = self.take("width_height")
        if isinstance(sides, str):
            sides = re.findall(r"\d+", sides)
        if "width" in self.left or "height" in self.left:
            sides = [self.take("width", ""), self.take("height", "")]
        if sides is not None:
            numbers = [as_number(side) for side in sides] if is_list(sides) else []
            wanted = [
                int(side) for side in numbers if side is not None and side == side and abs(side) < 10**6
            ]
            reduced = [side // SIDE * SIDE or side for side in wanted]
            if len(wanted) != 2 or len(numbers) != 2:
                raise BadInput("guide.notebook_size", size=_shown(sides))
            if wanted != reduced:
                self.notes.append(
                    Message(
                        "guide.notebook_sides",
                        {
                            "size": "x".join(map(str, wanted)),
                            "reduced": "x".join(map(str, reduced)),
                            "side": SIDE,
                        },
                    )
                )
            self.values["size"] = "x".join(map(str, reduced))
        seed = self.take("set_seed")
        seed = self.take("seed", seed)
        if seed is not None:
            rolled = isinstance(seed, str) and seed.strip().lower() in ("random_seed", "random", "")
            self.values["seed"] = -1 if rolled else seed
        for name in () if self.moves else ("n_batches", "batch_size"):
            if (count := as_number(self.take(name))) is not None and count > 1:
                self.notes.append(Message("guide.notebook_batches", {"setting": name, "count": f"{count:g}"}))

    def start(self) -> None:
        """The start picture or clouds of noise, which win over it; and how far the gradient is clamped."""
        mode, image = str(self.take("perlin_mode", "mixed")), self.take("init_image")
        if self.left.get("perlin_init") in (self.knobs["perlin_init"].choices or ()):  # our own form
            self.values["perlin_init"] = self.take("perlin_init")
        clouds = self.switch("perlin_init")
        if clouds is not None:
            self.values["perlin_init"] = PERLIN.get(mode, mode) if clouds else "off"
        if isinstance(image, str) and image.strip() in NO_PICTURE:
            image = None
        if image is not None and clouds:
            self.notes.append(Message("guide.notebook_clouds", {"image": _shown(image)}))
        elif image is not None:
            self.values["image"] = image
        if self.switch("clamp_grad") is False:
            self.take("clamp_max")
            self.values["clamp_max"] = 0

    def symmetry(self) -> None:
        """A notebook's `horizontal` makes left and right alike, which is a vertical axis here."""
        axes = [
            axis
            for axis, name in (
                ("vertical", "use_horizontal_symmetry"),
                ("horizontal", "use_vertical_symmetry"),
            )
            if self.switch(name)
        ]
        if axes:
            self.values["symmetry"] = axes[0] if len(axes) == 1 else "both"
        shares = self.take("transformation_percent")
        if shares is not None:
            self.values["transformation_percent"] = (
                " ".join(map(str, shares)) if is_list(shares) else str(shares)
            )

    def models(self) -> None:
        """The notebook's models, which are others here."""
        clips = self.take("clip_models")
        named = [_plain_name(clip) for clip in (clips if is_list(clips) else [clips]) if clip is not None]
        for name in [name for name in self.left if A_CLIP.fullmatch(name)]:
            if self.switch(name):
                named.append(name)
        models = [str(model) for model in (self.take("diffusion_model"),) if model is not None]
        second = self.take("use_secondary_model")
        models += ["use_secondary_model"] if second not in (None, False, "False", "false") else []
        if models:
            self.notes.append(Message("guide.notebook_models", {"names": _listed(models)}))
        ours = [CLIPS[name] for name in named if name in CLIPS]
        if named and ours:
            self.notes.append(Message("guide.notebook_clips", {"names": _listed(named), "clip": ours[0]}))
        elif named:
            self.notes.append(Message("guide.notebook_clips_unknown", {"names": _listed(named)}))

    # -------------------------------------------------------------------------------------------------------- the rest

    def rest(self) -> None:
        """Settings that mean here what they mean there, in the forms of ours."""
        for name in list(self.left):
            own = self.aliases.get(name, name)
            if own not in self.knobs or own == "frames_skip_steps":
                continue
            value, knob = self.take(name), self.knobs[own]
            if own in self.values:
                raise BadInput("settings.given_twice", setting=own, first=own, second=name)
            read = _read(knob, value)
            if read is None:
                self.notes.append(Message("guide.notebook_usual", {"setting": name, "value": _shown(value)}))
            elif isinstance(read, tuple):
                self.values[own] = read[0]
                self.notes.append(
                    Message(
                        "guide.notebook_course",
                        {"setting": name, "value": _shown(value), "first": f"{read[0]:g}"},
                    )
                )
            else:
                self.values[own] = read

    def steps(self) -> None:
        """The steps that are skipped: the share that they are of the notebook's steps, when others are given beside it."""
        steps = as_number(self.values.get("steps")) or self.knobs["steps"].default
        now = as_number(self.beside.get("steps")) or steps
        text = self.take("frames_skip_steps")
        skipped = as_number(text.strip().rstrip("%")) if isinstance(text, str) else as_number(text)
        if skipped is not None and isinstance(text, str) and text.strip().endswith("%"):
            if skipped != USUAL_SKIP:
                self.values["frames_skip_steps"] = _whole(now * skipped / 100)
        elif skipped is not None:
            self.values["frames_skip_steps"] = _whole(skipped * now / steps) if now != steps else skipped
        elif text is not None:
            self.notes.append(
                Message("guide.notebook_usual", {"setting": "frames_skip_steps", "value": _shown(text)})
            )
        skip = as_number(self.values.get("skip_steps"))
        if skip and now != steps and "skip_steps" not in self.beside:
            self.values["skip_steps"] = _whole(skip * now / steps)
            part = f"{self.values['skip_steps']} / {now:g}"
            self.notes.append(
                Message("guide.notebook_skipped", {"skipped": f"{skip:g} / {steps:g}", "now": part})
            )

    def without(self) -> None:
        """What is left has no counterpart."""
        idle: list[str] = []
        otherwise: list[str] = []
        unknown: list[str] = []
        for name, value in self.left.items():
            if name in DONE_OTHERWISE:
                off = (*DONE_OTHERWISE[name], False, "None", "none", "")
                if not any(value == plain and type(value) is type(plain) for plain in off):
                    otherwise.append(f"{name} {_shown(value)}")
            elif WITHOUT_EFFECT.fullmatch(name) or name in DEPTH:
                idle.append(name)
            else:
                unknown.append(name[:40])
        if otherwise:
            self.notes.append(Message("guide.notebook_otherwise", {"names": _listed(sorted(otherwise))}))
        if idle:
            self.notes.append(Message("guide.notebook_idle", {"names": _listed(sorted(idle))}))
        if unknown:
            self.notes.append(Message("guide.notebook_unknown", {"names": _listed(sorted(unknown))}))


def _read(knob: Knob, value: Any) -> Any:
    """A value in the form of its setting; a tuple where a schedule is given for one number; None where it says nothing.

    What is of another form is returned as it is, for Settings to refuse.
    """
    if knob.kind == "schedule":
        return as_schedule(value)
    if knob.kind == "keyframes":
        return as_keyframes(value) or None
    if knob.type not in (int, float) or isinstance(value, bool) or knob.kind == "seed":
        return value
    if isinstance(number := as_number(value), (int, float)):
        return number
    schedule = as_schedule(value)
    if not isinstance(schedule, str):
        return None if isinstance(value, str) else value
    numbers = [as_number(text) for text in re.findall(r"\[([^\[\]]*)\]", schedule)]
    return None if not numbers or None in numbers else numbers[0] if len(set(numbers)) == 1 else (*numbers,)


def _is_prompt(item: Any) -> bool:
    return isinstance(item, str) or (is_dict(item) and isinstance(item.get("text"), str))


def _written(items: Iterable[Any]) -> str:
    """Prompts TEXT:WEIGHT, as Disco reads them, in our grammar. Only weights' proportion counts: large ones shrink."""
    targets = [_target(item) for item in items]
    largest = max(abs(weight) for _, weight in targets)
    scale = MAX_WEIGHT / largest if largest > MAX_WEIGHT else 1.0
    return " | ".join(said(Target(text, float(f"{weight * scale:.4g}"))) for text, weight in targets)


def _target(item: Any) -> tuple[str, float]:
    if is_dict(item):
        weight = as_number(item.get("weight", 1))
        return str(item["text"]).strip(), float(1 if weight is None else weight)
    text, colon, number = str(item).rpartition(":")
    try:
        weight = float(number) if colon else math.nan
    except ValueError:
        weight = math.nan
    return (text.strip(), weight) if math.isfinite(weight) else (str(item).strip(), 1.0)


def _plain_name(clip: object) -> str:
    """OpenAI's CLIPs by the names of notebooks: ViT-B-32::openai is ViTB32."""
    return str(clip).removesuffix("::openai").replace("-", "")


def _whole(number: float) -> Any:
    """A whole number; what is none, as nan, as it is."""
    return int(number) if math.isfinite(number) else number


def _listed(names: Iterable[str]) -> str:
    shown = list(names)
    return ", ".join(shown[:MOST_NAMES]) + (" …" if len(shown) > MOST_NAMES else "")


def _shown(value: Any) -> str:
    """A value in a sentence, at most 60 characters."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
