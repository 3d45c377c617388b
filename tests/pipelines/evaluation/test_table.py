"""The whole table, wrong input, and the documents it is written into."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file

from app.cli.main import main
from pipelines.diffuse.pipeline import Diffuse
from pipelines.errors import BadInput
from pipelines.evaluation import card, samples
from pipelines.evaluation.compositions import ICONS, compositions
from pipelines.evaluation.figures import PARTS, TARGETS
from pipelines.evaluation.judges import paired_interval
from pipelines.models.checkpoint import save_checkpoint
from pipelines.models.judge.network import Judge, JudgeConfig
from pipelines.training.data.dataset import Dataset
from pipelines.training.data.icons import VALIDATION_STYLE, concept
from pipelines.training.data.larger import LARGER_NAME, write_larger
from pipelines.training.data.outside import OUTSIDE_EDITS, OUTSIDE_NAME, write_outside
from tests.support.pictures import size_of
from tests.support.tiny import tiny_critic, tiny_edit, tiny_matting, tiny_refining_generate
from tests.support.training import svg

STYLES = ("noto", "twemoji", "fluent-emoji", VALIDATION_STYLE)


@pytest.fixture(scope="module")
def data_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Things that the compositions and the words ask for, each a colour, in four styles."""
    names = {ICONS.get(name, name) for one in compositions() for name in one.things} | {
        "birthday cake",
        "knapsack",
    }
    rng = np.random.default_rng(0)
    blobs, records = [], []
    for name in sorted(names):
        colour = rng.integers(0, 200, 3)
        for k, style in enumerate(STYLES):
            picture = np.zeros((128, 128, 4), np.uint8)
            picture[16 + 4 * k : 100, 20:110] = (*colour, 255)
            file = io.BytesIO()
            Image.fromarray(picture).save(file, "WEBP", lossless=True, method=0)
            blobs.append(file.getvalue())
            records.append([style, name, [f"{name} thing"], f"{name}甲", ["thing"], []])
    path = tmp_path_factory.mktemp("data") / "emoji.safetensors"
    tensors = {
        "webp": np.frombuffer(b"".join(blobs), np.uint8),
        "offset": np.cumsum([0, *map(len, blobs)]).astype(np.int64),
    }
    save_file(tensors, path, {"icons": json.dumps(records), "phrases": "a thing"})
    write_larger(path.with_name(LARGER_NAME), [svg('<path d="M2 3L13 5L6 14z" fill="#c03020"/>')])
    return path


class TinyStudio:
    """Stands where Studio stands, with the tiny test networks."""

    torch_device = torch.device("cpu")

    def __init__(self, *_: Any) -> None:
        self.generate, self.critic, self.edit = tiny_refining_generate(), tiny_critic(), tiny_edit()
        self.diffuse = Diffuse(self.generate.diffusion, self.generate.clip)

    def pipeline(self, name: str) -> Any:
        return {"generate": self.generate, "edit": self.edit, "diffuse": self.diffuse}[name]

    def load(self, name: str) -> Any:
        return {"tiny-critic": self.critic}.get(name, self.generate.vqgan)

    def clip(self) -> Any:
        return self.generate.clip

    def matting(self) -> Any:
        return tiny_matting()


@pytest.fixture
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.evaluation.cli.Studio", TinyStudio)


@pytest.mark.usefixtures("_tiny")
def test_one_command_measures_everything(
    data_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet, copies = tmp_path / "sheet.png", tmp_path / "deep" / "copies.png"
    flags = [
        "--data",
        str(data_file),
        "--quick",
        "--names",
        "3",
        "--sheet",
        str(sheet),
        "--copies",
        str(copies),
    ]
    assert main(["evaluate", *flags, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)  # exactly one object
    assert list(figures) == [
        "retrieval", "words", "see", "vqgan", "matting", "export", "diffuse", "generate", "dalle", "compared",
        "composed", "copies", "unet",
    ]  # fmt: skip
    for part, name in TARGETS:
        if part in figures and "16" not in name and "judge" not in name and "best possible" not in name:
            assert name in figures[part], (part, name)
    assert (
        figures["matting"]["IoU"] > 0.9 and figures["export"]["SVG drawn again, SSIM"] > 0.9
    )  # plain things
    for side in (256, 512):
        name = f"128 to {side} pixels, SSIM"
        assert figures["export"][name] > figures["export"][f"{name} by bicubic interpolation"]
    assert set(figures["composed"]) >= {"Diffuse, all", "Generate, count", "all, true pictures"}
    for part in ("diffuse", "generate", "dalle", "compared"):
        for name, value in figures[part].items():
            assert -1 <= value <= 1, name
    for who in ("critic", "CLIP", "pixels"):
        assert figures["dalle"][f"{who} top-1, best of 4"] <= figures["dalle"][f"{who} top-5, best of 4"]
    gain = {
        end: figures["compared"][f"diffuse over dalle, critic top-5{end}"] for end in (", from", "", ", to")
    }
    assert gain[", from"] <= gain[""] <= gain[", to"]
    assert 0 <= figures["copies"]["share nearer than two styles usually are, critic"] <= 1
    width, height = size_of(copies)
    assert (width, height) == (12 * 66, 66)  # sample, by the critic, by pixels, of three names in one row
    assert size_of(sheet.with_stem("sheet-diffuse"))[0] == 20 * 66


@pytest.mark.usefixtures("_tiny")
def test_a_judge_ranks_first_and_only_when_its_file_is_given(
    data_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    things = tuple(sorted({concept(icon) for icon in Dataset(data_file).icons}))
    torch.manual_seed(0)
    config = JudgeConfig(things, 16, (8, 16), (1, 1), 4)
    save_checkpoint(tmp_path / "judge.safetensors", Judge(config), config.to_dict(), {})
    flags = ["--data", str(data_file), "--quick", "--names", "3", "--only", "diffuse", "dalle", "compared"]
    assert main(["evaluate", *flags, "--judge", str(tmp_path / "judge.safetensors"), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    drawn = figures["diffuse"]
    for top in (1, 5):
        shares = [drawn[f"judge top-{top}, {what}"] for what in ("mean of all", "best possible choice")]
        assert shares[0] <= shares[1] and drawn[f"judge top-{top}, best of 4"] <= shares[1]
    assert "diffuse over dalle, judge top-1" in figures["compared"]
    assert main(["evaluate", *flags, "--judge", str(data_file), "--json"]) == 2


@pytest.mark.usefixtures("_tiny")
def test_pruning_is_measured_beside_drawing_all(data_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--data", str(data_file), "--only", "pruned", "--pruned", "2", "--candidates", "6", "--json"]
    assert main(["evaluate", *flags]) == 0
    figures = json.loads(capsys.readouterr().out)["pruned"]
    assert figures.pop("processor time beside drawing all") > 0
    assert set(figures) == {
        f"{who} top-{top}, the best" for who in ("CLIP", "critic", "pixels") for top in (1, 5)
    }
    assert all(0 <= share <= 1 for share in figures.values())


@pytest.mark.usefixtures("_tiny")
def test_edits_are_measured_by_mode(
    data_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = tmp_path / "edits.png"
    flags = ["--data", str(data_file), "--only", "instant", "--edit", "1", "--edit-sheet", str(sheet)]
    assert main(["evaluate", *flags, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)["instant"]
    assert figures["pictures"] == 10 and set(figures) >= {"won", "won before the edit", "SSIM"}
    assert all(-1 <= figures[name] <= 1 for name in figures if name != "pictures")
    assert size_of(sheet.with_stem("edits-instant"))[0] == 10 * 18


def test_a_paired_interval_holds_the_gain_and_is_nothing_for_equals() -> None:
    better, worse = [0] * 60 + [9] * 40, [0] * 30 + [9] * 70
    low, high = paired_interval(better, worse, 5)
    assert 0.2 < low < 0.3 < high < 0.4
    assert paired_interval(worse, worse, 5) == (0, 0)


@pytest.mark.usefixtures("_tiny")
def test_only_some_parts_and_the_table_shows_bars(
    data_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "--data", str(data_file), "--only", "vqgan", "retrieval"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["part", "figure", "value", "bar"]
    assert {line.split()[0] for line in lines[1:]} == {"retrieval", "vqgan"}
    psnr = next(line for line in lines if line.startswith("vqgan") and "PSNR" in line)
    assert psnr.split()[-1] == "26.5"


def test_copies_of_training_pictures_are_found(data_file: Path, tmp_path: Path) -> None:
    emoji = Dataset(data_file)
    copied = [Image.fromarray(samples.on_background(emoji.rgba[k])) for k in emoji.train[:4]]
    figures = samples.copies(tiny_critic(), emoji, copied, None)
    for who in ("critic", "pixels"):
        assert figures[f"share nearer than two styles usually are, {who}"] == 1
        assert figures[f"distance to the nearest, {who}"] == pytest.approx(0, abs=2e-3)
        assert figures[f"distance of two styles, {who}"] > 0
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8))
    dots = noise.resize((16, 16)).resize((128, 128), Image.Resampling.NEAREST)
    far = samples.copies(tiny_critic(), emoji, [dots], None)
    assert far["share nearer than two styles usually are, pixels"] == 0


def test_a_missing_or_foreign_data_file_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.safetensors"
    text.write_text("no safetensors")
    other, damaged = tmp_path / "other.safetensors", tmp_path / "damaged.safetensors"
    save_file({"x": np.zeros(3)}, other)
    icons = json.dumps([["noto", "dog", [], "", [], []]])
    facts = {"icons": icons, "phrases": "x"}
    save_file({"webp": np.zeros(9, np.uint8), "offset": np.array([0, 9])}, damaged, facts)
    for path in (tmp_path / "missing", tmp_path, text, other, damaged):
        assert main(["evaluate", "--data", str(path)]) == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err.strip().count("\n") == 0
        assert path.name in said.err and "launch.py data" in said.err and "Traceback" not in said.err


FIGURES = {"retrieval": {"CLIP R@1": 0.51234, "critic R@5": 0.25}, "unet": {"PSNR": 35.0}}


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_cards_table_is_renewed_and_nothing_else(tmp_path: Path, newline: str) -> None:
    before, after = f"# Card{newline}{newline}", f"{newline}Limits: 小{newline}"
    path = tmp_path / "README.md"
    path.write_bytes(f"{before}{card.BEGIN}\nold\n{card.END}{after}".encode())
    assert main_card(tmp_path, path) == 0
    once = path.read_bytes()
    text = once.decode()
    assert text.startswith(before + card.BEGIN) and text.endswith(card.END + after) and "old" not in text
    assert f"| **{PARTS['retrieval']}** | | |\n| CLIP R@1 | 0.5123 | 0.55 |\n| critic R@5 | 0.25 |  |" in text
    assert f"| **{PARTS['unet']}** | | |\n| PSNR | 35 | 30 |" in text
    assert main_card(tmp_path, path) == 0 and path.read_bytes() == once
    path.write_text(f"{card.BEGIN_BARS}\n{card.END}")
    assert main_card(tmp_path, path) == 0
    assert "| CLIP R@1 | 0.5123 | 0.55 |" in path.read_text() and "critic" not in path.read_text()


def main_card(folder: Path, *documents: Path) -> int:
    """`evaluate --card` from figures that an earlier run printed."""
    measured = folder / "figures.json"
    measured.write_text(json.dumps(FIGURES))
    return main(["evaluate", "--figures", str(measured), "--card", *map(str, documents)])


def test_documents_without_markers_are_refused_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.evaluation.cli.read_data", lambda *_: pytest.fail("it measured"))
    good, bad = tmp_path / "good.md", tmp_path / "bad.md"
    good.write_text(f"{card.BEGIN}\n{card.END}")
    bad.write_text(f"{card.END}\n{card.BEGIN}")
    for document in (bad, tmp_path / "missing.md"):
        assert main(["evaluate", "--card", str(good), str(document)]) == 2
        assert document.name in capsys.readouterr().err
    assert good.read_text() == f"{card.BEGIN}\n{card.END}"
    assert main(["evaluate", "--quick", "--card", str(good)]) == 2
    assert "--quick" in capsys.readouterr().err


def test_figures_of_earlier_runs_are_joined_and_foreign_ones_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipelines.evaluation.figures import read_figures

    first, second = tmp_path / "first.json", tmp_path / "second.json"
    first.write_text(json.dumps(FIGURES))
    second.write_text(json.dumps({"unet": {"PSNR": 31}, "vqgan": {"SSIM": 0.9}}))
    joined = read_figures([first, second])
    assert list(joined) == ["retrieval", "vqgan", "unet"] and joined["unet"] == {"PSNR": 31}
    for words in ("{", "[]", '{"unet": 3}', '{"unet": {"PSNR": "x"}}', '{"fly": {"x": 1}}'):
        second.write_text(words)
        with pytest.raises(BadInput):
            read_figures([second])


@pytest.mark.usefixtures("_tiny")
def test_edits_of_another_style_are_judged_before_and_after(
    data_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--data", str(data_file), "--only", "outside", "--outside", "1", "--json"]
    assert main(["evaluate", *flags]) == 2 and "launch.py data --outside" in capsys.readouterr().err
    apple = svg('<path d="M2 3L13 5L6 14z" fill="#c03020"/>')
    names = {source.replace(" ", "-") for source, _ in OUTSIDE_EDITS}
    write_outside(data_file.with_name(OUTSIDE_NAME), dict.fromkeys(names, apple))
    sheet = tmp_path / "sheet.png"
    assert main(["evaluate", *flags, "--outside-sheet", str(sheet)]) == 0
    figures = json.loads(capsys.readouterr().out)["outside"]
    assert set(figures) == {"critic, won", "critic, won before the edit", "SSIM"}
    assert figures["critic, won"] in (0, 1) and -1 <= figures["SSIM"] <= 1
    with Image.open(sheet) as shown:
        assert shown.width > shown.height > 100
