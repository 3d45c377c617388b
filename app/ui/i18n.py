"""Everything the page says, in English and Simplified Chinese.

Gradio's own labels take `text(key)` and follow the browser at first; the page sends new ones when the artist switches.
What we write as HTML holds both languages side by side (`both`), and the style sheet shows one of them, so that a
running page switches at once and no watcher has to know who reads what.
"""

from __future__ import annotations

import re
from html import escape

import gradio as gr

from pipelines.errors import CodedError, Message

LANGUAGES = ("en", "zh")

WORDS: dict[str, tuple[str, str]] = {
    # the page
    "tab_generate": ("Generate", "生成"),
    "tab_optimize": ("Optimize", "优化"),
    "tab_edit": ("Edit", "编辑"),
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
    # links
    "copy_link": ("Copy link", "复制链接"),
    "link_copied": (
        "Link copied. It opens the studio with these settings; nothing runs by itself.",
        "链接已复制。打开后会填好这些设置，不会自动运行。",
    ),
    "link_by_hand": (
        "The browser forbids copying here; take the link from the field.",
        "浏览器不允许在此复制，请从下面的框里取链接。",
    ),
    "link_without": ("Not in the link: {names}.", "链接里没有：{names}。"),
    "link_opened": (
        "These settings came from a link. Nothing has run yet.",
        "这些设置来自一个链接，还没有运行任何东西。",
    ),
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
        "The pack “{pack}” needs these models. They can be fetched in the tab Models.",
        "模型包“{pack}”还需要这些模型，可以在“模型”页下载。",
    ),
    "missing_go": ("Open Models", "打开“模型”页"),
    # one picture
    "score": ("score {score}", "得分 {score}"),
    "rank": ("rank {rank} of {count}", "第 {rank} 名，共 {count} 张"),
    "seed_is": ("seed {seed}", "种子 {seed}"),
    "download": ("Download PNG", "下载 PNG"),
    "png": ("PNG", "PNG"),
    "remix": ("Remix", "改编"),
    "reuse": ("Reuse settings", "沿用设置"),
    "reuse_seed": ("Reuse seed", "沿用种子"),
    "redraw": ("Redraw alone", "单独重画"),
    "variations": ("Variations", "变体"),
    "complete": ("Complete from the top half", "保留上半，补全其余"),
    "save": ("Download", "下载"),
    "reuse_short": ("Reuse", "沿用设置"),
    "alike_short": ("Similar", "相似"),
    "optimize_this": ("Optimize this", "优化这张"),
    "edit_this": ("Edit this", "编辑这张"),
    # Optimize: the canvas
    "opt_empty_title": ("Let a picture grow towards your words", "让画面朝着你的文字生长"),
    "opt_empty_text": (
        "CLIP pulls it step by step. Pause it, change the words, paint where it may change, go back and try another way.",
        "CLIP 一步步牵引画面。随时可以暂停、改词、涂出可变的区域，或退回去换一条路。",
    ),
    "opt_empty_examples": (
        "Begin with one of these pictures, with your own, or with none.",
        "从这些图片开始，用自己的图片，或者什么都不用。",
    ),
    "opt_ready": ("Ready to start", "可以开始了"),
    "opt_ready_text": ("from this picture", "从这张图片开始"),
    "stage_optimize": ("Growing", "正在生长"),
    "opt_after": ("after {step} steps", "共 {step} 步"),
    "opt_paused": ("Paused", "已暂停"),
    "opt_paused_at": ("at step {step}; everything was kept", "停在第 {step} 步，全部保留"),
    "opt_paused_none": ("before the first step", "还没走第一步"),
    "opt_interrupted": ("The studio was closed while this was growing", "生长途中工作室关闭了"),
    "opt_kept": ("kept up to step {step}", "已保留到第 {step} 步"),
    "opt_best": ("best by critic (step {step})", "评审最佳（第 {step} 步）"),
    "opt_last": ("last (step {step})", "最后（第 {step} 步）"),
    "opt_step": ("step {step}", "第 {step} 步"),
    "opt_clip_is": ("CLIP {score}", "CLIP {score}"),
    "opt_critic_is": ("critic {score}", "评审 {score}"),
    "opt_begin": ("Start from this", "以此为起点"),
    "opt_laid": (
        "The picture is the start now; 30 steps keep its character.",
        "已设为起点；30 步能保留它的样子。",
    ),
    # Optimize: the instrument
    "opt_prompt_hint": ("a castle in the fog | blur:-0.3", "雾中的城堡 | 模糊:-0.3"),
    "opt_start": ("Start", "开始"),
    "opt_pause": ("Pause", "暂停"),
    "opt_resume": ("Resume", "继续"),
    "opt_again": ("Try again", "再试一次"),
    "opt_anew": ("Start anew", "重新开始"),
    "opt_cancel": ("Leave the line", "退出排队"),
    "opt_back": ("Step back", "回退"),
    "opt_apply": ("Apply changes", "应用修改"),
    "opt_more": ("{more} more steps", "再走 {more} 步"),
    "opt_fork": ("Go on from here", "从这里分支"),
    "opt_now": ("Back to now", "回到现在"),
    "opt_weight": ("weight", "权重"),
    "opt_off": ("leave out or take in again", "停用或启用"),
    "opt_remove": ("remove", "移除"),
    "opt_add": ("another prompt", "再加一个提示词"),
    "opt_scene": ("scene {number}", "第 {number} 幕"),
    "opt_image_weight": ("weight of the picture", "图片的权重"),
    "opt_paint": ("Paint where it may change", "涂出可以改变的地方"),
    "opt_brush_size": ("brush", "笔刷"),
    "opt_erase": ("Erase", "擦除"),
    "opt_invert": ("Invert", "反选"),
    "opt_clear": ("Clear", "清除"),
    "opt_masked": ("a mask is set", "已设蒙版"),
    "opt_timeline": ("Timeline", "时间轴"),
    "opt_critic": ("critic", "评审"),
    "opt_drift": (
        "CLIP's score climbs while the critic's falls: the picture may only be pleasing CLIP.",
        "CLIP 的得分在升，评审的得分在降：画面可能只是在讨好 CLIP。",
    ),
    "opt_unchanged": ("Nothing has changed yet.", "还没有任何修改。"),
    "opt_fixed": (
        "This stays as the run began, until you start anew: {names}.",
        "这些在本次运行中保持不变，重新开始后才生效：{names}。",
    ),
    "opt_beyond": (
        "The run ends at or before step {step}; raise the steps to go on.",
        "运行在第 {step} 步或更早就结束了；把步数调大再继续。",
    ),
    # Edit: the picture
    "edit_empty_title": ("Lay a picture here", "把图片放到这里"),
    "edit_empty_text": (
        "Drop it, paste it, or choose one. Then say what it shows, and what it should show instead.",
        "拖入、粘贴或选择一张。然后写下画面里是什么，又该变成什么。",
    ),
    "edit_empty_example": (
        "Or click one of these. Without a picture, one is taken that fits the first text.",
        "也可以点下面的图片。不放图片时，会用一张符合第一段文字的例图。",
    ),
    "edit_choose": ("Choose a picture", "选择图片"),
    "edit_another": ("Another picture", "换一张"),
    "edit_none": ("Take it away", "拿走"),
    "edit_ready": ("Your picture", "你的图片"),
    "edit_next": ("The picture is the next one to edit.", "这张图片排在下一个。"),
    "edit_stage_loading": ("Waking the models", "正在启动模型"),
    "edit_stage_purify": ("Bringing it into the model's world", "正在把它带进模型的世界"),
    "edit_stage_invert": ("Walking up the noise", "正在走进噪声"),
    "edit_stage_learn": ("Learning the direction", "正在学习方向"),
    "edit_stage_draw": ("Drawing the strip", "正在绘制各个强度"),
    "edit_after": ("learned in {updates} updates", "学习了 {updates} 次更新"),
    "edit_stopped_at": (
        "after {updates} updates; what was learned was kept",
        "停在第 {updates} 次更新，学到的都保留了",
    ),
    "edit_stopped_none": ("before anything was learned", "还没学到东西"),
    "edit_interrupted": ("The studio was closed meanwhile", "中途工作室关闭了"),
    "edit_kept": ("kept up to update {updates}", "已保留到第 {updates} 次更新"),
    "edit_before": ("before", "之前"),
    "edit_now": ("after", "之后"),
    "edit_wipe": ("wipe between before and after", "拖动对比前后"),
    "edit_untouched": ("untouched", "原样"),
    "edit_clip": ("along the direction: CLIP {score}", "沿方向：CLIP {score}"),
    "edit_critic": ("critic {score}", "评审 {score}"),
    "edit_target": ("likeness to the target {before} → {now}", "与目标的接近程度 {before} → {now}"),
    "edit_changed": ("{share} % changed", "变化 {share} %"),
    "edit_ssim": ("SSIM {value}", "SSIM {value}"),
    "edit_further": ("Edit further", "继续编辑"),
    "edit_optimize": ("Go on in Optimize", "转到优化"),
    # Edit: the learning
    "edit_learning": ("What CLIP and the critic say while it learns", "学习过程中 CLIP 与评审的看法"),
    "edit_look_back": ("Drag back to see it with less learned.", "往回拖，看看少学一些的样子。"),
    "edit_update": ("update {update}", "第 {update} 次更新"),
    "edit_use_this": ("Use this", "用这个"),
    "edit_keep": ("Keep this direction", "保存这个方向"),
    "edit_overshot": (
        "From update {update} on the critic liked it less while CLIP liked it more.",
        "从第 {update} 次更新起，CLIP 越来越满意，评审却越来越不满意。",
    ),
    "edit_back_to": ("Go back to update {update}", "退回第 {update} 次更新"),
    # Edit: the form
    "edit_from": ("from", "从"),
    "edit_to": ("to", "变为"),
    "edit_mode_instant": ("Instant", "即时"),
    "edit_mode_instant_says": ("CLIP guides each step, nothing is learned", "CLIP 逐步引导，不学习"),
    "edit_mode_quick": ("Quick", "快速"),
    "edit_mode_quick_says": ("learns from this one picture", "只从这一张学习"),
    "edit_mode_reusable": ("Reusable", "可复用"),
    "edit_mode_reusable_says": ("learns a direction for any picture", "学一个适用于任何图片的方向"),
    "edit_mode_paper": ("Paper", "论文"),
    "edit_mode_paper_says": ("the original recipe, slowest", "论文里的原方法，最慢"),
    "edit_resting": (
        "A direction from the shelf says where to go; texts and mode rest.",
        "方向由下面选中的决定，文字和方式暂不起作用。",
    ),
    "edit_strength": ("How far", "改变多少"),
    "edit_opposite": ("the opposite", "反方向"),
    "edit_zero": ("your picture", "原图"),
    "edit_target_is": ("the target", "目标"),
    "edit_seed": ("seed", "随机种子"),
    "edit_go": ("Edit", "编辑"),
    "edit_go_on": ("Go on learning", "继续学习"),
    # Edit: the outlook
    "edit_waiting": ("The models are waking to look at it.", "模型正在启动，马上来看。"),
    "edit_match": ("of our pictures fit “{source}” less than yours", "的图片比你的更不像“{source}”"),
    "edit_near": ("near", "很近"),
    "edit_between": ("a fair way", "适中"),
    "edit_far": ("far", "很远"),
    "edit_apart": ("from text to text ({value})", "两段文字的距离（{value}）"),
    "edit_survives": ("of the picture survives noise level {step}", "的画面能留下（噪声级别 {step}）"),
    "edit_return": ("noise level it returns to", "返回的噪声级别"),
    "edit_memory": ("to wait, and {megabytes} MB of memory", "左右，内存 {megabytes} MB"),
    "edit_far_apart": (
        "The texts are far apart: less of your picture will stay. A smaller step works better.",
        "两段文字相距很远：画面会保留得更少。换成小一点的变化效果更好。",
    ),
    "edit_not_described": (
        "“{source}” does not describe the picture well. Say what it shows.",
        "“{source}”不太像这张图片。请写下画面里有什么。",
    ),
    # Edit: the shelf
    "edit_shelf": ("Directions", "方向"),
    "edit_shelf_open": ("Open a file", "打开文件"),
    "edit_shelf_empty": (
        "Keep what a run has learned, and put it on any picture later, without learning again.",
        "把学到的方向保存下来，以后不用再学，就能用到任何图片上。",
    ),
    "edit_updates": ("{updates} updates", "{updates} 次更新"),
    "edit_kept_it": ("Kept on the shelf: {words}.", "已保存方向：{words}。"),
    "edit_shelved": ("On the shelf, and chosen: {words}.", "已放入并选中方向：{words}。"),
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
    "loaded_other": (
        "Another model drew this picture; its prompt and seed are in the form.",
        "这张图片由另一种模型绘制；提示词和种子已填入表单。",
    ),
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
        "Everything here runs on your own machine. A pack is the set of networks that do the work.",
        "这里的一切都在你自己的电脑上运行。一个模型包就是一组干活的网络。",
    ),
    "models_shared": (
        "This studio is shared, so its models can only be looked at here.",
        "这个工作室由大家共用，模型在这里只能查看。",
    ),
    "models_generate": ("DALL·E draws", "由 DALL·E 作画"),
    "models_diffuse": ("Stable Diffusion draws", "由 Stable Diffusion 作画"),
    "models_own": ("Models of your own:", "添加自己的模型："),
    "memory_ram": ("{size} of memory are free", "可用内存 {size}"),
    "memory_gpu": ("{size} of the GPU's memory are free", "可用显存 {size}"),
    "memory_fits": ("fits in memory ({size})", "内存够用（{size}）"),
    "memory_tight": (
        "needs {size} of memory, more than is free",
        "需要 {size} 内存，超出可用的",
    ),
    "in_use": ("in use", "使用中"),
    "runs_on": ("runs on {device}", "运行于 {device}"),
    "pack_files": ("{here} of {all} models are here", "已有 {here} / {all} 个模型"),
    "to_download": ("{size} to download", "需下载 {size}"),
    "pack_details": ("Models and licences", "模型与许可"),
    "present": ("here", "已有"),
    "absent": ("missing", "缺少"),
    "coming": ("coming", "下载中"),
    "waits": ("waits", "等待中"),
    "size": ("size", "大小"),
    "memory": ("memory", "内存"),
    "licence": ("licence", "许可"),
    "origin": ("origin", "来源"),
    "use_pack": ("Use this pack", "使用这个模型包"),
    "needs_new_page": (
        "Its Generate has settings of its own. Close this studio and open it with",
        "它的“生成”另有一套设置。请关闭工作室，再用这条命令打开：",
    ),
    "fetch": ("Get it", "下载"),
    "fetch_missing": ("Get what is missing", "下载缺少的模型"),
    "consent_title": ("The licences, before anything is downloaded", "下载之前，请先看许可"),
    "consent": (
        "About {size} in all, from {hosts}. It can be stopped at any time and goes on from there.",
        "共约 {size}，来自 {hosts}。随时可以停止，之后从停下的地方继续。",
    ),
    "agree_fetch": ("I agree, download", "我同意，开始下载"),
    "not_now": ("Not now", "以后再说"),
    "fetching": ("Getting {name}", "正在下载 {name}"),
    "fetch_stopping": ("Stopping at {name}", "正在停止 {name}"),
    "fetch_done": ("{name} is here", "{name} 已下载好"),
    "fetch_stopped": ("Stopped at {name}; what came was kept", "已停在 {name}，下载的部分都保留了"),
    "fetch_failed": ("{name} could not be fetched", "{name} 没有下载成功"),
    "fetch_go_on": ("Go on", "继续下载"),
    "fetch_then": ("then {names}", "之后：{names}"),
    "converting": ("unpacking and checking it", "正在检查并转换"),
    "megabytes": ("{done} of {total} MB", "{done} / {total} MB"),
    "rate": ("{rate} MB a second", "每秒 {rate} MB"),
    # the door, and who sees what
    "door_link": (
        "This studio is private: open it with the link that it printed when it was started.",
        "这个工作室不公开：请用它启动时打印的链接打开。",
    ),
    "door_ask": ("This studio asks for a password.", "进入这个工作室需要密码。"),
    "door_wrong": ("That is not the password.", "密码不对。"),
    "door_wait": ("Too many wrong tries; wait a minute.", "试错太多次了，请等一分钟。"),
    "door_password": ("Password", "密码"),
    "door_enter": ("Come in", "进入"),
    "door_name": (
        "This studio does not answer to the name {name}; it does when started with --allow-host NAME.",
        "这个工作室不回应名字 {name}；启动时加上 --allow-host 名字 就可以。",
    ),
    "no_address": (
        "No address is fetched for a caller; send the picture itself, as an upload or a data URI.",
        "不会替调用者读取网址；请直接上传图片，或用 data URI。",
    ),
    "too_long": (
        "The call has more than {megabytes} MB; send smaller pictures.",
        "请求超过 {megabytes} MB；请用小一些的图片。",
    ),
    "served_token": (
        "Other machines can reach this studio; whoever has its link may come in.",
        "其他电脑可以访问这个工作室；有链接的人都能进入。",
    ),
    "served_password": (
        "Other machines can reach this studio; whoever knows its password may come in.",
        "其他电脑可以访问这个工作室；知道密码的人都能进入。",
    ),
    "served_none": ("Everybody can use this studio.", "这个工作室向所有人开放。"),
    "served_apart": (
        "What you make here is seen by you only, in this browser.",
        "你在这里做的，只有你自己在这个浏览器里看得到。",
    ),
    "served_shared": ("All visitors see what is made here.", "在这里做的，所有访客都看得到。"),
    "download_bare": ("PNG without the pictures given", "不含所给图片的 PNG"),
    "about_pack_tiny": (
        "Trained by this project; runs anywhere",
        "本项目自己训练，哪里都能运行",
    ),
    "about_pack_full": (
        "DALL·E mega, ImageNet VQGAN, faces",
        "DALL·E mega、ImageNet VQGAN、人脸",
    ),
    "about_pack_mini": ("DALL·E mini: smaller and faster", "DALL·E mini，更小更快"),
    "about_pack_malevich": ("ruDALL-E Malevich, which reads Russian", "ruDALL-E Malevich，读俄语提示词"),
    "about_pack_chinese": ("VQGAN-CLIP steered by a Chinese CLIP", "由中文 CLIP 引导的 VQGAN-CLIP"),
    "about_pack_church": ("DALL·E mega, and edits of churches", "DALL·E mega，以及教堂编辑"),
    "about_pack_bedroom": ("DALL·E mega, and edits of bedrooms", "DALL·E mega，以及卧室编辑"),
    "about_pack_sd_1_5": ("Stable Diffusion 1.5, ranked by CLIP", "Stable Diffusion 1.5，由 CLIP 排名"),
    "about_pack_sd_2_1": ("Stable Diffusion 2.1, ranked by CLIP", "Stable Diffusion 2.1，由 CLIP 排名"),
    "about_pack_sd_turbo": ("Stable Diffusion Turbo: one to four steps", "Stable Diffusion Turbo：一到四步"),
    "about_pack_sd_xl": ("Stable Diffusion XL, 1024 px", "Stable Diffusion XL，1024 像素"),
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
    "steps": ("steps", "步数", "画面生长多少步"),
    "size": ("size", "尺寸", "宽x高，例如 192x128；留空则与起始图片或模型一致"),
    "init": ("start picture", "起始图片", "从哪张图片开始"),
    "mask": ("mask", "蒙版", "画面可以改变的地方：白色，或涂抹处"),
    "start": (
        "start",
        "起点",
        "没有图片时从什么开始：splash 白纸上的一团颜色，white 白纸，codes 随机编码，noise 噪点，"
        "gradient 渐变；随机产生多个，由 CLIP 选一个",
    ),
    "regions": (
        "regions",
        "分区提示词",
        "只管一部分画面：文字 @ left、right、top、bottom、centre；多个用 | 分开",
    ),
    "image_prompts": ("picture to steer to", "图片提示", "让画面靠近这张图片"),
    "noise_prompts": ("noise prompts", "随机方向", "随机方向：数字[:权重]，多个用 | 分开"),
    "step_size": ("step size", "步幅", "每一步走多远"),
    "optimizer": ("optimizer", "优化器", "怎样由梯度得到每一步"),
    "average": ("average", "平均", "画面里保留多少过去；越大越平静"),
    "cutouts": ("cutouts", "视图数", "每一步给 CLIP 看多少个视图"),
    "cutouts_end": ("cutouts at the end", "结束时的视图数", "最后的视图数；0 表示与开始相同"),
    "views": ("view size", "视图大小", "small 小视图更快，full 与 CLIP 能看到的一样大"),
    "scheme": ("cutout scheme", "裁切方式", "怎样裁出视图"),
    "closest": ("closest view", "最近视图", "最近的视图占短边的比例"),
    "pull": ("pull", "贴近原图", "CLIP 不在意的地方保持起始图片或白纸的样子（画布移动时除外）"),
    "smooth": ("smooth", "平滑", "边缘更少"),
    "colour": ("colour", "色彩", "更多色彩；小于零则更少"),
    "palette": ("palette", "调色板", "只用这些颜色，例如 #d9432f #faf8f4"),
    "symmetry": ("symmetry", "对称", "左右一样"),
    "tile": ("seamless", "无缝平铺", "并排摆放时边缘相接"),
    "coarse": ("coarse to fine", "由粗到细", "从小画布开始，翻倍几次"),
    "animate": ("animate", "画布移动", "每隔多少步移动一次画布，用于影片；0 表示不移动"),
    "zoom": ("zoom", "缩放", "每次移动的缩放"),
    "pan_x": ("pan right", "右移", "每次移动向右多少像素"),
    "pan_y": ("pan down", "下移", "每次移动向下多少像素"),
    "rotate": ("rotate", "旋转", "每次移动旋转多少度"),
    "precision": (
        "precision",
        "精度",
        "解码器的精度：auto 用 float32；处理器有矩阵单元时，大画布用 bfloat16 更快",
    ),
    "tokens": ("image tokens", "图像词元", "起始的图像词元，写成数字"),
    "changes": ("changes on the way", "途中的修改", "运行途中改了什么"),
    "until": ("where it stopped", "停在哪里", "到哪一步为止；0 表示到最后"),
    # Generate with Stable Diffusion
    "negative_prompt": ("leave out", "不要出现", "不要画什么；引导强度大于 1 时有效"),
    "width": ("width", "宽", "像素，8 的倍数；0 表示模型习惯的大小"),
    "height": ("height", "高", "像素，8 的倍数；0 表示模型习惯的大小"),
    "diffuse_image": ("picture", "图片", "从这张图片开始"),
    "diffuse_strength": ("distance", "变化程度", "离原图多远；1 表示完全重画"),
    "diffuse_mask": ("mask", "蒙版", "白色的地方重新绘制"),
    "diffuse_steps": ("steps", "步数", "从噪声走到画面的步数；0 表示按模型决定"),
    "diffuse_guidance": ("guidance", "引导强度", "提示词的影响有多强；1 为普通采样，0 表示按模型决定"),
    # Edit; where another tab has a setting of the same name, its words are under edit_NAME
    "source": ("from", "原文", "画面里现在是什么"),
    "mode": ("way", "方式", "怎样编辑"),
    "strength": ("strength", "强度", "改变多少；0 还原图片，负数为反方向"),
    "strip": ("side by side", "并排张数", "并排显示多少个强度"),
    "automatic_mask": ("automatic mask", "自动蒙版", "编辑几乎没碰到的地方保持原样"),
    "directions": ("directions", "方向", "用保存的方向代替文字"),
    "return_step": ("return step", "返回步", "编辑退回到的噪声级别；0 表示自动建议"),
    "edit_keep": ("stay with the picture", "贴近原图", "多大程度上保留原图（L1）"),
    "edit_smooth": ("smooth", "平滑", "变化有多平滑（全变差）"),
    "edit_steps": ("steps", "步数", "走进噪声再走回来的步数；0 表示按方式决定"),
    "refine": ("refine", "细化", "每一步向上走时的定点细化次数"),
    "edit_guidance": ("guidance", "引导强度", "即时方式：CLIP 推得多用力"),
    "updates": ("updates", "更新次数", "学习的更新次数；0 表示按方式决定"),
    "edit_step_size": ("step size", "步幅", "学习的步幅（Adam）"),
    "rank": ("rank", "秩", "适配器（LoRA）的秩"),
    "loss": ("loss", "损失", "方向损失：log 为官方代码，plain 为论文"),
    "chain": ("chain", "链式", "论文方法：一次更新穿过全部六步"),
    "learn_from": ("learn from", "学习张数", "可复用方向从多少张图片学习"),
    "examples": ("example pictures", "示例图片", "用图片而不是文字说明目标"),
    "lessons": ("own pictures to learn from", "自备学习图片", "从自己的图片学习可复用方向"),
    "purify": ("purify", "净化", "先把绘画带进模型的世界，做几次"),
    "crop": ("crop", "裁切", "只编辑这一部分：X,Y,宽x高（像素）"),
}

SETTING_LABELS = {name: chinese for name, (_, chinese, _) in KNOBS.items()}

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
        return KNOBS.get(key[5:], (key[5:], key[5:]))[index]
    if key.startswith("help_"):
        return KNOBS.get(key[5:], ("", "", ""))[2] if index else (helps or {}).get(key[5:], "")
    return WORDS[key][index]


def both(key: str, **facts: object) -> str:
    """HTML in both languages; the facts are escaped."""
    safe = {name: escape(str(value)) for name, value in facts.items()}
    return pair(*(words.format(**safe) for words in WORDS[key]))


def pair(english: str, chinese: str) -> str:
    """HTML of which the style sheet shows one half. The arguments are HTML already."""
    return f'<span class="en" lang="en">{english}</span><span class="zh" lang="zh-CN">{chinese}</span>'


def both_sentence(problem: Message | CodedError | str) -> str:
    """HTML in both languages of what went wrong. Plain text, such as an earlier version kept, stays as it is."""
    message = problem.message if isinstance(problem, CodedError) else problem
    message = Message.from_json(message) if isinstance(message, str) else message
    english, chinese = message.text(), message.text("zh", SETTING_LABELS)
    ended = english[:1].upper() + english[1:] + ("" if english.endswith((".", "!", "?")) else ".")
    return pair(escape(ended), escape(_chinese(english) if chinese == english else chinese + "。"))


def _chinese(sentence: str) -> str:
    for pattern, chinese in SENTENCES:
        if match := re.fullmatch(pattern, sentence, re.DOTALL):
            said = match.expand(chinese)
            for name, (_, label, _) in KNOBS.items():
                said = said.replace(f"{{{name}}}", label)
            return said + "。"
    return sentence
