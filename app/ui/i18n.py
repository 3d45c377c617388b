"""Everything the page says, in English and Simplified Chinese.

Gradio's own labels take `text(key)` and follow the browser at first; the page sends new ones when the artist switches.
What we write as HTML holds both languages side by side (`both`), and the style sheet shows one of them, so that a
running page switches at once and no watcher has to know who reads what.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

import gradio as gr
from markupsafe import Markup

from app.ui.markup import html
from pipelines.core.settings import Knob
from pipelines.studio import PIPELINES

LANGUAGES = ("en", "zh")

STRINGS = Path(__file__).parents[2] / "assets" / "strings" / "page.json"


def _knob_words() -> dict[str, tuple[str, str, str]]:
    """Label, label in Chinese and help in Chinese of every setting, by PIPELINE_NAME.

    By NAME alone they are those of the first pipeline of the list that has such a setting.
    """
    words: dict[str, tuple[str, str, str]] = {}
    for pipeline in ("generate", "optimize", "edit", "diffuse"):
        for knob in PIPELINES[pipeline].Settings.knobs():
            entry = (*knob.label, knob_help(knob, "zh"))
            words.setdefault(knob.name, entry)
            words[f"{pipeline}_{knob.name}"] = entry
    return words


def knob_help(knob: Knob, language: str) -> str:
    """What a setting does, as the page says it; an empty field of an optional one means what the model likes."""
    if language == "zh":
        return knob.help_zh + ("；留空则由模型决定" if knob.optional else "")
    return knob.help + ("; empty for what the model likes" if knob.optional else "")


KNOBS = _knob_words()

# sentences of the pipelines, as patterns, and how to say them in Chinese
SENTENCES: list[tuple[str, str]] = [
    (r"the prompt is empty.*", "提示词是空的；试试“红色的心”"),
    (r"the prompt has ([\d,]+) characters; the most is ([\d,]+)", r"提示词有 \1 个字符，最多 \2 个"),
    (r"the prompt holds the control character (\S+); remove it", r"提示词里有控制字符 \1，请删掉"),
    (r"the prompt holds half of a character pair.*", "提示词里有半个字符，请重新粘贴"),
    (r"(\w+) (\S+) is too small; the least is (\S+)", r"{\1} \2 太小，最小为 \3"),
    (r"(\w+) (\S+) is too large; the most is (\S+)", r"{\1} \2 太大，最大为 \3"),
    (r"(\w+) (\S+) is not a (?:whole )?number; try (\S+)", r"{\1} \2 不是合适的数字，可以用 \3"),
    (r"keep_rows (\d+) leaves nothing to draw; the most is (\d+)", r"保留行数 \1 已占满整张图，最多 \2"),
    (
        r"(\d+) of your jobs are waiting already.*",
        r"你已有 \1 个任务在排队，已到上限；请等一个完成或取消一个",
    ),
    (r"the queue is full with (\d+) jobs.*", r"队列已满（\1 个任务），请过几分钟再试"),
    (r"no job .* is known here.*", "这里找不到那个任务；它的图片若还在，会在作品库里"),
    (r"the picture holds no record of Atelier's.*", "图片里没有 Atelier 的记录，请用在此生成的 PNG"),
    (r"the picture holds no settings.*", "图片里没有设置信息，请用保存下来的原始 PNG"),
    (r"the picture is not a PNG, and only PNG.*", "这不是 PNG；只有 PNG 带有记录，请用保存下来的那个文件"),
    (r"the picture's record .*", "图片里的记录已损坏，或不是 Atelier 写的"),
    (r"the record names the unknown pipeline (.*); known: .*", r"记录中的流程 \1 在这里不存在"),
    (r"the file is not a PNG, JPEG or WebP picture.*", "这不是 PNG、JPEG 或 WebP 图片"),
    (r"the PNG is damaged.*", "PNG 已损坏或不完整"),
    (
        r"the pictures that were given .* were left out of this record.*",
        "这份记录里没有当时所给的图片，无法照样再做；请用最初保存的文件",
    ),
    # Generate with Stable Diffusion
    (
        r"(\w+) (\d+) is not a multiple of (\d+); try (\d+) or (\d+)",
        r"{\1} \2 不是 \3 的倍数，可以用 \4 或 \5",
    ),
    (r"the mask has no picture to be drawn into.*", "蒙版没有对应的图片，请再给一张图片"),
    (r"the mask is dark everywhere.*", "蒙版全黑，什么都不能变；把可以变的地方涂白"),
    (r"this model only completes pictures.*", "这个模型只能补全图片；请给图片和蒙版"),
    (
        r"strength (\S+) of (\d+) steps leaves none.*; give (\d+) steps",
        r"\2 步乘以变化程度 \1 不足一步；请用 \3 步",
    ),
    # links
    (r"the link's recipe is damaged.*", "链接里的设置已损坏或不完整，请重新复制整个链接"),
    (r"the link's recipe is not one of Atelier's.*", "链接里的设置不是 Atelier 写的，请重新复制链接"),
    (r"the link's recipe names a file.*", "链接里的设置指向文件，这不允许；请重新复制链接"),
    (r"the link's recipe has ([\d,]+) characters; .* ([\d,]+)", r"链接里的设置有 \1 个字符，最多 \2 个"),
    (r"the link names the unknown pipeline (.*); known: .*", r"链接中的流程 \1 在这里不存在"),
    (
        r"the settings need ([\d,]+) characters and a link has room for ([\d,]+); .*",
        r"设置需要 \1 个字符，链接只容得下 \2 个；请保存 PNG，其中有全部设置",
    ),
    (r"setting (.*) is not known; .*", r"没有名为 \1 的设置"),
    # models
    (r"(\S+) is being downloaded; .*", r"正在下载 \1；请等它完成，或先停止"),
    (r"(.*) is here already", r"\1 已经有了"),
    (r"a job runs or waits; .*", "还有任务在运行或排队；全部完成后再换模型包"),
    (
        r"(?:.* pack )?(\S+) needs (.*); run: python launch.py models fetch .*",
        r"\1 还缺少 \2；请在“模型”页下载",
    ),
    (
        r"the pack (\S+) has another Generate; .*: (.*)",
        r"模型包 \1 的“生成”另有一套设置；请关闭工作室，再运行：\2",
    ),
    (r"pack (.*) is not known.*", r"没有模型包 \1"),
    (r"model (.*) is not in the full pack.*", r"没有可下载的模型 \1"),
    (r"(\S+) cannot be reached \((.*)\); .*", r"连不上 \1（\2）；请检查网络，或在别处下载后用路径添加"),
    (
        r"the connection to (\S+) broke off after (.*) MB .*",
        r"与 \1 的连接在 \2 MB 处断开；再点一次就从那里继续",
    ),
    (r"(\S+) from (\S+) has the SHA-256 .*", r"来自 \2 的 \1 校验不符，不是发布的文件，已删除；请再试一次"),
    (
        r"(\S+) needs (.*) MB and the disk has (.*) MB free; .*",
        r"\1 需要 \2 MB，磁盘只剩 \3 MB；请先清理空间",
    ),
    (r"(\S+) does not have (\S+) any more .*", r"\1 上已经没有 \2；请在别处下载后用路径添加"),
    (r"(\S+) does not give (\S+) to everybody .*", r"\1 不公开提供 \2；请到那里手动下载后用路径添加"),
    (r"(\S+) could not send (\S+) \(status (\d+)\).*", r"\1 暂时无法提供 \2（状态 \3）；请稍后再试"),
    (r"the download broke for a reason.*", "下载意外中断；服务器日志里有详情"),
    # Optimize
    (
        r"the prompt has no positive weight.*",
        "提示词里没有正的权重，画面不知道往哪里走；加一个目标，例如 猫:1",
    ),
    (r"the weights of the prompt sum to zero.*", "提示词的权重之和为零；调大其中一个"),
    (r"a scene of the story is empty.*", "有一幕是空的；每个 ^ 两边都要有文字"),
    (r"the first scene of the story begins at step (\d+); .*", r"第一幕从第 \1 步开始；它必须从 0 开始"),
    (r"scene (\d+) of the story begins at step (\d+), .*", r"第 \1 幕从第 \2 步开始，没有排在前一幕之后"),
    (r"the region (.*) says no place; .*", r"分区 \1 没有说位置；可以写成：太阳 @ top"),
    (
        r"the region's place (.*) is not one of .*",
        r"分区的位置 \1 不对；可以用 left、right、top、bottom、centre",
    ),
    (r"the mask was not painted on this page.*", "蒙版不是在这个页面上画的，请重新涂一次"),
    (r"the mask is black everywhere.*", "蒙版全黑，什么都不能变；把可以变的地方涂上"),
    (r"the mask is (\d+x\d+); it must be (\d+x\d+).*", r"蒙版为 \1，应与图片一样为 \2"),
    (r"a mask and animate cannot go together.*", "蒙版和画布移动不能同时使用，请去掉一个"),
    (r"size (.*) is not WIDTHxHEIGHT.*", r"尺寸 \1 不是“宽x高”，可以写 128x128"),
    (r"width (\d+) is not a multiple of (\d+) .*; try (\d+)", r"宽 \1 不是 \2 的倍数，可以用 \3"),
    (r"height (\d+) is not a multiple of (\d+) .*; try (\d+)", r"高 \1 不是 \2 的倍数，可以用 \3"),
    (r"(\d+x\d+) are ([\d,]+) pixels; the most is ([\d,]+)", r"\1 共 \2 像素，最多 \3"),
    (
        r"the start picture is (\d+x\d+); its sides must be at least (\d+).*",
        r"起始图片为 \1，边长至少 \2，或另给尺寸",
    ),
    (r"palette (.*) is not a colour.*", r"调色板里的 \1 不是颜色，可以写 #d9432f"),
    (r"palette has (\d+) colours.*", r"调色板有 \1 种颜色；请给 1 到 32 种"),
    (r"noise_prompts (.*) is not a whole number.*", r"随机方向 \1 不是整数，可以写 7:0.3"),
    (r"tokens .*", "图像词元不对；请从图片里复制"),
    (r"changes .*", "修改记录不对；这些设置在运行中不能改变"),
    (
        r"precision bfloat16 does not work on this device \((\w+)\).*",
        r"这个设备（\1）不能用 bfloat16 计算；请用 float32",
    ),
    (r"the journal (\S+) belongs to another run.*", "这份运行记录属于另一次运行"),
    (r"the journal (\S+) is damaged.*", "这份运行记录已损坏"),
    (r"the snapshot (\S+) cannot be read.*", r"快照 \1 无法读取；删掉它再继续"),
    (r"step (\d+) has no snapshot.*", r"第 \1 步没有快照"),
    (r"the step that is being made takes long.*", "当前这一步很慢，请稍后再试"),
    (
        r"the loss became (\S+) at step (\d+); .*",
        r"第 \2 步的损失变成了 \1；之前的画面已保留，试试更小的步幅",
    ),
    # Edit
    (
        r"source and target are both (.*), so there is nowhere to go.*",
        r"“从”和“变为”都是 \1，无处可去；改掉一个",
    ),
    (r"CLIP cannot tell (.*) from (.*) \(cosine .*", r"CLIP 分不清 \1 和 \2；换个说法"),
    (r"crop (.*) is not X,Y,WIDTHxHEIGHT.*", r"裁切 \1 不是“X,Y,宽x高”，可以写 0,0,64x64"),
    (r"the crop ends at (\S+), the picture at (\S+);.*", r"裁切到 \1，图片只到 \2；请改小"),
    (r"the part to edit is (\S+) pixels; the least is (\S+)", r"要编辑的部分为 \1 像素，最少 \2"),
    (r"the mode (\w+) learned no direction.*", r"\1 方式没有学到方向；请用快速、可复用或论文"),
    (r"this run has learned nothing yet", r"这次运行还没学到东西"),
    (r"there is no direction .*", "那个方向已经不在了"),
    (r"(\d+) directions are chosen; the most at once is (\d+)", r"选中了 \1 个方向，最多同时 \2 个"),
    (
        r"the direction (.*) was learned on another base model.*",
        r"方向 \1 是在别的模型上学的，请在这里重新学",
    ),
    (r"the direction does not fit the base model.*", "这个方向与模型不合，请在这里重新学"),
    (r"the direction has more than (\d+) MB", r"方向文件超过 \1 MB"),
    (r"the file .* has more than (\d+) MB, so it is no direction", r"文件超过 \1 MB，不是方向"),
    (r"the direction is damaged.*", "方向文件已损坏，请重新取一份"),
    (r"the file is no (?:direction|safetensors file).*", "这不是方向文件；请用编辑页保存的文件"),
    (r"the form could not be read.*", "表单无法读取，请刷新页面"),
    (r"the loss became (\S+) at update (\d+);.*", r"第 \2 次更新的损失变成了 \1；之前学到的已保留"),
    (r"there was not enough memory.*", "内存不够；请减少候选数"),
    (r"there is no picture .*", "那张图片已经不在了"),
    (r"the picture is (\d+ x \d+).*; the most is (.*)", r"图片为 \1 像素，太大了，最多 \2 像素"),
    (r"the picture is too large.*", "图片太大，无法打开"),
    (r"the disk is full.*", "磁盘已满；清理一些空间后再试"),
    # a Space whose GPU is lent
    (
        r"this needs (\d+) s of GPU time and (\d+) s of your daily quota are left; try again in (.*), or.*",
        r"这需要 \1 秒 GPU 时间，而你今天只剩 \2 秒；请在 \3 后再试，或者少要一些",
    ),
    (
        r"this needs (\d+) s of GPU time, and that is more.*",
        r"这需要 \1 秒 GPU 时间，超过一次能给的；请少要一些",
    ),
    (
        r"this needs (\d+) s of GPU time, and 0 s are left for visitors.*",
        r"这需要 \1 秒 GPU 时间，而未登录访客的时间剩 0 秒；请登录并刷新页面",
    ),
    (
        r"this needs (\d+) s of GPU time, and your daily number.*",
        r"这需要 \1 秒 GPU 时间，而你今天的 GPU 次数已用完；请明天再试",
    ),
    (
        r"this needs (\d+) s of GPU time, and your quota is set aside.*",
        r"这需要 \1 秒 GPU 时间，而你的额度已留给正在运行的任务；请等它们完成",
    ),
    (
        r"this needs (\d+) s of GPU time, and your pass.*",
        r"这需要 \1 秒 GPU 时间，而你的通行证在等待中过期了；请刷新页面再继续",
    ),
    (
        r"this needs (\d+) s of GPU time, and no GPU is free.*",
        r"这需要 \1 秒 GPU 时间，现在没有空闲的 GPU；请过几分钟再试",
    ),
    (
        r"this needs (\d+) s of GPU time, and it was taken away.*",
        r"这需要 \1 秒 GPU 时间，但 GPU 提前被收回；请再试一次，或者少要一些",
    ),
    (
        r"this needs (\d+) s of GPU time, and it was refused \((.*)\)",
        r"这需要 \1 秒 GPU 时间，但被拒绝了（\2）",
    ),
    (
        r"GPU time belongs to the visitor who asks.*",
        "GPU 时间属于提出请求的访客，而这是在工作室重启之前提出的；请再提一次",
    ),
    (r"the run failed inside \((\w+)\).*", r"运行中出错（\1），服务器日志里有详情"),
]


@cache
def words() -> dict[str, tuple[str, str]]:
    """The page's own words by their keys, in English and Chinese, read once from assets/strings/page.json."""
    return {
        key: (english, chinese) for key, (english, chinese) in json.loads(STRINGS.read_text("utf-8")).items()
    }


def text(key: str) -> object:
    """A marker for Gradio's labels: the browser puts in the words of its own language."""
    return gr.I18n()(key)


def knob_words(name: str) -> tuple[str, str, str]:
    """A setting's label in both languages and its help in Chinese; one without words is called by its name."""
    plain = name.replace("_", " ")
    return KNOBS.get(name, (plain, plain, ""))


def translations(helps: dict[str, str], names: dict[str, tuple[str, str]] | None = None) -> gr.I18n:
    """All words for the browser, by its language.

    `helps` are the settings' own words, by name; `names` are words that are not the page's own, by key.
    """
    table = words() | (names or {})
    english, chinese = ({key: pair[index] for key, pair in table.items()} for index in (0, 1))
    for name in dict.fromkeys([*KNOBS, *helps]):
        label, translated, help_translated = knob_words(name)
        english |= {f"knob_{name}": label, f"help_{name}": helps.get(name, "")}
        chinese |= {f"knob_{name}": translated, f"help_{name}": help_translated or helps.get(name, "")}
    return gr.I18n(en=english, zh=chinese, **{"zh-CN": chinese, "zh-TW": chinese})


def say(key: str, language: str, helps: dict[str, str] | None = None) -> str:
    """Plain text in one language, for labels of Gradio's components. Keys are those that `text` takes."""
    index = LANGUAGES.index(language)
    if key.startswith("knob_"):
        return knob_words(key[5:])[index]
    if key.startswith("help_"):
        help_text = (helps or {}).get(key[5:], "")
        return (knob_words(key[5:])[2] or help_text) if index else help_text
    return words()[key][index]


def both(key: str, **facts: object) -> Markup:
    """HTML in both languages; the facts are escaped."""
    english, chinese = (Markup(one).format(**facts) for one in words()[key])
    return pair(english, chinese)


def both_aloud(key: str) -> str:
    """Plain text in both languages, for attributes that are read aloud: HTML has no room for two there."""
    return ", ".join(words()[key])


def pair(english: str, chinese: str) -> Markup:
    """HTML of which the style sheet shows one half."""
    return html(
        '<span class="en" lang="en">{}</span><span class="zh" lang="zh-CN">{}</span>', english, chinese
    )


def both_sentence(sentence: str) -> Markup:
    """HTML in both languages of a sentence that a pipeline, the lane or a record said in English."""
    english = sentence[:1].upper() + sentence[1:] + ("" if sentence.endswith((".", "!", "?")) else ".")
    return pair(english, _chinese(sentence))


def _chinese(sentence: str) -> str:
    for pattern, chinese in SENTENCES:
        if match := re.fullmatch(pattern, sentence, re.DOTALL):
            said = match.expand(chinese)
            for name, (_, label, _) in KNOBS.items():
                said = said.replace(f"{{{name}}}", label)
            return said + "。"
    return sentence
