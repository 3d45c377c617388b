"""The settings of Edit."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from pipelines.core.looks import in_words, look_knob, of_style
from pipelines.core.settings import Settings, knob
from pipelines.errors import BadInput

MODES = {
    "instant": ("instant", "即时"),
    "quick": ("quick", "快速"),
    "reusable": ("reusable", "可复用"),
    "paper": ("paper", "论文"),
}
LOSSES = {"log": ("log", "对数"), "plain": ("plain", "原式")}
WEAKEST, STRONGEST = -1.0, 1.5
# settings that the learning does not see
AFTERWARDS = ("strength", "strip", "even_strip", "automatic_mask", "until")


@dataclass(frozen=True)
class Use:
    """One saved direction in use: its file (a path or a data URI), its strength, and the noise levels at which it acts."""

    file: str
    strength: float = 1.0
    window: tuple[int, int] = (1000, 0)  # from this noise level down to that one


@dataclass(frozen=True, kw_only=True)
class EditSettings(Settings):
    """The settings of Edit: `source` describes the picture, `prompt` the result.

    Without an image, one of the pack's pictures that fit the source is taken. BadInput when both texts are the same, and
    for a crop or directions that do not follow their grammar.
    """

    subject: ClassVar[str] = "image"
    aliases: ClassVar[dict[str, str]] = {
        "keep": "l1_weight",
        "smooth": "tv_weight",
        "chain": "backprop_through_chain",
        "refine": "inversion_iterations",
        "learn_from": "source_count",
        "examples": "target_images",
        "lessons": "source_images",
    }

    # fmt: off
    prompt: str = knob("an angry face", label=("prompt", "提示词"), kind="prompt", flag="target",
        help="what it should show", help_zh="画面应该是什么")
    source: str = knob("a face", label=("from", "原文"), kind="prompt",
        help="what the picture shows now", help_zh="画面里现在是什么")
    image: str = knob("", label=("picture", "图片"), kind="picture",
        help="the picture to edit; without one, an example that fits the source",
        help_zh="要编辑的图片；没有则用符合原文的示例")
    mode: str = knob("instant", label=("way", "方式"), choices=MODES,
        help="instant edits without learning, quick learns from this picture, reusable learns a direction for any, "
        "paper is the original recipe",
        help_zh="“即时”不学习，直接编辑；“快速”从这张图片学习；“可复用”学习可用于任何图片的方向；“论文”为论文里的原方法")
    style: str = look_knob()
    strength: float = knob(1.0, WEAKEST, STRONGEST, label=("strength", "强度"),
        help="how far; 0 gives the picture back, below 0 the opposite",
        help_zh="改变多少；0 还原图片，负数为反方向")
    strip: int = knob(5, 1, 9, label=("side by side", "并排张数"),
        help="strengths shown side by side", help_zh="并排显示多少个强度")
    even_strip: bool = knob(False, label=("even steps", "等步"), advanced=True,
        help="choose the strengths side by side so that CLIP moves by equal steps; takes about twice as long",
        help_zh="并排的强度按 CLIP 移动相等的步子来选；约需两倍时间")
    mask: str = knob("", label=("mask", "蒙版"), kind="picture",
        help="a picture, white where pixels may change", help_zh="白色的地方可以改变")
    automatic_mask: bool = knob(False, label=("automatic mask", "自动蒙版"),
        help="keep what the edit hardly touches as it is", help_zh="编辑几乎没碰到的地方保持原样")
    fade_detail: bool = knob(True, label=("old lines fade", "旧线条淡去"), advanced=True,
        help="where much changes, what the model does not see of the picture, such as thin outlines, gives way",
        help_zh="改动大的地方，模型看不到的原图细节（例如细轮廓）随之淡去")
    directions: str = knob("", label=("directions", "方向"), kind="directions", flag="direction",
        help="saved directions instead of the texts: FILE[:STRENGTH][@FROM-TO] | FILE ...",
        help_zh="用保存的方向代替文字")
    return_step: int = knob(0, 0, 999, label=("return step", "返回步"), advanced=True,
        help="the noise level that the edit returns to, or where an instant edit of strength 1 begins; 0 to propose one",
        help_zh="编辑退回到的噪声级别，即时方式中为强度 1 开始的级别；0 表示自动建议")
    l1_weight: float = knob(3.3, 0.0, 10.0, label=("stay with the picture", "贴近原图"), advanced=True,
        help="how strongly to stay with the picture (L1)", help_zh="多大程度上保留原图（L1）")
    tv_weight: float = knob(1.0, 0.0, 10.0, label=("smooth", "平滑"), advanced=True,
        help="how smooth the change is (total variation)", help_zh="变化有多平滑（全变差）")
    steps: int = knob(0, 0, 200, label=("steps", "步数"), advanced=True,
        help="steps up the noise, and down again, 0 for what the mode needs",
        help_zh="走进噪声再走回来的步数；0 表示按方式决定")
    inversion_iterations: int = knob(1, 0, 8, label=("refine", "细化"), advanced=True,
        help="fixed-point refinements of each step up", help_zh="每一步向上走时的定点细化次数")
    guidance: float = knob(1.0, 0.1, 10.0, label=("guidance", "引导强度"), advanced=True,
        help="of the instant mode: how hard the target text pulls, as a multiple of what is usual; where the model "
        "reads no text, how hard CLIP pushes",
        help_zh="即时方式：目标文字拉得多用力，为通常值的倍数；模型不读文字时为 CLIP 推得多用力")
    focus: float | None = knob(None, 0.0, 1.0, label=("focus", "聚焦"), advanced=True,
        help="of the instant mode: how much it keeps to where the two texts differ most; 0 changes the picture "
        "everywhere, empty lets CLIP choose",
        help_zh="即时方式：多大程度上只改两段文字差别最大的地方；0 为处处可变，留空由 CLIP 选择")
    updates: int = knob(0, 0, 2000, label=("updates", "更新次数"), advanced=True,
        help="of the learning, 0 for what the mode needs", help_zh="学习的更新次数；0 表示按方式决定")
    until: int = knob(0, 0, 2000, label=("where it stopped", "停在哪里"), advanced=True,
        help="use the direction as it was after so many updates, 0 for all",
        help_zh="用更新这么多次之后的方向；0 表示全部")
    step_size: float = knob(2e-3, 1e-6, 1.0, label=("step size", "步幅"), advanced=True,
        help="of the learning (Adam)", help_zh="学习的步幅（Adam）")
    rank: int = knob(4, 1, 64, label=("rank", "秩"), advanced=True,
        help="of the adapter (LoRA)", help_zh="适配器（LoRA）的秩")
    loss: str = knob("log", label=("loss", "损失"), choices=LOSSES, advanced=True,
        help="the directional loss: the official code's or the paper's",
        help_zh="方向损失：“对数”为官方代码，“原式”为论文")
    backprop_through_chain: bool = knob(False, label=("chain", "链式"), advanced=True,
        help="of the paper's recipe: one update through all six steps",
        help_zh="论文方法：一次更新穿过全部六步")
    source_count: int = knob(50, 2, 640, label=("learn from", "学习张数"), advanced=True,
        help="pictures that a reusable direction learns from", help_zh="可复用方向从多少张图片学习")
    target_images: str = knob("", label=("example pictures", "示例图片"), kind="pictures", advanced=True,
        help="pictures that show the target instead of its text: FILE | FILE ...",
        help_zh="用图片而不是文字说明目标")
    source_images: str = knob("", label=("own pictures to learn from", "自备学习图片"), kind="pictures", advanced=True,
        help="your own pictures to learn a reusable direction from: FILE | FILE ...",
        help_zh="从自己的图片学习可复用方向")
    purify: int = knob(0, 0, 20, label=("purify", "净化"), advanced=True,
        help="first bring a drawing into the model's world, so many times",
        help_zh="先把绘画带进模型的世界，做几次")
    crop: str = knob("", label=("crop", "裁切"), advanced=True,
        help="edit only this part, X,Y,WIDTHxHEIGHT in pixels", help_zh="只编辑这一部分：X,Y,宽x高（像素）")
    # fmt: on

    @classmethod
    def recorded(cls, values: dict[str, Any], picture: dict[str, Any]) -> dict[str, Any]:
        """Records without `mode`, `focus` or `fade_detail` mean what they meant before there were these."""
        return {"mode": "quick", "focus": 0.0, "fade_detail": False, **super().recorded(values, picture)}

    def __post_init__(self) -> None:
        super().__post_init__()
        same = _plain(self.source) == _plain(self.target)
        if not self.directions and not self.target_images and not of_style(self.style) and same:
            raise BadInput("edit.source_is_target", text=self.source[:60])
        if self.crop:
            self.box()
        self.uses()

    def other_texts(self) -> list[str]:
        """What the picture shows now."""
        return [self.source]

    @property
    def target(self) -> str:
        """The text that the picture is to fit: the prompt, with the word of a look."""
        return in_words(self.prompt, of_style(self.style))

    def box(self) -> tuple[int, int, int, int] | None:
        """`crop` as left, top, right, bottom in pixels; None for the whole picture. BadInput when it is not valid."""
        if not self.crop:
            return None
        match = re.fullmatch(
            r"\s*(\d{1,5})\s*,\s*(\d{1,5})\s*,\s*(\d{1,5})\s*[xX×]\s*(\d{1,5})\s*", self.crop
        )
        if not match or "0" in (match[3], match[4]):
            raise BadInput("edit.crop_form", crop=self.crop[:40])
        x, y, width, height = map(int, match.groups())
        return x, y, x + width, y + height

    def uses(self) -> list[Use]:
        """`directions`, parsed. BadInput when strength or window of one is out of range."""
        return [_use(part) for part in split_list(self.directions)]

    def update_count(self) -> int:
        """The number of updates of the adapter; 0 when nothing is learned."""
        if self.directions or self.mode == "instant":
            return 0
        return self.updates or {"quick": 40, "reusable": 60, "paper": 250}[self.mode]

    def changed(self, step: int, **fields: object) -> EditSettings:
        """The settings with fields changed, for a run that resumes from a snapshot.

        BadInput for fields that influence the learning, that is all but AFTERWARDS.
        """
        if other := [name for name in fields if name not in AFTERWARDS]:
            raise BadInput("edit.cannot_change", setting=other[0], known=", ".join(AFTERWARDS))
        return replace(self, **fields)  # type: ignore[arg-type]

    def step_count(self) -> int:
        """The number of steps of the inversion, and of the sampling after it."""
        return self.steps or (10 if self.directions or self.mode == "instant" else 20)

    def map_pictures(self, change: Callable[[str], str]) -> EditSettings:
        """The settings with `change` applied to every picture, also in lists."""
        fields = {name: getattr(self, name) for name in ("image", "mask") if getattr(self, name)}
        fields = {name: change(value) for name, value in fields.items()}
        for name in ("target_images", "source_images"):
            fields[name] = " | ".join(change(source) for source in split_list(getattr(self, name)))
        return replace(self, **fields)

    def files(self) -> list[str]:
        """All paths and data URIs in the settings, of pictures and of directions."""
        return [*super().files(), *(use.file for use in self.uses())]

    def map_directions(self, change: Callable[[str], str]) -> EditSettings:
        """The settings with `change` applied to the file of every direction in use, a path or a data URI."""
        uses = [written(replace(use, file=change(use.file))) for use in self.uses()]
        return replace(self, directions=" | ".join(uses))


def split_list(text: str) -> list[str]:
    """The parts of a text between bars, stripped, without empty ones."""
    return [part.strip() for part in text.split("|") if part.strip()]


def written(use: Use) -> str:
    """A Use in the form FILE:STRENGTH[@FROM-TO], as in `directions`."""
    window = "" if use.window == (1000, 0) else f"@{use.window[0]}-{use.window[1]}"
    strength = f"{use.strength:.6f}".rstrip("0").rstrip(".")
    return f"{use.file}:{strength}{window}"


def _use(part: str) -> Use:
    window = (1000, 0)
    if match := re.fullmatch(r"(.*\S)\s*@\s*(\d{1,4})\s*-\s*(\d{1,4})", part, re.DOTALL):
        part, window = match[1], (int(match[2]), int(match[3]))
        if not 1000 >= window[0] > window[1]:
            raise BadInput("edit.window_form", begin=window[0], end=window[1])
    strength = 1.0
    if match := re.fullmatch(r"(.*\S)\s*:\s*([-+]?\d*\.?\d+)", part, re.DOTALL):
        part, strength = match[1], float(match[2])
        if not WEAKEST <= strength <= STRONGEST:
            raise BadInput("edit.direction_strength", strength=strength, least=WEAKEST, most=STRONGEST)
    return Use(part, strength, window)


def _plain(text: str) -> str:
    return re.sub(r"^(an?|the) ", "", text.casefold().strip(" .!"))
