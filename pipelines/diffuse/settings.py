"""The settings of Diffuse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pipelines.core.regions import check_regions, regions_knob
from pipelines.core.settings import AUTO, clean_prompt, knob
from pipelines.core.terms import TermSettings, read_as_knob, style_knob
from pipelines.diffuse.word_weights import parse_word_weights
from pipelines.errors import BadInput, Message
from pipelines.models.schedulers import SAMPLERS

MIN_SIDE, MAX_SIDE = 64, 2048  # pixels
SIDE_MULTIPLE = 8  # the sides are multiples of this, in pixels
FILL = "fill"  # the place of a picture that covers its canvas
PLACES = {
    FILL: ("fill", "铺满"),
    "centre": ("centre", "中央"),
    "left": ("left", "左"),
    "right": ("right", "右"),
    "top": ("top", "上"),
    "bottom": ("bottom", "下"),
    "top-left": ("top left", "左上"),
    "top-right": ("top right", "右上"),
    "bottom-left": ("bottom left", "左下"),
    "bottom-right": ("bottom right", "右下"),
}
PACES = {"fast": ("fast", "快"), "normal": ("normal", "正常"), "careful": ("careful", "细致")}
WINDOWS = {"auto": AUTO, "always": ("always", "总是"), "never": ("never", "从不")}


@dataclass(frozen=True, kw_only=True)
class DiffuseSettings(TermSettings):
    """The settings of Diffuse. Before a run, `Diffuse.prepare` replaces None by the value that the model proposes.

    BadInput for sides that are not multiples of SIDE_MULTIPLE, for a mask without an image, for guidance that ends before
    it begins, and for weights of words and regions that `parse_word_weights` and `read_regions` do not read.
    """

    aliases: ClassVar[dict[str, str]] = {  # names of diffusers' arguments
        "guidance_scale": "guidance",
        "num_inference_steps": "steps",
        "num_images_per_prompt": "candidates",
        "mask_image": "mask",
    }

    # fmt: off
    negative_prompt: str = knob("", label=("leave out", "不要出现"),
        help="what not to draw; needs guidance above 1", help_zh="不要画什么；引导强度大于 1 时有效")
    candidates: int | None = knob(None, 1, 256, label=("candidates", "候选数"),
        help="how many pictures are drawn and ranked", help_zh="画多少张参加排名")
    keep: int = knob(4, 1, 64, label=("keep", "保留"),
        help="how many of the best are kept", help_zh="保留最好的几张")
    prune: bool = knob(False, label=("prune", "边画边选"),
        help="begin twice as many candidates, and finish the quarter of them that CLIP likes best on the way",
        help_zh="开始画两倍的候选，中途由 CLIP 选出最好的四分之一画完")
    style: str = style_knob()
    read_as: str = read_as_knob()
    regions: str = regions_knob()
    width: int | None = knob(None, MIN_SIDE, MAX_SIDE, label=("width", "宽"),
        help="in pixels, a multiple of 8", help_zh="像素，8 的倍数")
    height: int | None = knob(None, MIN_SIDE, MAX_SIDE, label=("height", "高"),
        help="in pixels, a multiple of 8", help_zh="像素，8 的倍数")
    image: str = knob("", label=("picture", "图片"), kind="picture",
        help="a picture to start from", help_zh="从这张图片开始")
    strength: float = knob(0.75, 0.01, 1.0, label=("distance", "变化程度"),
        help="how far from the picture; 1 forgets it", help_zh="离原图多远；1 表示完全重画")
    place: str = knob(FILL, label=("where it lies", "放在哪里"), choices=PLACES,
        help="fill covers the canvas; elsewhere the picture stays as it is, and what lies beyond its edges is drawn",
        help_zh="“铺满”让图片盖住整个画布；放在别处则图片原样不动，画出它边缘之外的部分")
    mask: str = knob("", label=("mask", "蒙版"), kind="picture",
        help="a picture, white where the picture is drawn anew", help_zh="白色的地方重新绘制")
    invert: bool = knob(False, label=("the mask is what stays", "蒙版处保持不变"),
        help="draw outside the mask, and keep what is white", help_zh="白色的地方不变，其余重新绘制")
    pace: str = knob("normal", label=("pace", "快慢"), choices=PACES,
        help="fast takes half the steps, careful about twice the time",
        help_zh="“快”只用一半的步数，“细致”大约用两倍的时间")
    steps: int | None = knob(None, 1, 200, label=("steps", "步数"), advanced=True,
        help="of the walk down the noise", help_zh="从噪声走到画面的步数")
    sampler: str = knob("auto", label=("sampler", "采样器"), advanced=True,
        choices={"auto": AUTO, **dict.fromkeys(SAMPLERS)},
        help="how a step is made; auto is what the pace and the model propose",
        help_zh="每一步怎样走；“自动”由快慢和模型决定")
    guidance: float | None = knob(None, 0.0, 30.0, label=("guidance", "引导强度"), advanced=True,
        help="how strongly the prompt steers; up to 1 is plain sampling",
        help_zh="提示词的影响有多强；不大于 1 为普通采样")
    guidance_start: float = knob(0.0, 0.0, 1.0, label=("guidance begins", "引导开始"), advanced=True,
        help="the share of the steps before guidance", help_zh="走到全程的多少时开始引导")
    guidance_end: float = knob(1.0, 0.0, 1.0, label=("guidance ends", "引导结束"), advanced=True,
        help="the share of the steps after which there is none", help_zh="走到全程的多少时停止引导")
    rounds: int | None = knob(None, 0, 10, label=("rounds at the mask", "蒙版处重复"), advanced=True,
        help="how often a step is made again, so that what is drawn fits what stays; for masks and beyond the edges",
        help_zh="每一步重复几次，让新画的部分与不变的部分相合；用于蒙版和边缘之外")
    windows: str = knob("auto", label=("by windows", "分窗绘制"), choices=WINDOWS, advanced=True,
        help="draw large pictures by overlapping windows of the model's own size; auto where a side is 1.5 times that",
        help_zh="用与模型尺寸相同、互相重叠的窗口绘制大图；“自动”在边长超过模型尺寸 1.5 倍时使用")
    source_prompt: str = knob("", label=("layout of", "构图来自"), advanced=True,
        help="another prompt: the picture is laid out like the one that it draws from the same seed",
        help_zh="另一段提示词：沿用它在同一种子下的构图")
    layout: float = knob(0.5, 0.0, 1.0, label=("keep the layout", "保留构图"), advanced=True,
        help="for which share of the steps; 0 keeps nothing", help_zh="在多大比例的步数里保留；0 表示不保留")
    word_weights: str = knob("", label=("word weights", "词的权重"), advanced=True,
        help="how much words of the prompt count, such as big=1.5, red=0.5",
        help_zh="提示词里各个词的分量，例如 大=1.5，红=0.5")
    hide_duplicates: bool = knob(False, label=("hide near-duplicates", "隐藏近似重复"), advanced=True,
        help="keep only one of candidates that look the same", help_zh="看起来一样的候选只保留一张")
    # fmt: on

    def other_texts(self) -> list[str]:
        """What is left out, and whose layout is kept."""
        return [self.negative_prompt, self.source_prompt]

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("negative_prompt", "source_prompt"):
            if getattr(self, name).strip():
                object.__setattr__(self, name, clean_prompt(getattr(self, name)))
        parse_word_weights(self.word_weights)
        object.__setattr__(self, "regions", check_regions(self.regions))
        for name, side in (("width", self.width), ("height", self.height)):
            if side is not None and side % SIDE_MULTIPLE:
                lower = side // SIDE_MULTIPLE * SIDE_MULTIPLE
                higher = lower + SIDE_MULTIPLE
                raise BadInput(
                    "diffuse.not_multiple",
                    setting=name,
                    side=side,
                    factor=SIDE_MULTIPLE,
                    lower=lower,
                    higher=higher,
                )
        if self.mask and not self.image:
            raise BadInput("diffuse.mask_without_picture")
        if self.guidance_start >= self.guidance_end:
            raise BadInput("diffuse.interval", start=self.guidance_start, end=self.guidance_end)

    def notes_on_prompt(self) -> list[Message]:
        """Also that nothing is left out without guidance."""
        notes = super().notes_on_prompt()
        if self.negative_prompt and self.guidance is not None and self.guidance <= 1:
            notes.append(Message("diffuse.negative_unguided", {"guidance": self.guidance}))
        return notes

    @classmethod
    def recorded(cls, values: dict[str, Any], picture: dict[str, Any]) -> dict[str, Any]:
        """The settings of a record by present names. Records without windows, rounds or regions are of before them."""
        return {"windows": "never", "rounds": 0, "regions": "", **super().recorded(values, picture)}
