"""The full pack as a user meets it: published files with random weights are added, then every verb draws with them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image

import pipelines.core.execute
import pipelines.studio as studio
import tests.pipelines.models.test_dalle_pytorch as dalle_pytorch
import tests.pipelines.models.test_openai_dvae as dvae
import tests.pipelines.models.test_rudalle as rudalle
import tests.pipelines.models.test_taming_vqgan as taming
import tests.support.openai_clip as published_clip
from app.cli.main import main
from pipelines.core.pipeline import Result
from pipelines.core.record import read_record
from pipelines.generate.pipeline import Generate
from pipelines.generate.settings import GenerateSettings
from pipelines.models.openai_clip.convert import byte_letters
from pipelines.models.spec import SPECS
from pipelines.optimize.settings import OptimizeSettings
from pipelines.weights.open_weights import OPEN_WEIGHTS
from tests.pipelines.models.test_dalle_pytorch import reference as dalle_pytorch_code  # noqa: F401, a fixture
from tests.pipelines.models.test_rudalle import reference as rudalle_code  # noqa: F401, a fixture
from tests.support.dalle_mini import made_up_words, small_shapes, tokenizer_files
from tests.support.ddpm import diffusers_unet
from tests.support.pictures import size_of
from tests.support.tiny import diffusion_folder

GRID, CODES = 4, 50  # of both DALL·Es and of all VQGANs
MERGES = ["r e", "re d</w>", "a n"]


# ------------------------------------------------------------------------------------ what their publishers would give


def clip_words(folder: Path) -> list[Path]:
    """vocab.json and merges.txt: OpenAI's bytes and three merges."""
    letters = byte_letters()
    words = [*letters, *(f"{letter}</w>" for letter in letters), *(one.replace(" ", "") for one in MERGES)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    files = [folder / "vocab.json", folder / "merges.txt"]
    files[0].write_text(json.dumps({word: k for k, word in enumerate(words)}), "utf-8")
    files[1].write_text("\n".join(["#version: 0.2", *MERGES, ""]), "utf-8")
    return files


def openai_clip(path: Path, size: int, image: tuple[Any, ...], archive: bool = False) -> Path:
    """As OpenAI's download: a TorchScript archive, or its state_dict, with the three sizes among the tensors.

    `image` is layers, width and patch; vectors are as long as the picture is wide.
    """
    words = 2 * 256 + len(MERGES) + 2
    network = published_clip.shuffled(
        published_clip.openai_code().CLIP(size, size, *image, 77, words, 64, 1, 1), seed=size
    )
    for name, value in {"input_resolution": size, "context_length": 77, "vocab_size": words}.items():
        delattr(network, name) if hasattr(network, name) else None
        network.register_buffer(name, torch.tensor(value))
    if archive:
        example = (torch.zeros(1, 3, size, size), published_clip.texts(words, 77))
        torch.jit.save(torch.jit.trace(network, example, check_trace=False), path)
    else:
        torch.save(network.state_dict(), path)
    return path


def chinese_clip(folder: Path) -> Path:
    """pytorch_model.bin and config.json in a folder of their own."""
    reference = published_clip.chinese_clip()
    inside = folder / "chinese"
    inside.mkdir(exist_ok=True)
    torch.save(reference.state_dict(), inside / "pytorch_model.bin")
    (inside / "config.json").write_text(reference.config.to_json_string(), "utf-8")
    return inside


def dalle_mini_halves(folder: Path) -> list[Path]:
    """encoder_mini.pt and decoder_mini.pt, without the scales of 1 that are not published."""
    width, words = 64, len(made_up_words()[0])
    shapes = small_shapes(width)
    shapes |= {
        "encoder.embed_tokens.weight": (words, width),
        "encoder.embed_positions.weight": (12, width),
        "decoder.embed_tokens.weight": (CODES + 1, width),
        "decoder.embed_positions.weight": (GRID * GRID, width),
        "decoder.lm_head.weight": (CODES + 1, width),
    }
    generator = torch.Generator().manual_seed(8)
    files = []
    for half in ("encoder", "decoder"):
        tensors = {
            name.removeprefix(f"{half}."): 0.3 * torch.randn(shape, generator=generator)
            for name, shape in shapes.items()
            if name.startswith(f"{half}.")
        }
        files.append(folder / f"{half}_mini.pt")
        torch.save(tensors, files[-1])
    return files


def vqgans(folder: Path) -> dict[str, Path]:
    """One of each published form: a Lightning checkpoint, dalle-mini's Flax, Sber's checkpoint."""
    plain = taming.Reference.scattered(taming.TINY | {"num_res_blocks": 1}, CODES, 8)
    sizes = taming.TINY | {"num_res_blocks": 1, "z_channels": 8}
    gumbel = taming.Reference.scattered(sizes, CODES, 8, gumbel=True)
    files = {name: folder / f"{name}.ckpt" for name in ("vqgan-f16-16384", "vqgan-rudalle")}
    files["vqgan-dalle-mini"] = folder / "flax_model.msgpack"
    hyper = {"ddconfig": {"resolution": 32}}
    torch.save({"state_dict": plain.state_dict(), "hyper_parameters": hyper}, files["vqgan-f16-16384"])
    state = {f"model.{name}": one for name, one in gumbel.state_dict().items()}
    torch.save(state, files["vqgan-rudalle"])
    files["vqgan-dalle-mini"].write_bytes(taming.flax_file(plain.state_dict()))
    return files


def originals(folder: Path, rudalle_model: ModuleType) -> dict[str, list[Path]]:
    """Name in the full pack -> the files (or the folder) to add."""
    malevich = rudalle.original_of(
        rudalle_model, 3, image_tokens_per_dim=GRID, image_vocab_size=CODES, num_layers=2, hidden_size=64,
        num_attention_heads=1,
    )  # fmt: skip
    torch.save(malevich.state_dict(), folder / "pytorch_model_v3.bin")
    (folder / "bpe.model").write_text("\n".join(rudalle.vocabulary_lines()) + "\n", "utf-8")
    (folder / "vocab.txt").write_text("\n".join(published_clip.WORDS), "utf-8")
    diffusers_unet().save_pretrained(folder / "faces", safe_serialization=False)
    modules = zip(("encoder.pkl", "decoder.pkl"), dvae.reference(), strict=True)
    for name, module in modules:
        torch.save(module, folder / name)
    tokenizer_files(folder)
    return {
        "clip-tokenizer": clip_words(folder),
        "clip-vit-b-32": [openai_clip(folder / "ViT-B-32.pt", 32, (1, 64, 16), archive=True)],
        "clip-vit-b-16": [openai_clip(folder / "ViT-B-16.pt", 24, (1, 64, 8))],
        "clip-rn50": [openai_clip(folder / "RN50.pt", 64, ((1, 1, 1, 1), 8, None))],
        "clip-chinese-tokenizer": [folder / "vocab.txt"],
        "clip-chinese-vit-b-16": [chinese_clip(folder)],
        "dalle-mini-tokenizer": [folder / "vocab_mini.json", folder / "merges_mini.txt"],
        "dalle-mini": dalle_mini_halves(folder),
        **{name: [path] for name, path in vqgans(folder).items()},
        "rudalle-tokenizer": [folder / "bpe.model"],
        "rudalle-malevich": [folder / "pytorch_model_v3.bin"],
        "openai-dvae": [folder / "encoder.pkl", folder / "decoder.pkl"],
        "ddpm-ema-celebahq-256": [folder / "faces"],
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def filled(folder: Path, rudalle_code: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """A folder of models to which every original was added by the command."""
    given = originals(tmp_path_factory.mktemp("originals"), rudalle_code)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATELIER_MODELS", str(folder))
        for name, paths in given.items():
            assert main(["models", "add", *map(str, paths), "--name", name]) == 0, name
    shutil.copytree(diffusion_folder("1.5"), folder / "stable-diffusion-1.5")
    return folder


@pytest.fixture(autouse=True)
def models(filled: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATELIER_MODELS", str(filled))
    monkeypatch.setenv("ATELIER_DEBUG", "1")  # a fault is a traceback here
    return filled


@pytest.fixture
def elsewhere(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another folder with the same models, in which a test may do as it likes."""
    path = tmp_path / "elsewhere"
    path.mkdir()
    for one in models.iterdir():
        (path / one.name).symlink_to(one)
    monkeypatch.setenv("ATELIER_MODELS", str(path))
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> dict[str, Any]:
    """The JSON that a command prints."""
    capsys.readouterr()
    assert main([*map(str, arguments), "--device", "cpu", "--json"]) == code
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one sentence with which a command refuses."""
    capsys.readouterr()
    assert main([*map(str, arguments)]) == 2
    told = capsys.readouterr()
    assert not told.out
    *before, sentence = told.err.strip().split("\n")
    assert all(one.startswith("atelier: loading") for one in before) and sentence.startswith("atelier: ")
    return sentence


@pytest.fixture
def portrait(tmp_path: Path) -> Path:
    """24 x 24 pixels."""
    path = tmp_path / "portrait.png"
    Image.effect_mandelbrot((24, 24), (-2, -1.5, 1, 1.5), 20).convert("RGB").save(path)
    return path


# -------------------------------------------------------------------------------------------------------------- tests


GENERATE = ("--candidates", 3, "--keep", 2, "--batch", 3)
OPTIMIZE = ("--steps", 3, "--cutouts", 4)
COMMANDS: dict[str, tuple[object, ...]] = {
    "mini draws": ("generate", "a red cat with a hat", "--pack", "mini", *GENERATE),
    "malevich draws": ("generate", "кот", "--pack", "malevich", *GENERATE),
    "full paints": ("optimize", "a red cat", "--pack", "full", *OPTIMIZE),
    "mini paints": ("optimize", "a red cat:2 | a hat:-1", "--pack", "mini", "--size", "24x16", *OPTIMIZE),
    "chinese paints": ("optimize", "一只红色的狐狸", "--pack", "chinese", *OPTIMIZE),
    "mini paints by another codec": (
        "optimize", "a cat", "--pack", "mini", "--use", "vqgan=openai-dvae", "--size", "32x24", *OPTIMIZE,
    ),
    "mini paints by another judge": ("optimize", "a cat", "--pack", "mini", "--use", "clip=clip-rn50", *OPTIMIZE),
    "stable diffusion draws": ("diffuse", "a cat", "--pack", "sd-1.5", "--candidates", 2, "--steps", 2),
}  # fmt: skip


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS.keys())
def test_a_pack_makes_pictures_that_can_be_made_again(
    arguments: tuple[object, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = run(capsys, *arguments, "--out", tmp_path)
    path = told["pictures"][0]["path"]
    record = read_record(path, studio.PIPELINES)
    assert record.pack == arguments[arguments.index("--pack") + 1]
    assert all(len(fact["sha256"]) == 64 for fact in record.models.values())
    assert run(capsys, "replay", path)["identical"]


@pytest.mark.parametrize("mode", ["instant", "quick"])
def test_a_portrait_is_edited(
    mode: str, portrait: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--source", "a face", "--target", "an angry face", "--mode", mode, "--steps", 2, "--strip", 2)
    flags += ("--updates", 2) if mode == "quick" else ()
    told = run(capsys, "edit", portrait, "--pack", "mini", *flags, "--out", tmp_path)
    by_strength = {one["strength"]: one["path"] for one in told["pictures"]}
    original = Image.open(portrait)
    assert Image.open(by_strength[0.0]).tobytes() == original.tobytes()
    assert Image.open(by_strength[1.0]).tobytes() != original.tobytes()
    assert run(capsys, "replay", by_strength[1.0])["identical"]


def test_a_direction_is_learned_from_ones_own_pictures(
    portrait: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--source", "a face", "--target", "an angry face", "--steps", 2, "--strip", 1, "--updates", 1)
    flags = ("edit", portrait, "--pack", "mini", *flags, "--out", tmp_path)
    assert "give --source-images" in refused(capsys, *flags, "--mode", "reusable")
    Image.open(portrait).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "other.png")
    lessons, kept = f"{portrait} | {tmp_path / 'other.png'}", tmp_path / "angry.safetensors"
    run(capsys, *flags, "--mode", "reusable", "--source-images", lessons, "--save-direction", kept)
    told = run(
        capsys, "edit", portrait, "--pack", "mini", "--direction", kept, "--steps", 2, "--out", tmp_path
    )
    assert told["record"]["settings"]["prompt"] == "an angry face"


def test_a_pack_without_pictures_asks_for_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert "give an image" in refused(capsys, "edit", "--pack", "mini")


def test_a_prompt_decides_what_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = [
        run(capsys, "generate", prompt, "--pack", pack, "--candidates", 1, "--out", tmp_path)["pictures"][0]
        for pack, prompt in (("mini", "a red cat"), ("mini", "a hat"), ("malevich", "кот"), ("malevich", "ш"))
    ]
    assert all(len(one["tokens"]) == GRID * GRID for one in drawn)
    assert drawn[0]["tokens"] != drawn[1]["tokens"] and drawn[2]["tokens"] != drawn[3]["tokens"]
    sizes = [size_of(one["path"]) for one in drawn]
    assert sizes == [(16, 16)] * 4


PROMPTS = ("many words " * 40, "кот " * 90, "红心与猫", "😀")


@pytest.mark.parametrize("pack", ["mini", "malevich"])
def test_any_prompt_can_be_read(pack: str) -> None:
    loaded = studio.Studio(pack, "cpu")
    generate = loaded.pipeline("generate")
    assert isinstance(generate, Generate)
    assert generate.read_prompt(PROMPTS[0]).cut
    for prompt in PROMPTS:
        *_, result = pipelines.core.execute.run(
            generate, GenerateSettings(prompt=prompt, candidates=1, batch=1)
        )
        assert isinstance(result, Result) and len(result.pictures) == 1
    optimize = loaded.pipeline("optimize")
    *_, result = pipelines.core.execute.run(optimize, OptimizeSettings(prompt=PROMPTS[0], steps=1, cutouts=1))
    assert isinstance(result, Result)


@pytest.mark.parametrize("codec", ["vqgan-f16-16384", "openai-dvae"])
def test_a_picture_is_the_start_of_a_seamless_tile(
    codec: str, portrait: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--image", portrait, "--image-prompts", portrait, "--tile", "--coarse", 1, "--mask", portrait)
    flags += ("--use", f"vqgan={codec}", "--video", tmp_path / "film.webp", *OPTIMIZE)
    told = run(capsys, "optimize", "a hat", "--pack", "mini", *flags, "--out", tmp_path)
    path = told["pictures"][0]["path"]
    assert size_of(path) == (24, 24) and (tmp_path / "film.webp").stat().st_size
    assert run(capsys, "replay", path)["identical"]


def test_a_picture_can_be_completed(
    portrait: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--pack", "mini", "--image", portrait, "--keep-rows", 2, "--candidates", 2, "--out", tmp_path)
    first, second = run(capsys, "generate", "a red cat", *flags)["pictures"]
    assert first["tokens"][: 2 * GRID] == second["tokens"][: 2 * GRID]


def test_ones_own_models_take_any_part(
    models: Path, elsewhere: Path, dalle_pytorch_code: ModuleType, tmp_path: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A DALL·E of dalle-pytorch with its dVAE, a Chinese CLIP, a vocabulary and a diffusers folder under other names."""
    theirs, told = dalle_pytorch.trained(dalle_pytorch_code, num_text_tokens=520)
    checkpoint = dalle_pytorch.saved(theirs, told, tmp_path / "dalle.pt")
    for name, family in (("my-dalle", "dalle_pytorch"), ("my-vae", "dalle_pytorch_vae")):
        run_models(capsys, "add", checkpoint, "--name", name, "--family", family)
    words = clip_words(tmp_path)
    run_models(capsys, "add", *words, "--name", "my-words", "--family", "clip_tokenizer")
    run_models(capsys, "add", chinese_clip(tmp_path), "--name", "my-clip")
    (elsewhere / "my-diffusion").symlink_to(models / "stable-diffusion-1.5")
    parts = ("dalle=my-dalle", "vqgan=my-vae", "tokenizer=my-words", "clip=my-clip")
    use = [word for part in parts for word in ("--use", part)]
    told = run(capsys, "generate", "红色", "--pack", "mini", *use, *GENERATE, "--out", tmp_path)
    own = {part.split("=")[1] for part in parts}
    assert {model["name"] for model in told["record"]["models"].values()} == own | {"clip-chinese-tokenizer"}
    assert run(capsys, "replay", told["pictures"][0]["path"])["identical"]
    mismatched = refused(capsys, "generate", "红色", "--pack", "mini", "--use", "vqgan=my-vae")
    assert f"draws with {CODES} image tokens and this codec has {dalle_pytorch.CODES}" in mismatched
    use = ["--use", "diffusion=my-diffusion", "--candidates", "1", "--steps", "1"]
    told = run(capsys, "diffuse", "a cat", "--pack", "sd-1.5", *use, "--out", tmp_path)
    assert told["record"]["models"]["diffusion"]["name"] == "my-diffusion"


def test_what_is_removed_is_asked_for(
    elsewhere: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("clip-vit-b-32", "stable-diffusion-1.5"):
        run_models(capsys, "remove", name)
        assert not list(elsewhere.glob(f"{name}*")) and list(models.glob(f"{name}*"))
    assert "models fetch clip-vit-b-32" in refused(capsys, "optimize", "x", "--pack", "mini")
    folder = diffusion_folder("1.5")
    told = refused(capsys, "models", "add", folder, "--name", "stable-diffusion-1.5")
    assert f"copy it to {elsewhere / 'stable-diffusion-1.5'}" in told
    assert told.replace("stable-diffusion-1.5", "mine") == refused(
        capsys, "models", "add", folder, "--name", "mine"
    )


def run_models(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["models", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_what_was_added_is_listed(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {one["name"]: one for one in run_models(capsys)["models"]}
    there = {name for name in OPEN_WEIGHTS if rows[name]["there"]}
    assert there == {path.stem if path.is_file() else path.name for path in models.iterdir()}
    assert len(there) == 16
    for name in there:
        assert rows[name]["pack"] == "full" and 0 < rows[name]["bytes"] < 20e6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            "generate x --pack full",
            r"dalle-mega-tokenizer, dalle-mega; run: .* models fetch dalle-mega-tokenizer",
        ),
        ("edit --pack church", "ddpm-ema-church-256; run: python launch.py models fetch ddpm-ema-church-256"),
        ("optimize x --pack mini --use clip=clip-vit-l-14", "models fetch clip-vit-l-14"),
        ("diffuse x --pack sd-turbo", "models fetch sd-turbo"),
        ("generate x --pack sd-1.5", "pipeline 'generate' is not in the pack sd-1.5"),
        ("optimize x --pack huge", "pack 'huge' is not known; try tiny, full"),
        ("optimize x --pack mini --use judge=clip-rn50", "part 'judge' is not in the pack mini; it has clip"),
        (
            "optimize x --pack mini --use clip=clip-rn51",
            "model 'clip-rn51' is not known; the models are tiny",
        ),
        ("optimize x --pack mini --use clip=../x", "model '../x' is not known"),
        ("optimize x --pack mini --use clip", "'clip' is not PART=MODEL"),
        (
            "optimize x --pack mini --use clip=openai-dvae",
            "openai-dvae cannot be the clip.*try clip-vit-b-32",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(
    arguments: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert re.search(words, refused(capsys, *arguments.split()))


HALF: dict[str, tuple[object, ...]] = {
    name: COMMANDS[name]
    for name in ("mini draws", "malevich draws", "chinese paints", "mini paints by another judge")
}
HALF["mini edits"] = (
    "edit", "PORTRAIT", "--pack", "mini", "--mode", "quick", "--steps", 2, "--strip", 2, "--updates", 1,
)  # fmt: skip


@pytest.mark.parametrize("arguments", HALF.values(), ids=HALF.keys())
def test_packs_work_in_half_precision(
    arguments: tuple[object, ...],
    portrait: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What a GPU computes in half precision, done so on the processor."""
    halved: list[str] = []

    def dtype_of(kind: str, _: torch.device) -> torch.dtype:
        if SPECS[kind].half != "bfloat16":
            return torch.float32
        halved.append(kind)
        return torch.bfloat16

    monkeypatch.setattr(studio, "dtype_of", dtype_of)
    arguments = tuple(portrait if argument == "PORTRAIT" else argument for argument in arguments)
    told = run(capsys, *arguments, "--out", tmp_path)
    assert halved and -1 <= told["pictures"][0]["score"] <= 1
