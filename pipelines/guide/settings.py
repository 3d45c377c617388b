"""The settings of Guide, by the names that Disco Diffusion gave them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pipelines.core.looks import look_knob
from pipelines.core.prompts import parse_story
from pipelines.core.settings import knob
from pipelines.core.sizes import check_size_form
from pipelines.core.steering import SteeredSettings, steered_knob
from pipelines.errors import BadInput, Message
from pipelines.guide.disco import read_disco
from pipelines.guide.schedules import (
    Keyframes,
    Schedule,
    as_number,
    as_text,
    parse_keyframes,
    parse_schedule,
)

SCHEDULES: dict[str, tuple[float, float]] = {  # setting -> least and largest number
    "clip_guidance_scale": (0, 1_000_000),
    "cut_overview": (0, 64),
    "cut_innercut": (0, 64),
    "cut_ic_pow": (0, 100),
    "cut_icgray_p": (0, 1),
}
KEYFRAMES: dict[str, tuple[float, float]] = {
    "zoom": (0.5, 2),
    "rotate": (-180, 180),
    "pan_x": (-512, 512),
    "pan_y": (-512, 512),
}
PERLIN = {
    "off": ("off", "不用"),
    "mixed": ("mixed", "混合"),
    "color": ("color", "彩色"),
    "gray": ("gray", "灰色"),
}
SYMMETRIES = {
    "none": ("none", "无"),
    "vertical": ("vertical", "左右"),
    "horizontal": ("horizontal", "上下"),
    "both": ("both", "两者"),
}
FRAME_SKIP = 0.6  # share of the steps that frames after the first skip, where nobody says


@dataclass(frozen=True, kw_only=True)
class GuideSettings(SteeredSettings):
    """The settings of Guide. Before a run, `Guide.prepare` replaces None by definite values.

    Scales are those of Disco Diffusion 5.7: of the spherical distance, of total variation and so on, before the gradient
    is clamped. BadInput for text that does not follow its grammar, and when no step is left.
    """

    fixed: ClassVar[tuple[str, ...]] = (
        "seed", "steps", "size", "image", "skip_steps", "perlin_init", "symmetry", "transformation_percent",
        "max_frames", "frames_skip_steps", "until", "changes",
    )  # fmt: skip
    file_flag: ClassVar[str] = "disco"
    aliases: ClassVar[dict[str, str]] = {
        "text_prompts": "prompt",
        "width_height": "size",
        "init_image": "image",
        "set_seed": "seed",
        "angle": "rotate",
        "translation_x": "pan_x",
        "translation_y": "pan_y",
    }

    # fmt: off
    prompt: str = steered_knob("prompt")
    style: str = look_knob()
    steps: int = knob(60, 1, 1000, label=("steps", "步数"),
        help="steps from noise to a picture", help_zh="从噪声到画面的步数")
    size: str = steered_knob("size")
    image: str = steered_knob("image")
    skip_steps: int | None = knob(None, 0, 999, label=("skipped steps", "跳过的步数"),
        help="steps left out at the noisy end, so that more of the start picture stays",
        help_zh="从噪声一端略过的步数；越多，起始图片保留得越多")
    guidance: float | None = knob(None, 0.0, 30.0, label=("text guidance", "文本引导"),
        help="how strongly the model's own reading of the text steers; 0 for a model that reads nothing",
        help_zh="模型自己读到的文字影响有多强；0 表示模型不读文字")
    clip_guidance_scale: str = knob("5000", label=("CLIP guidance scale", "CLIP 引导强度"), kind="schedule",
        help="how strongly CLIP's gradient steers; a number, or a schedule such as [0]*200+[5000]*800",
        help_zh="CLIP 的梯度影响有多强；一个数，或随进程变化，例如 [0]*200+[5000]*800")
    clamp_max: float = knob(0.2, 0.0, 10.0, label=("largest gradient", "梯度上限"), advanced=True,
        help="root mean square that the gradient is cut to; 0 for no limit", help_zh="梯度均方根的上限；0 表示不限")
    whole_gradient: bool = knob(True, label=("through the network", "梯度穿过网络"), advanced=True,
        help="the gradient goes through the diffusion network too: slower, truer",
        help_zh="梯度也穿过扩散网络：更慢，更准")
    image_prompts: str = steered_knob("image_prompts")
    cut_overview: str = knob("[6]*400+[2]*600", label=("overview cuts", "全景视图数"), kind="schedule", advanced=True,
        help="views of the whole picture", help_zh="看整幅画面的视图数")
    cut_innercut: str = knob("[2]*400+[6]*600", label=("inner cuts", "局部视图数"), kind="schedule", advanced=True,
        help="views of parts", help_zh="看局部的视图数")
    cut_ic_pow: str = knob("1", label=("cut power", "裁切幂"), kind="schedule", advanced=True,
        help="above 1 more of the inner cuts are small", help_zh="大于 1 时局部视图更小")
    cut_icgray_p: str = knob("[0.2]*400+[0]*600", label=("grey share", "灰度比例"), kind="schedule", advanced=True,
        help="share of the inner cuts without colour", help_zh="局部视图里没有颜色的比例")
    cutn_batches: int = knob(1, 1, 16, label=("cut batches", "视图批数"), advanced=True,
        help="so many times that many cuts a step", help_zh="每一步把视图重复多少批")
    cutout_size: str = steered_knob("cutout_size")
    tv_scale: float = knob(0.0, 0.0, 1_000_000.0, label=("total variation", "全变分"), advanced=True,
        help="smoother pictures", help_zh="更平滑")
    range_scale: float = knob(150.0, 0.0, 1_000_000.0, label=("range", "数值范围"), advanced=True,
        help="against colours out of range", help_zh="不让颜色超出范围")
    sat_scale: float = knob(0.0, 0.0, 1_000_000.0, label=("saturation", "饱和"), advanced=True,
        help="against glaring colours", help_zh="减少过饱和")
    init_scale: float = knob(1000.0, 0.0, 1_000_000.0, label=("likeness to the start", "像起始图片"), advanced=True,
        help="stay like the start picture", help_zh="保持起始图片的样子")
    eta: float = knob(0.8, 0.0, 1.0, label=("eta", "随机程度"), advanced=True,
        help="fresh noise in every step; 0 for none", help_zh="每一步加入多少新噪声；0 表示不加")
    perlin_init: str = knob("off", label=("Perlin noise", "柏林噪声"), choices=PERLIN,
        advanced=True, help="begin with clouds of noise", help_zh="从云状的噪声开始")
    symmetry: str = knob("none", label=("symmetry", "对称"), choices=SYMMETRIES,
        advanced=True, help="mirror the picture on the way, about an axis that is vertical or horizontal",
        help_zh="途中把画面做镜像，使它左右对称、上下对称，或两者都对称")
    transformation_percent: str = knob("0.09", label=("mirrored at", "镜像时刻"), advanced=True,
        help="shares of the way at which it is mirrored, such as 0.09 0.3",
        help_zh="在进程的哪些比例处镜像，例如 0.09 0.3")
    max_frames: int = knob(1, 1, 1000, label=("frames", "帧数"), advanced=True,
        help="frames of an animation, each from the moved one before", help_zh="动画的帧数；每一帧从移动后的上一帧开始")
    zoom: str = knob("1.02", label=("zoom", "缩放"), kind="keyframes", advanced=True,
        help="of one frame; a number, or keyframes such as 0: (1), 30: (1.05)",
        help_zh="每帧的缩放；一个数，或关键帧，例如 0: (1), 30: (1.05)")
    rotate: str = knob("0", label=("rotate", "旋转"), kind="keyframes", advanced=True,
        help="degrees in one frame, counter-clockwise", help_zh="每帧逆时针旋转多少度")
    pan_x: str = knob("0", label=("pan right", "右移"), kind="keyframes", advanced=True,
        help="pixels to the right in one frame", help_zh="每帧向右多少像素")
    pan_y: str = knob("0", label=("pan down", "下移"), kind="keyframes", advanced=True,
        help="pixels down in one frame", help_zh="每帧向下多少像素")
    frames_skip_steps: int | None = knob(None, 0, 999, label=("steps skipped in frames", "后续帧跳过的步数"),
        advanced=True, help="steps left out in frames after the first", help_zh="第一帧以后略过的步数")
    frames_scale: float = knob(1500.0, 0.0, 1_000_000.0, label=("likeness of frames", "帧间相似"), advanced=True,
        help="stay like the frame before", help_zh="保持上一帧的样子")
    until: int = steered_knob("until", hi=1_000_000)
    changes: str = steered_knob("changes")
    # fmt: on

    def __post_init__(self) -> None:
        super().__post_init__()
        check_size_form(self.size)
        for name in SCHEDULES:
            self.schedule(name)
        for name in KEYFRAMES:
            self.keyframes(name)
        skips = {"skip_steps": self.skip_steps}
        if self.max_frames > 1:
            skips["frames_skip_steps"] = self.frames_skip_steps
        for name, skipped in skips.items():
            if skipped is not None and skipped >= self.steps:
                raise BadInput("guide.no_steps_left", setting=name, skipped=skipped, steps=self.steps)
        self.mirrored_at()
        self.check_steering()

    @classmethod
    def current_names(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Also numbers where the text of a schedule or of keyframes is meant."""
        values = super().current_names(values)
        numbers = {name: as_number(values.get(name)) for name in (*SCHEDULES, *KEYFRAMES)}
        return values | {
            name: as_text(number)
            for name, number in numbers.items()
            if number is not None and not isinstance(values[name], str)
        }

    @classmethod
    def read_file(cls, text: str, beside: Mapping[str, Any]) -> tuple[dict[str, Any], list[Message]]:
        """Settings of a notebook of Disco Diffusion, see `read_disco`."""
        return read_disco(text, cls, beside)

    def schedule(self, name: str) -> Schedule:
        """One of SCHEDULES, parsed: numbers along the noise. BadInput when its text is none."""
        return parse_schedule(name, getattr(self, name), *SCHEDULES[name])

    def keyframes(self, name: str) -> Keyframes:
        """One of KEYFRAMES, parsed: numbers along the frames. BadInput when its text is none."""
        return parse_keyframes(name, getattr(self, name), *KEYFRAMES[name])

    def mirrored_at(self) -> list[float]:
        """The shares of the way at which the picture is mirrored. BadInput when one is not in [0, 1)."""
        parts = self.transformation_percent.replace(",", " ").strip("[] ").split()
        try:
            shares = [float(part) for part in parts]
        except ValueError:
            shares = [-1.0]
        if not all(0 <= share < 1 for share in shares):
            raise BadInput("guide.shares_form", text=self.transformation_percent[:40])
        return shares

    @property
    def first_skip(self) -> int:
        """How many steps the first frame skips: as set, else half with a start picture, a fifth with Perlin noise."""
        if self.skip_steps is not None:
            return self.skip_steps
        return self.steps // 2 if self.image else self.steps // 5 if self.perlin_init != "off" else 0

    @property
    def frame_skip(self) -> int:
        """How many steps the other frames skip."""
        usual = int(self.steps * FRAME_SKIP)
        return usual if self.frames_skip_steps is None else min(self.frames_skip_steps, self.steps - 1)

    def place(self, position: int) -> tuple[int, int]:
        """The frame of the step after `position` steps, and its number among the frame's steps, skipped ones counted."""
        first, each = self.steps - self.first_skip, self.steps - self.frame_skip
        if position < first:
            return 0, self.first_skip + position
        frame, step = divmod(position - first, each)
        return frame + 1, self.frame_skip + step

    def length(self) -> int:
        """How many steps all frames have together."""
        return self.steps - self.first_skip + (self.max_frames - 1) * (self.steps - self.frame_skip)

    def story(self) -> list[tuple[int, str]]:
        """The scenes of the prompt. In an animation `@` counts frames; the steps here are those at which they begin."""
        if self.max_frames == 1:
            return super().story()
        first, each = self.steps - self.first_skip, self.steps - self.frame_skip
        return [
            (0 if frame == 0 else first + (frame - 1) * each, words)
            for frame, words in parse_story(self.prompt, self.max_frames)
        ]
