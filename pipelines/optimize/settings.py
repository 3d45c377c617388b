"""The settings of Optimize, and their changes during a run."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from pipelines.core.looks import look_knob
from pipelines.core.prompts import parse_list, parse_palette, parse_regions
from pipelines.core.settings import AUTO, knob
from pipelines.core.sizes import check_size_form
from pipelines.core.steering import SteeredSettings, steered_knob
from pipelines.errors import BadInput
from pipelines.models.device import PRECISIONS

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "radam": torch.optim.RAdam,
    "adagrad": torch.optim.Adagrad,
}
STARTS = {
    "splash": ("splash", "一团颜色"),
    "drawn": ("drawn", "扩散绘制"),
    "white": ("white", "白纸"),
    "codes": ("codes", "随机编码"),
    "noise": ("noise", "噪点"),
    "gradient": ("gradient", "渐变"),
}
SCHEMES = {"mixed": ("mixed", "混合"), "pooled": ("pooled", "池化"), "original": ("original", "原版")}


@dataclass(frozen=True, kw_only=True)
class OptimizeSettings(SteeredSettings):
    """The settings of Optimize. `changes` are the changes that were made during the run, so that it can be replayed.

    BadInput for text that does not follow its grammar, and for a mask together with `animate`.
    """

    fixed: ClassVar[tuple[str, ...]] = (
        "seed", "size", "image", "start", "tokens", "coarse", "tile", "optimizer", "precision", "until", "changes"
    )  # fmt: skip
    aliases: ClassVar[dict[str, str]] = {
        "pull": "anchor_weight",
        "closest": "min_crop",
        "scheme": "cutout_scheme",
        "views": "cutout_size",
        "average": "ema_decay",
        "init": "image",
    }

    # fmt: off
    prompt: str = steered_knob("prompt")
    steps: int = knob(250, 1, 20_000, label=("steps", "步数"),
        help="how many steps the picture grows", help_zh="画面生长多少步")
    size: str = steered_knob("size")
    style: str = look_knob()
    image: str = steered_knob("image")
    mask: str = knob("", label=("mask", "蒙版"), kind="picture",
        help="where the picture may change: white, or what is painted",
        help_zh="画面可以改变的地方：白色，或涂抹处")
    start: str = knob("splash", label=("start", "起点"),
        choices=STARTS, advanced=True,
        help="what to start from without a picture; of many that chance makes, CLIP picks one; drawn is a picture by "
        "diffusion",
        help_zh="没有图片时从什么开始；由随机产生的会有多个，CLIP 选一个；“扩散绘制”是扩散模型画的图")
    tokens: str = knob("", label=("image tokens", "图像词元"), kind="tokens", advanced=True,
        help="image tokens to start from, as numbers", help_zh="起始的图像词元，写成数字")
    regions: str = knob("", label=("regions", "分区提示词"), kind="targets", advanced=True,
        help="prompts for parts: TEXT @ left, right, top, bottom, centre or a mask file; several between |",
        help_zh="只管一部分画面：文字 @ left、right、top、bottom、centre；多个用 | 分开")
    image_prompts: str = steered_knob("image_prompts")
    noise_prompts: str = knob("", label=("noise prompts", "随机方向"), kind="targets", advanced=True,
        help="random directions: NUMBER[:WEIGHT], several between |",
        help_zh="随机方向：数字[:权重]，多个用 | 分开")
    step_size: float = knob(0.1, 0.001, 2.0, label=("step size", "步幅"), advanced=True,
        help="how far one step moves", help_zh="每一步走多远")
    optimizer: str = knob("adam", label=("optimizer", "优化器"), choices=tuple(OPTIMIZERS), advanced=True,
        help="how steps are made of gradients", help_zh="怎样由梯度得到每一步")
    ema_decay: float = knob(0.0, 0.0, 0.99, label=("average", "平均"), advanced=True,
        help="share of the past in what is shown; calmer pictures", help_zh="画面里保留多少过去；越大越平静")
    cutouts: int = knob(16, 1, 128, label=("cutouts", "视图数"), advanced=True,
        help="views that CLIP gets of every step", help_zh="每一步给 CLIP 看多少个视图")
    cutouts_end: int = knob(0, 0, 128, label=("cutouts at the end", "结束时的视图数"), advanced=True,
        help="views at the end; 0 for as many as before", help_zh="最后的视图数；0 表示与开始相同")
    cutout_size: str = steered_knob("cutout_size")
    cutout_scheme: str = knob("mixed", label=("cutout scheme", "裁切方式"), choices=SCHEMES, advanced=True,
        help="how the views are cut", help_zh="怎样裁出视图")
    min_crop: float = knob(0.4, 0.1, 0.95, label=("closest view", "最近视图"), advanced=True,
        help="the closest view, as a share of the shorter side", help_zh="最近的视图占短边的比例")
    anchor_weight: float = knob(1.0, 0.0, 10.0, label=("pull", "贴近原图"), advanced=True,
        help="stay like the start picture, or white, where CLIP does not care; not while the canvas moves",
        help_zh="CLIP 不在意的地方保持起始图片或白纸的样子（画布移动时除外）")
    diffusion_weight: float | None = knob(None, 0.0, 50.0, label=("diffusion's pull", "扩散模型的牵引"), advanced=True,
        help="how strongly a diffusion model pulls the picture to what it takes it for; 0 leaves it to CLIP alone",
        help_zh="扩散模型把画面拉向它所认出的样子，力度多大；0 表示只由 CLIP 引导")
    smooth: float = knob(0.0, 0.0, 10.0, label=("smooth", "平滑"), advanced=True,
        help="fewer edges", help_zh="边缘更少")
    colour: float = knob(0.0, -10.0, 10.0, label=("colour", "色彩"), advanced=True,
        help="more colour; below zero less", help_zh="更多色彩；小于零则更少")
    palette: str = knob("", label=("palette", "调色板"), advanced=True,
        help="colours to keep to, such as #d9432f #faf8f4", help_zh="只用这些颜色，例如 #d9432f #faf8f4")
    symmetry: float = knob(0.0, 0.0, 10.0, label=("symmetry", "对称"), advanced=True,
        help="left like right", help_zh="左右一样")
    tile: bool = knob(False, label=("seamless", "无缝平铺"), advanced=True,
        help="seamless: the edges meet when it is laid side by side", help_zh="并排摆放时边缘相接")
    coarse: int | None = knob(None, 0, 3, label=("coarse to fine", "由粗到细"), advanced=True,
        help="start small and double the canvas so many times", help_zh="从小画布开始，翻倍几次")
    animate: int = knob(0, 0, 1000, label=("animate", "画布移动"), advanced=True,
        help="move the canvas every so many steps, for a film; 0 for never",
        help_zh="每隔多少步移动一次画布，用于影片；0 表示不移动")
    zoom: float = knob(1.02, 0.5, 2.0, label=("zoom", "缩放"), advanced=True,
        help="of one move", help_zh="每次移动的缩放")
    pan_x: float = knob(0.0, -512.0, 512.0, label=("pan right", "右移"), advanced=True,
        help="pixels to the right in one move", help_zh="每次移动向右多少像素")
    pan_y: float = knob(0.0, -512.0, 512.0, label=("pan down", "下移"), advanced=True,
        help="pixels down in one move", help_zh="每次移动向下多少像素")
    rotate: float = knob(0.0, -180.0, 180.0, label=("rotate", "旋转"), advanced=True,
        help="degrees in one move", help_zh="每次移动旋转多少度")
    precision: str = knob("auto", label=("precision", "精度"), advanced=True,
        choices=dict.fromkeys(PRECISIONS) | {"auto": AUTO},
        help="of the decoder: auto is float32; bfloat16 is faster on large canvases where the processor has matrix units",
        help_zh="解码器的精度：“自动”用 float32；处理器有矩阵单元时，大画布用 bfloat16 更快")
    until: int = steered_knob("until", hi=20_000)
    changes: str = steered_knob("changes")
    # fmt: on

    def __post_init__(self) -> None:
        super().__post_init__()
        check_size_form(self.size)
        if self.palette:
            parse_palette(self.palette)
        for target in parse_list(self.noise_prompts):
            if not re.fullmatch("[0-9]{1,20}", target.text) or int(target.text) >= 2**64:
                raise BadInput("optimize.noise_prompt_form", text=target.text[:20])
        if self.tokens and not re.fullmatch(r"\d{1,6}( \d{1,6}){0,16383}", self.tokens):
            raise BadInput("optimize.tokens_form")
        parse_regions(self.regions)
        if self.mask and self.animate:
            raise BadInput("optimize.mask_and_animate")
        self.check_steering()

    @classmethod
    def recorded(cls, values: dict[str, Any], picture: dict[str, Any]) -> dict[str, Any]:
        """The settings of a record. Those without `diffusion_weight` were made before there was one.

        In earlier versions `precision` was a fact of the picture, bf16 or float32.
        """
        values = {"diffusion_weight": 0.0, **super().recorded(values, picture)}
        earlier = {"bf16": "bfloat16", "float32": "float32"}.get(str(picture.get("precision")))
        return {"precision": earlier, **values} if earlier else values
