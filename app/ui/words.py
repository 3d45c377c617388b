"""Everything the page says, in English and Simplified Chinese.

Gradio's own labels take `text(key)` and follow the browser at first; the page sends new ones when the artist switches.
What we write as HTML holds both languages side by side (`both`), and the style sheet shows one of them, so that a
running page switches at once and no watcher has to know who reads what.
"""

from __future__ import annotations

import re
from html import escape

import gradio as gr

LANGUAGES = ("en", "zh")

WORDS: dict[str, tuple[str, str]] = {
    # the page
    "tab_generate": ("Generate", "生成"),
    "tab_library": ("Library", "作品库"),
    "tab_models": ("Models", "模型"),
    "theme": ("Light or dark", "浅色或深色"),
    "language": ("Language", "语言"),
    "lane_idle": ("ready", "空闲"),
    "lane_busy": ("working", "工作中"),
    "lane_ahead": ("working · {count} waiting", "工作中 · {count} 个排队"),
    # the prompt
    "prompt": ("Prompt", "提示词"),
    "prompt_hint": ("a red heart", "红色的心"),
    "go": ("Generate", "生成"),
    "stop": ("Stop", "停止"),
    "tokens": ("tokens {used} of {limit}", "词元 {used} / {limit}"),
    "all_known": ("all words known", "所有词都认识"),
    "unknown": ("never seen in training: {words}", "训练中没见过：{words}"),
    "cut": ("does not fit and is left out: “{words}”", "超出长度，未读入：“{words}”"),
    # the form
    "roll": ("New seed each time", "每次换新种子"),
    "dice": ("Another seed", "换一个种子"),
    "advanced": ("Advanced", "高级设置"),
    "picture_prompt": ("Start from a picture", "从一张图片开始"),
    "drop": ("Drop a PNG made here to load its settings", "拖入在此生成的 PNG，载入它的设置"),
    # the stage
    "empty_title": ("Write what you would like to see", "写下你想看到的画面"),
    "empty_text": (
        "Atelier draws {candidates} candidates and lets CLIP pick the best {keep}.",
        "Atelier 会画出 {candidates} 个候选，由 CLIP 选出最好的 {keep} 张。",
    ),
    "empty_examples": ("Or click a picture to see how it was made.", "也可以点一张图片，看看它是怎么来的。"),
    "queued": ("Waiting", "排队中"),
    "queued_next": ("You are next.", "下一个就是你。"),
    "queued_place": ("Number {position} in line.", "排在第 {position} 位。"),
    "stage_loading": ("Waking the models", "正在启动模型"),
    "stage_draw": ("Drawing", "正在绘制"),
    "stage_rank": ("Ranking with CLIP", "CLIP 正在排名"),
    "steps": ("{done} of {total}", "{done} / {total}"),
    "eta": ("about {seconds} s left", "约剩 {seconds} 秒"),
    "eta_minutes": ("about {minutes} min left", "约剩 {minutes} 分钟"),
    "done": ("Done", "完成"),
    "stopped": ("Stopped", "已停止"),
    "stopped_kept": ("{count} finished pictures were kept.", "已保留 {count} 张完成的图片。"),
    "stopped_none": (
        "No picture was finished; your prompt and settings are still here.",
        "还没有完成的图片；提示词和设置都还在。",
    ),
    "failed": ("That did not work", "没有成功"),
    "failed_kept": ("Your prompt and settings are still here.", "提示词和设置都还在。"),
    "interrupted": ("The studio was closed while this was being drawn", "绘制途中工作室关闭了"),
    "interrupted_text": (
        "Nothing is lost: it can be drawn again from its beginning.",
        "没有丢失：可以从头再画一次。",
    ),
    "again": ("Draw it again", "再画一次"),
    "missing_title": ("A model is not here yet", "还缺少模型"),
    "missing_text": (
        "The pack “{pack}” needs these files; the tab Models says more.",
        "模型包“{pack}”需要以下文件，详见“模型”页。",
    ),
    # one picture
    "score": ("score {score}", "得分 {score}"),
    "rank": ("rank {rank} of {count}", "第 {rank} 名，共 {count} 张"),
    "seed_is": ("seed {seed}", "种子 {seed}"),
    "download": ("Download PNG", "下载 PNG"),
    "remix": ("Remix", "改编"),
    "reuse": ("Reuse settings", "沿用设置"),
    "reuse_seed": ("Reuse seed", "沿用种子"),
    "redraw": ("Redraw alone", "单独重画"),
    "variations": ("Variations", "变体"),
    "complete": ("Complete from the top half", "保留上半，补全其余"),
    "save": ("Download", "下载"),
    "reuse_short": ("Reuse", "沿用设置"),
    "alike_short": ("Similar", "相似"),
    # the sheet
    "sheet": ("{keep} kept of {candidates}", "从 {candidates} 张中保留 {keep} 张"),
    "tied": (
        "The first {count} are within noise: trust your eye.",
        "前 {count} 名差距在误差之内，请相信自己的眼睛。",
    ),
    "clear_winner": ("The first is clearly ahead.", "第一名明显领先。"),
    "mean": ("average of all", "全部平均"),
    "noise": ("noise", "误差"),
    "twins": ("near-duplicates: {count}", "近似重复：{count} 张"),
    "earlier": ("Your last runs", "你最近的作品"),
    # what happened
    "loaded": (
        "Settings loaded from the picture: “{prompt}”, seed {seed}.",
        "已从图片载入设置：“{prompt}”，种子 {seed}。",
    ),
    "loaded_foreign": (
        "This picture comes from another studio; its prompt and seed were taken over, as far as it tells them.",
        "这张图片来自别的工具，已载入其中能读到的提示词和种子。",
    ),
    "loaded_again": ("The settings of the picture are in the form.", "图片的设置已填入表单。"),
    "remixed": ("The settings are in the form, with a new seed.", "设置已填入表单，并换了新种子。"),
    "seed_set": ("The seed is {seed} and stays so.", "种子已固定为 {seed}。"),
    "from_picture": ("The picture is the starting point now.", "已将这张图片设为起点。"),
    "other_pipeline": (
        "The picture was made by “{pipeline}”, which this page cannot show yet.",
        "这张图片由“{pipeline}”生成，此页面还无法显示。",
    ),
    # the library
    "search": ("Search by what is in the picture", "按画面内容搜索"),
    "search_hint": ("something yellow with a face", "带表情的黄色东西"),
    "find": ("Search", "搜索"),
    "library_empty": (
        "Nothing here yet. What you make appears here by itself.",
        "这里还是空的。生成的作品会自动出现。",
    ),
    "library_recent": ("{count} pictures, newest first", "共 {count} 张，最新在前"),
    "library_found": ("closest to “{text}”", "最接近“{text}”"),
    "library_alike": ("closest to the picture", "最接近那张图片"),
    "library_more": ("Show more", "显示更多"),
    # the models
    "models_text": (
        "Everything on this page runs on your machine. These are the networks it runs on.",
        "页面上的一切都在你的电脑上运行，用到的网络如下。",
    ),
    "pack": ("Pack “{pack}”", "模型包“{pack}”"),
    "in_use": ("in use", "使用中"),
    "present": ("here", "已有"),
    "absent": ("missing", "缺少"),
    "size": ("size", "大小"),
    "licence": ("licence", "许可"),
    "origin": ("origin", "来源"),
    "device_is": ("device: {device}", "设备：{device}"),
}

# name of a setting -> label, label in Chinese, help in Chinese; help in English comes with the setting itself
KNOBS: dict[str, tuple[str, str, str]] = {
    "prompt": ("prompt", "提示词", "要画什么，中文英文都可以"),
    "seed": ("seed", "随机种子", "种子相同，画面相同"),
    "candidates": ("candidates", "候选数", "画多少张参加排名"),
    "keep": ("keep", "保留", "保留最好的几张"),
    "temperature": ("temperature", "温度", "低则稳妥，高则大胆"),
    "top_k": ("top-k", "top-k", "只从最可能的 k 个词元中抽取；0 表示不限"),
    "top_p": ("top-p", "top-p", "只从累计概率达到此值的最可能词元中抽取"),
    "guidance": ("guidance", "引导强度", "提示词的影响有多强；1 为普通采样"),
    "hide_duplicates": ("hide near-duplicates", "隐藏近似重复", "看起来一样的候选只保留一张"),
    "image": ("picture", "图片", "用来变化或补全的图片"),
    "keep_rows": ("rows kept", "保留行数", "从图片顶部保留多少行图像词元"),
    "likeness": ("likeness", "相似度", "变体与原图有多接近"),
}

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
    (r"there was not enough memory.*", "内存不够；请减少候选数"),
    (r"there is no picture .*", "那张图片已经不在了"),
    (r"the picture is (\d+ x \d+).*; the most is (.*)", r"图片为 \1 像素，太大了，最多 \2 像素"),
    (r"the picture is too large.*", "图片太大，无法打开"),
    (r"the disk is full.*", "磁盘已满；清理一些空间后再试"),
    (r"the run failed inside \((\w+)\).*", r"运行中出错（\1），服务器日志里有详情"),
]


def text(key: str) -> object:
    """A marker for Gradio's labels: the browser puts in the words of its own language."""
    return gr.I18n()(key)


def translations(helps: dict[str, str]) -> gr.I18n:
    """All words for the browser, by its language; `helps` are the settings' own words, by name."""
    english, chinese = ({key: pair[index] for key, pair in WORDS.items()} for index in (0, 1))
    for name, (label, translated, help_translated) in KNOBS.items():
        english |= {f"knob_{name}": label, f"help_{name}": helps.get(name, "")}
        chinese |= {f"knob_{name}": translated, f"help_{name}": help_translated}
    return gr.I18n(en=english, zh=chinese, **{"zh-CN": chinese, "zh-TW": chinese})


def say(key: str, language: str, helps: dict[str, str] | None = None) -> str:
    """Plain text in one language, for labels of Gradio's components. Keys are those that `text` takes."""
    index = LANGUAGES.index(language)
    if key.startswith("knob_"):
        return KNOBS[key[5:]][index]
    if key.startswith("help_"):
        return KNOBS[key[5:]][2] if index else (helps or {}).get(key[5:], "")
    return WORDS[key][index]


def both(key: str, **facts: object) -> str:
    """HTML in both languages; the facts are escaped."""
    safe = {name: escape(str(value)) for name, value in facts.items()}
    return pair(*(words.format(**safe) for words in WORDS[key]))


def pair(english: str, chinese: str) -> str:
    """HTML of which the style sheet shows one half. The arguments are HTML already."""
    return f'<span class="en" lang="en">{english}</span><span class="zh" lang="zh-CN">{chinese}</span>'


def both_sentence(sentence: str) -> str:
    """HTML in both languages of a sentence that a pipeline, the lane or a record said in English."""
    english = sentence[:1].upper() + sentence[1:] + ("" if sentence.endswith((".", "!", "?")) else ".")
    return pair(escape(english), escape(_chinese(sentence)))


def _chinese(sentence: str) -> str:
    for pattern, chinese in SENTENCES:
        if match := re.fullmatch(pattern, sentence, re.DOTALL):
            said = match.expand(chinese)
            for name, (_, label, _) in KNOBS.items():
                said = said.replace(f"{{{name}}}", label)
            return said + "。"
    return sentence
