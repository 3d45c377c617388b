"""The functions of the Generate tab where the pack has two engines, without a browser."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from app.jobs.queue import Job, JobQueue
from app.library import Library
from app.recipe import recipe_of
from app.ui import page
from app.ui.html import generate as generate_html
from app.ui.queue_panel import QueuePanel
from app.ui.tabs.form import script_values
from app.ui.tabs.generate.records import Records
from app.ui.tabs.generate.tab import GenerateTab
from pipelines.diffuse.settings import DiffuseSettings
from pipelines.errors import BadInput, Message
from pipelines.models.checkpoint import save_checkpoint
from tests.support.painter import PAINTERS, PainterStudio
from tests.support.tiny import tiny_prior_diffuse, tiny_transformer


@pytest.fixture
def tab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GenerateTab]:
    """The tab of a page over a pack with both engines."""
    made: list[GenerateTab] = []
    connect = GenerateTab.connect

    def connected(self: GenerateTab, tab_itself: Any) -> None:
        made.append(self)
        connect(self, tab_itself)

    monkeypatch.setattr(GenerateTab, "connect", connected)
    studio = PainterStudio()
    studio.pack = "tiny"
    queue = JobQueue(studio, tmp_path, PAINTERS)
    blocks = page.build(studio, queue, Library(tmp_path), tmp_path / "none")
    yield made[0]
    blocks.close(verbose=False)
    queue.close()


def finished(tab: GenerateTab, pipeline: str, visitor: str = "ann", **settings: Any) -> Job:
    job_id = tab.queue.submit(pipeline, settings, visitor)
    for _ in range(1000):
        if (job := tab.queue.job(job_id)).is_over:
            return job
        time.sleep(0.01)
    raise AssertionError(tab.queue.job(job_id))


def clicked_on(**data: str) -> Any:
    """An event that brings these data."""
    return SimpleNamespace(_data=data)


def with_pack(tab: GenerateTab, pack: str) -> None:
    tab.context.studio.pack = pack


def test_only_settings_that_are_the_same_are_shared(tab: GenerateTab) -> None:
    form = tab.form
    assert set(form.fields) == {
        "prompt",
        "seed",
        "keep",
        "style",
        "read_as",
        "regions",
        "hide_duplicates",
        "x",
        "y",
    }
    dalle, diffusion = (form.parts[engine] for engine in ("generate", "diffuse"))
    assert (dalle.knobs["candidates"].hi, diffusion.knobs["candidates"].hi) == (512, 256)
    assert {"top_k", "finish", "image"} <= set(dalle.fields) and "steps" not in dalle.fields
    assert {"steps", "width", "image", "mask"} <= set(diffusion.fields) and "top_k" not in diffusion.fields
    assert {*dalle.fields, *form.fields} == set(dalle.knobs) | set(
        form.knobs
    )  # nothing is left without a field
    assert {*diffusion.fields, *form.fields} == set(diffusion.knobs) | set(form.knobs)
    ids = [component.elem_id for component in form.components]
    assert len(set(ids)) == len(ids)
    assert diffusion.fields["steps"] is diffusion.fields["sampler"]  # few components for many settings


def test_the_chip_is_there_where_the_pack_has_both(tab: GenerateTab) -> None:
    form, context = tab.form, tab.context
    chosen = form.choose("diffuse")
    assert chosen[context.engine] == "diffuse"
    assert 'value="diffuse" data-act="engine" data-engine="diffuse" checked' in chosen[form.chip]
    assert chosen[form.chip].count("checked") == 1 and "hidden" not in chosen[form.chip]
    assert "扩散" in chosen[form.chip] and 'role="radiogroup"' in chosen[form.chip]
    for pack, engine in (("mini", "generate"), ("sd-1.5", "diffuse")):
        with_pack(tab, pack)
        for wanted in ("", "generate", "diffuse", "<b>"):
            chosen = form.choose(wanted)
            assert chosen[context.engine] == engine
            assert " hidden>" in chosen[form.chip] and f'value="{engine}"' in chosen[form.chip]


def test_each_engine_runs_with_what_was_typed_for_it(tab: GenerateTab) -> None:
    form = tab.form
    typed = {component: component.value for component in form.components}
    typed |= {form.fields["prompt"]: "a red heart", form.fields["seed"]: 7, form.fields["keep"]: 2}
    typed |= {
        form.parts["generate"].fields["candidates"]: 5,
        form.parts["generate"].fields["top_k"]: {"top_k": 9},
    }
    typed |= {form.parts["diffuse"].fields["candidates"]: 3}
    typed |= {form.parts["diffuse"].fields["steps"]: {"steps": 11, "sampler": "heun", "guidance": None}}
    for engine, expected in (
        ("generate", {"candidates": 5, "top_k": 9}),
        ("diffuse", {"candidates": 3, "steps": 11, "guidance": None, "sampler": "heun", "windows": "auto"}),
    ):
        answer = tab.submit("ann", engine, False, *typed.values())
        job = tab.queue.job(answer[tab.job])
        assert job.pipeline == engine and job.settings.items() >= {"seed": 7, "keep": 2, **expected}.items()
    answer = tab.submit("ann", "diffuse", True, *typed.values())
    assert tab.queue.job(answer[tab.job]).settings["seed"] == answer[form.fields["seed"]] != 7
    with_pack(tab, "mini")  # whose page may still name the other engine
    assert tab.queue.job(tab.submit("ann", "diffuse", False, *typed.values())[tab.job]).pipeline == "generate"


def test_a_run_of_either_engine_is_shown_and_opens_its_form(tab: GenerateTab) -> None:
    context, diffusion = tab.context, tab.form.parts["diffuse"]
    first = finished(tab, "diffuse", prompt="a blue leaf", steps=13, candidates=2)
    second = finished(tab, "generate", prompt="a red leaf", top_k=17, candidates=2)
    assert [job.id for job in tab.last_runs("ann")] == [second.id, first.id]
    for answer in (
        tab._act({"act": "open", "job": first.id}, "ann"),
        tab.on_load(first.id, "ann", "", "generate"),
    ):
        assert answer[context.engine] == "diffuse" and answer[diffusion.fields["steps"]]["steps"] == 13
        assert answer[tab.form.fields["prompt"]] == "a blue leaf"
        assert answer[diffusion.fields["guidance"]]["guidance"] is None  # what the model likes, not 0
        assert tab.form.parts["generate"].fields["candidates"] not in answer  # stays as it was typed
    answer = tab.on_load(second.id, "ann", "", "diffuse")
    assert answer[context.engine] == "generate"
    assert "drawn by DALL·E" in answer[tab.stage] and "由 DALL·E 绘制" in answer[tab.stage]
    assert "drawn by diffusion" in tab.watch(first.id, "ann", "")[tab.stage]
    answer = tab.on_load("", "eve", "", "diffuse")  # what was chosen before
    assert 'data-engine="diffuse" checked' in answer[tab.form.chip]
    assert context.engine not in answer  # the visitor may have chosen another one meanwhile
    text = recipe_of("diffuse", {"prompt": "a castle", "width": 512}).text()
    answer = tab.on_load("", "ann", text, "generate")
    assert answer[context.engine] == "diffuse" and answer[diffusion.fields["width"]]["width"] == 512


def test_pictures_of_either_engine_fill_its_form(tab: GenerateTab, tmp_path: Path) -> None:
    context, form, diffusion = tab.context, tab.form, tab.form.parts["diffuse"]
    path = Path(
        finished(tab, "diffuse", prompt="a blue leaf", steps=13, candidates=2, seed=3).pictures[0]["path"]
    )
    for answer in (tab.records.receive("settings", path), tab.load_file(str(path), "generate")):
        assert answer[context.engine] == "diffuse" and answer[diffusion.fields["steps"]]["steps"] == 13
    answer = tab.records.act("vary", path, 0, "ann")
    assert answer[context.engine] == "diffuse" and answer[form.run_now]
    assert isinstance(answer[diffusion.fields["image"]], Image.Image)
    assert answer[diffusion.fields["strength"]]["strength"] == diffusion.knobs["strength"].default
    assert answer[diffusion.fields["place"]].items() >= {"place": "fill", "invert": False}.items()
    answer = tab.records.act("beyond", path, 0, "ann")
    assert answer[diffusion.fields["place"]]["place"] == "centre"
    assert answer[diffusion.fields["width"]]["width"] is None
    assert isinstance(answer[diffusion.fields["image"]], Image.Image) and answer[form.run_now]
    redrawn = tab.records.act("redraw", path, 0, "ann")
    assert tab.queue.job(redrawn[context.job]).pipeline == "diffuse"
    with_pack(tab, "mini")
    answer = tab.records.receive("settings", path)
    assert answer[form.fields["prompt"]] == "a blue leaf" and context.engine not in answer
    assert diffusion.fields["steps"] not in answer and "Another model drew this picture" in answer[tab.note]


def test_another_studios_picture_gives_prompt_and_seed_or_its_name(tab: GenerateTab, tmp_path: Path) -> None:
    fooocus = json.dumps({"prompt": "a red fox\nin snow", "seed": "12", "performance": "Speed"})
    form = tab.form
    for name, texts, prompt, seed, told in (
        ("fooocus", {"parameters": fooocus}, "a red fox in snow", 12, "Fooocus"),
        ("midjourney", {"Description": "a fox --ar 3:2"}, "a fox", None, "tells no seed"),
        ("openai", {"XML:com.adobe.xmp": "OpenAI trainedAlgorithmicMedia"}, None, None, "comes from"),
    ):
        kept = PngInfo()
        for key, text in texts.items():
            kept.add_itxt(key, text)
        Image.new("RGB", (8, 8)).save(path := tmp_path / f"{name}.png", pnginfo=kept)
        answer = tab.load_file(str(path), "diffuse")
        assert answer.get(form.fields["prompt"]) == prompt and told in str(answer[form.note])
        assert answer.get(form.fields["seed"]) == (None if seed is None else str(seed))


def test_the_chosen_engine_reads_the_prompt(tab: GenerateTab, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def pipeline(self: PainterStudio, name: str) -> Any:
        asked.append(name)
        return PAINTERS[name]()

    monkeypatch.setattr(PainterStudio, "pipeline", pipeline)
    for engine in ("diffuse", "generate", ""):
        assert "tokens 2 of 12" in tab.read("red leaf", engine)
    assert asked == ["diffuse", "generate", "generate"]


def test_several_prompts_are_runs_of_their_own(tab: GenerateTab, tmp_path: Path) -> None:
    form = tab.form
    assert "3 prompts" in tab.read("{red|blue} leaf\na cat", "generate")
    assert "more than 64" in tab.read("{a|b}" * 9, "generate")
    typed = {component: component.value for component in form.components}
    typed |= {form.fields["prompt"]: "{red|blue} leaf\na cat", form.fields["seed"]: 7}
    answer = tab.submit("ann", "generate", False, *typed.values())
    assert "3 runs are in the queue" in answer[tab.note]
    jobs = tab.queue.jobs("ann")[::-1]
    assert [(job.settings["prompt"], job.settings["seed"]) for job in jobs] == [
        ("red leaf", 7), ("blue leaf", 7), ("a cat", 7),
    ]  # fmt: skip
    assert answer[tab.job] == jobs[0].id
    (tmp_path / "a.txt").write_text("a frog\n\na star\n")
    assert tab.load_file(str(tmp_path / "a.txt"), "generate")[form.fields["prompt"]] == "a frog\na star"
    (tmp_path / "a.csv").write_text('prompt,seed\n"a frog, green",1\na star,2\n')
    assert (
        tab.load_file(str(tmp_path / "a.csv"), "generate")[form.fields["prompt"]] == "a frog, green\na star"
    )


def test_what_another_studio_wrote_into_a_text_file_is_one_run(tab: GenerateTab, tmp_path: Path) -> None:
    form = tab.form
    for name, text in (
        ("a.txt", "a red fox\nNegative prompt: blurry\nSteps: 20, Sampler: Euler, Seed: 12, Size: 8x8"),
        ("notes", "a red fox\nWidth: 512\nSeed: 12\nSteps: 20"),
        (
            "a.json",
            json.dumps({"prompt": "a red fox", "negative_prompt": "", "seed": "12", "base_model": "x"}),
        ),
    ):
        (tmp_path / name).write_text(text)
        answer = tab.load_file(str(tmp_path / name), "generate")
        assert (answer[form.fields["prompt"]], answer[form.fields["seed"]]) == ("a red fox", "12")


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.heic", b"\0\0\0\x18ftypheic", "HEIC"),
        ("a.mp4", b"\0\0\0\x18ftypisom", "film"),
        ("a.bin", b"\1", "not a PNG"),
        ("log.html", b"<!DOCTYPE html><p>Prompt: a cat</p>", "web page"),
    ],
)
def test_a_dropped_file_of_another_kind_is_named(
    tab: GenerateTab, tmp_path: Path, name: str, data: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(data)
    assert words in tab.load_file(str(tmp_path / name), "generate")[tab.note]


def test_a_large_picture_is_told_of_when_a_run_begins(
    tab: GenerateTab, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = Message("io.sixteen_bits")
    monkeypatch.setattr("pipelines.core.settings.picture_notes", lambda source: [note])
    monkeypatch.setattr("pipelines.core.settings.Settings.files", lambda self: ["a picture"])
    typed = {component: component.value for component in tab.form.components}
    typed |= {tab.form.fields["prompt"]: "a (cat:1.2)", tab.form.fields["seed"]: 7}
    told = tab.submit("ann", "generate", False, *typed.values())[tab.note]
    assert "16 bits" in told and "stresses words" not in told


def test_what_is_read_is_told_before_the_run(tab: GenerateTab) -> None:
    told = tab.read("a castle | fog:0.5", "generate")
    assert "data-parsed" in told and "&#34;weight&#34;: 0.5" in told and "warn" not in told
    told = tab.read("a (cat:1.2)", "generate")
    assert "stresses words in other programs" in told and "只当文字读" in told
    assert "no positive weight" in tab.read("fog:-1", "generate")
    assert "stresses words" in tab.read("a cat\na (dog:1.2)", "generate")
    assert "control character" in tab.read("a cat\na\x1b dog", "generate")
    assert "10,000 characters" in tab.read("a" * 10_000, "generate")


def test_an_empty_prompt_asks_a_second_stage_where_there_is_one(
    tab: GenerateTab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATELIER_MODELS", str(tmp_path / "models"))
    form = tab.form
    typed = {component: component.value for component in form.components} | {form.fields["prompt"]: " "}
    refused = tab.submit("ann", "generate", False, *typed.values())
    assert "prompt is empty" in refused[tab.note] and "second stage" not in tab.read(" ", "generate")
    network = tiny_transformer()
    path = tmp_path / "models" / "transformer.safetensors"
    save_checkpoint(path, network, network.config.to_dict(), {}, "transformer")
    job = tab.queue.job(tab.submit("ann", "generate", False, *typed.values())[tab.job])
    assert job.settings["prior"] and not job.settings["prompt"]
    assert "second stage draws" in tab.read(" ", "generate") and "second stage" not in tab.read(
        " ", "diffuse"
    )
    assert "prompt is empty" in tab.submit("ann", "diffuse", False, *typed.values())[tab.note]
    told = tab.submit("ann", "generate", False, *(typed | {form.fields["prompt"]: "a cat"}).values())
    assert not tab.queue.job(told[tab.job]).settings["prior"]
    assert "no prompt" in generate_html.stage(job, tab.pictures, None)


def test_looks_are_chips_and_go_into_the_run(tab: GenerateTab, tmp_path: Path) -> None:
    form = tab.form
    chips = form.fields["style"]
    assert chips.html_template.count("data-look") == 7 and "扁平" in chips.html_template
    typed = {component: component.value for component in form.components} | {chips: {"style": "flat, 3d"}}
    job = tab.queue.job(tab.submit("ann", "diffuse", False, *typed.values())[tab.job])
    assert job.settings["style"] == "flat, 3d"
    assert form.fill(job.settings)[chips] == {"style": "flat, 3d"}


def test_the_list_of_runs_reorders_drops_and_pauses(tab: GenerateTab) -> None:
    panel = QueuePanel(tab.queue)
    panel.act("ann", clicked_on(act="queue-pause"))
    first, second, third = (tab.queue.submit("generate", {"prompt": f"leaf {k}"}, "ann") for k in range(3))
    tab.queue.submit("generate", {"prompt": "a stranger's"}, "bob")
    shown = panel.act("ann", clicked_on(act="queue-up", job=third))
    assert [shown.index(f"leaf {k}</b>") for k in (0, 2, 1)] == sorted(
        shown.index(f"leaf {k}</b>") for k in range(3)
    )
    assert "stranger" not in shown and "paused" in shown and "已暂停" in shown
    shown = panel.act("ann", clicked_on(act="queue-drop", job=second))
    assert "leaf 1" not in shown and tab.queue.job(second).state == "stopped"
    panel.act("ann", clicked_on(act="queue-clear"))
    assert tab.queue.line("ann") == []
    assert panel.act("ann", clicked_on(act="queue-drop", job="gone")) == panel.show("ann")
    panel.act("ann", clicked_on(act="queue-go-on"))
    assert (
        finished(tab, "generate", prompt="leaf").state == "done" and tab.queue.job(first).state == "stopped"
    )


def test_what_happens_is_said_without_a_number_that_the_form_may_change(tab: GenerateTab) -> None:
    said = re.search("<h2>.*?</p>", tab.show_empty()[tab.stage])
    assert (
        said
        and "CLIP puts the best first" in said[0]
        and not re.search("[0-9]", re.sub("<.*?>", "", said[0]))
    )


@pytest.mark.parametrize("value", [2**64 - 1, 2**53 + 1, 2**53])
def test_the_script_is_told_numbers_that_it_can_hold(value: int) -> None:
    """JavaScript reads 18446744073709551615 as 18446744073709552000."""
    told = json.loads(script_values(seed=value, strip=5, mask="", opposite=True))
    assert told["seed"] == (str(value) if value > 2**53 else value)
    assert (told["strip"], told["opposite"]) == (5, True)


def test_how_a_picture_was_drawn_is_asked_in_two_steps(tab: GenerateTab) -> None:
    job = finished(tab, "diffuse", prompt="a blue leaf", candidates=2, seed=3)
    stage = tab.watch(job.id, "ann", "")[tab.stage]
    name = tab.pictures.name(job.pictures[0]["path"])
    assert f'data-act="explain" data-name="{name}"' in stage and "这张是怎样画的？" in stage
    asked = tab.ask_how(clicked_on(act="explain", name=name))
    assert asked[tab.asked].endswith(f" {name}") and "Drawing it once more" in asked[tab.explained]
    assert tab.ask_how(clicked_on(act="explain", name=name))[tab.asked] != asked[tab.asked]
    assert "cannot be watched" in tab.tell_how(asked[tab.asked])  # a painter has no attention
    assert "no picture" in tab.tell_how("0.5 ../secret.png")
    assert tab.ask_how(clicked_on(act="explain-close")) == {tab.explained: ""}
    assert tab.explained not in tab.ask_how(clicked_on(act="remix", name=name))
    dalle = finished(tab, "generate", prompt="a red leaf", candidates=2)
    assert 'data-act="explain"' not in tab.watch(dalle.id, "ann", "")[tab.stage]


def test_words_are_weighed_and_a_layout_is_kept(tab: GenerateTab) -> None:
    form, diffusion = tab.form, tab.form.parts["diffuse"]
    job = finished(tab, "diffuse", prompt="a blue leaf", candidates=2, seed=3)
    picture = job.pictures[1]
    name = tab.pictures.name(picture["path"])
    answer = tab._act({"act": "weigh", "name": name, "weights": "blue=2"}, "ann")
    settings = tab.queue.job(answer[tab.job]).settings
    assert (settings["word_weights"], settings["seed"], settings["candidates"]) == (
        "blue=2",
        picture["seed"],
        1,
    )
    answer = tab._act({"act": "layout", "name": name}, "ann")
    assert answer[diffusion.fields["source_prompt"]]["source_prompt"] == "a blue leaf"
    assert answer[form.fields["seed"]] == str(picture["seed"]) and answer[form.roll] is False
    assert "the layout of this picture stays" in answer[tab.note]
    refused = tab.safely(tab._act, {"act": "weigh", "name": name, "weights": "blue:2"}, "ann")
    assert "write it as big=1.5" in refused[tab.note]


def test_a_mask_is_a_text_of_the_script_and_names_no_file(tab: GenerateTab) -> None:
    diffusion = tab.form.parts["diffuse"]
    assert diffusion.fields["mask"] is diffusion.fields["place"]
    mask = "data:image/png;base64,AAAA"
    assert diffusion.settings({"mask": mask, "strength": 0.5})["mask"] == mask
    assert diffusion.settings({"mask": None})["mask"] == ""
    with pytest.raises(BadInput, match="paint"):
        diffusion.settings({"mask": "/etc/passwd"})


def test_what_a_run_fills_in_is_asked_for_again_and_what_was_set_stays() -> None:
    pipeline = tiny_prior_diffuse()
    studio = SimpleNamespace(pipeline=lambda name: pipeline)
    records = Records(cast(Any, SimpleNamespace(context=SimpleNamespace(queue=None, studio=studio))))
    used = pipeline.prepare(DiffuseSettings(prompt="a cat and a dog")).to_dict()
    assert used["regions"] == "a cat @ 1/2 | a dog @ 2/2" and used["read_as"] == ""
    assert records.as_asked("diffuse", used) == {**used, "regions": "auto", "read_as": "auto"}
    own = {**used, "regions": "a cat @ left | a dog @ right"}
    assert records.as_asked("diffuse", own)["regions"] == own["regions"]
    assert records.as_asked("diffuse", {"prompt": "a cat"}) == {"prompt": "a cat"}
