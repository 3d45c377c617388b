"""The settings of Generate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipelines.core.regions import check_regions, regions_knob
from pipelines.core.settings import AUTO, knob
from pipelines.core.sizes import check_size_form
from pipelines.core.terms import TermSettings, read_as_knob, style_knob

FINISHES = {"auto": AUTO, "drawn": ("drawn", "原样"), "refined": ("refined", "重画")}


@dataclass(frozen=True, kw_only=True)
class GenerateSettings(TermSettings):
    """The settings of Generate; a knob holds each field's range and meaning."""

    # fmt: off
    candidates: int = knob(16, 1, 512, label=("candidates", "候选数"),
        help="how many pictures are drawn and ranked", help_zh="画多少张参加排名")
    keep: int = knob(4, 1, 64, label=("keep", "保留"),
        help="how many of the best are kept", help_zh="保留最好的几张")
    style: str = style_knob()
    read_as: str = read_as_knob()
    regions: str = regions_knob()
    finish: str = knob("auto", label=("finish", "收尾"), choices=FINISHES,
        help="drawn keeps the DALL·E's picture, refined draws it again by diffusion, auto refines where the pack can",
        help_zh="“原样”保留 DALL·E 画的图，“重画”用扩散模型再画一遍，“自动”在模型包支持时重画")
    refinement: float = knob(0.9, 0.05, 0.95, label=("refinement", "重画程度"), advanced=True,
        help="of a refined picture: how far it is noised before it is drawn again",
        help_zh="重画之前加多少噪声（仅用于“重画”）")
    temperature: float = knob(0.7, 0.05, 4.0, label=("temperature", "温度"), advanced=True,
        help="lower is safer, higher is wilder", help_zh="低则稳妥，高则大胆")
    top_k: int = knob(64, 0, 16384, label=("top-k", "top-k"), advanced=True,
        help="draw each token from the k likeliest; 0 for all",
        help_zh="只从最可能的 k 个词元中抽取；0 表示不限")
    top_p: float = knob(1.0, 0.05, 1.0, label=("top-p", "top-p"), advanced=True,
        help="draw each token from the likeliest that make up this share",
        help_zh="只从累计概率达到此值的最可能词元中抽取")
    guidance: float = knob(3.0, 0.0, 20.0, label=("guidance", "引导强度"), advanced=True,
        help="how strongly the prompt steers; 1 is plain sampling",
        help_zh="提示词的影响有多强；1 为普通采样")
    hide_duplicates: bool = knob(False, label=("hide near-duplicates", "隐藏近似重复"), advanced=True,
        help="keep only one of candidates that look the same", help_zh="看起来一样的候选只保留一张")
    image: str = knob("", label=("picture", "图片"), advanced=True, kind="picture",
        help="a picture to vary or to complete", help_zh="用来变化或补全的图片")
    keep_rows: int = knob(0, 0, 63, label=("rows kept", "保留行数"), advanced=True,
        help="rows of image tokens kept from the picture, from the top",
        help_zh="从图片顶部保留多少行图像词元")
    likeness: float = knob(0.3, 0.0, 1.0, label=("likeness", "相似度"), advanced=True,
        help="how close variations stay to the picture", help_zh="变体与原图有多接近")
    canvas: str = knob("", label=("canvas", "画布"), advanced=True,
        help="WIDTHxHEIGHT in pixels, for a DALL·E whose window slides (train transformer); empty for its own",
        help_zh="宽x高（像素），用于窗口可滑动的 DALL·E（train transformer）；留空为其自身大小")
    prior: bool = knob(False, label=("second stage", "第二阶段"), advanced=True,
        help="draw with the pack's second stage (train transformer) in the DALL·E's place; the prompt may be empty",
        help_zh="用模型包的第二阶段（train transformer）代替 DALL·E 作画，提示词可以留空")
    batch: int | None = knob(None, 1, 512, label=("drawn together", "同时绘制"), advanced=True,
        help="candidates drawn together", help_zh="同时绘制多少张候选")
    # fmt: on

    def __post_init__(self) -> None:
        super().__post_init__()
        check_size_form(self.canvas)
        object.__setattr__(self, "regions", check_regions(self.regions))

    @property
    def may_lack_prompt(self) -> bool:
        """Whether the second stage draws, which needs none."""
        return self.prior

    @classmethod
    def recorded(cls, values: dict[str, Any], picture: dict[str, Any]) -> dict[str, Any]:
        """The settings of a record by present names. Records without a finish or regions were made before these."""
        return {"finish": "drawn", "regions": "", **super().recorded(values, picture)}
