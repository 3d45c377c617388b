"""The Studio: what it loads, shares, replaces and refuses, and what makes room on a device."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pipelines.errors import BadInput
from pipelines.io.files import write_atomically
from pipelines.models.dalle_mini.tokenizer import DalleMiniTokenizer
from pipelines.models.device import dtype_of, networks_of, networks_to_offload, parameter_bytes
from pipelines.models.openai_clip.convert import tokenizer_from_merges, tokenizer_from_words
from pipelines.models.openai_clip.network import OpenaiClip, OpenaiClipConfig
from pipelines.models.openai_clip.tokenizer import ClipTokenizer, WordPieceTokenizer
from pipelines.models.source import Converted
from pipelines.models.spec import SPECS, families
from pipelines.models.taming_vqgan.network import TamingVqgan, TamingVqganConfig
from pipelines.studio import Studio
from pipelines.weights import catalog
from pipelines.weights.catalog import checkpoint_of, fields_for, memory_needed, needed
from pipelines.weights.convert import write_converted
from pipelines.weights.open_weights import OPEN_WEIGHTS
from tests.support.tiny import diffusion_folder

WORDS = 514  # of the vocabulary: bytes, bytes that end a word, start and end
CLIP = OpenaiClipConfig(
    image_size=16, image_width=32, image_head_count=1, embedding_size=8, text_width=32, text_layer_count=1,
    text_head_count=1, text_inner_width=32, patch_size=8, image_layer_count=1, image_inner_width=32,
    vocabulary_size=WORDS,
)  # fmt: skip
VQGAN = TamingVqganConfig(
    image_size=16, input_width=32, widths=(32, 32), block_count=1, attention_levels=(), latent_size=4,
    code_count=20, code_size=4,
)  # fmt: skip
OWN = ("vqgan-f16-16384", "clip-vit-b-32", "clip-vit-b-16")  # what Optimize of most packs is made of


def write_clip(path: Path, config: OpenaiClipConfig = CLIP, seed: int = 0) -> None:
    torch.manual_seed(seed)
    network = OpenaiClip(config, ClipTokenizer(tokenizer_from_merges([])))
    write_converted(path, Converted("openai-clip", config.to_dict(), network.state_dict()), {})


def write_vqgan(path: Path) -> None:
    torch.manual_seed(1)
    network = TamingVqgan(VQGAN)
    write_converted(path, Converted("taming-vqgan", VQGAN.to_dict(), network.state_dict()), {})


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of models that has what Optimize of most packs needs."""
    monkeypatch.setenv("ATELIER_MODELS", str(tmp_path))
    (tmp_path / "clip-tokenizer.json").write_text(tokenizer_from_merges([]).to_str(), "utf-8")
    write_vqgan(tmp_path / "vqgan-f16-16384.safetensors")
    for seed, name in enumerate(OWN[1:]):
        write_clip(tmp_path / f"{name}.safetensors", seed=seed)
    return tmp_path


def stand_ins(models: Path, pack: str) -> None:
    """Files that are there and nothing more, for what else a pack needs."""
    for one in needed(pack):
        if not one.present:
            one.path.write_bytes(b"not looked at")


# -------------------------------------------------------------------------------------------------- sharing, switching


def test_asked_twice_it_gives_the_same_objects(models: Path) -> None:
    studio = Studio("mini", "cpu")
    one, other = studio.pipeline("optimize"), studio.pipeline("optimize")
    for part in ("vqgan", "clip", "critic"):
        assert getattr(one, part) is getattr(other, part)
    assert one.clip is not one.critic and studio.clip() is one.clip  # type: ignore[attr-defined]
    assert one.clip.tokenizer is one.critic.tokenizer  # type: ignore[attr-defined]
    assert not any(value.requires_grad for value in one.vqgan.parameters())  # type: ignore[attr-defined]


def test_a_switch_without_the_files_is_refused_and_everything_stays(models: Path) -> None:
    studio = Studio("tiny", "cpu")
    before = studio.pipeline("optimize")
    missing = (
        "the pack mini needs dalle-mini-tokenizer, dalle-mini, vqgan-dalle-mini, ddpm-ema-celebahq-256; run: "
    )
    with pytest.raises(BadInput) as refused:
        studio.switch("mini")
    assert str(refused.value) == missing + "python launch.py models fetch dalle-mini-tokenizer"
    with pytest.raises(BadInput, match="pack 'huge' is not known"):
        studio.switch("huge")
    assert studio.pack == "tiny" and studio.pipeline("optimize").clip is before.clip  # type: ignore[attr-defined]


def test_what_two_packs_share_stays_loaded(models: Path) -> None:
    studio = Studio("mini", "cpu")
    before: Any = studio.pipeline("optimize")
    for pack in ("full", "mini", "malevich"):
        stand_ins(models, pack)
        studio.switch(pack)
        now: Any = studio.pipeline("optimize")
        assert studio.pack == pack
        assert all(getattr(now, part) is getattr(before, part) for part in ("vqgan", "clip", "critic"))
    studio.switch("tiny")
    assert studio.clip() is not before.clip
    studio.switch("mini")
    assert studio.clip() is not before.clip  # what the tiny pack does not need was let go


def test_models_are_named_with_their_hashes_for_the_record(models: Path) -> None:
    studio = Studio("mini", "cpu", {"critic": "clip-vit-b-32"})
    facts = studio.models("optimize")
    assert {part: fact["name"] for part, fact in facts.items()} == {
        "vqgan": "vqgan-f16-16384", "clip": "clip-vit-b-32", "critic": "clip-vit-b-32",
        "reader:clip-tokenizer": "clip-tokenizer",
    }  # fmt: skip
    assert facts["clip"] == facts["critic"] and facts["clip"]["sha256"] != facts["vqgan"]["sha256"]


def test_a_folders_hash_is_that_of_its_names_and_contents(models: Path) -> None:
    def hashed(change: str = "") -> str:
        folder = models / "stable-diffusion-1.5"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(diffusion_folder("1.5"), folder)
        if change == "renamed":
            (folder / "vae" / "config.json").rename(folder / "vae" / "config2.json")
        elif change:
            with open(folder / "vae" / "config.json", "a", encoding="utf-8") as file:
                file.write(" ")
        return Studio("sd-1.5", "cpu").models("diffuse")["diffusion"]["sha256"]

    plain = hashed()
    assert len(plain) == 64 and plain == hashed()
    assert len({plain, hashed("renamed"), hashed("longer")}) == 3


# ------------------------------------------------------------------------------------------------------------ replacing


def test_a_part_is_replaced_wherever_the_pack_has_it(models: Path) -> None:
    write_clip(models / "mine.safetensors", seed=7)
    studio = Studio("tiny", "cpu", {"clip": "mine"})
    pipeline: Any = studio.pipeline("optimize")
    assert isinstance(pipeline.clip, OpenaiClip) and not isinstance(pipeline.critic, OpenaiClip)
    assert pipeline.diffusion.clip is studio.load(
        "tiny-clip"
    )  # the prior reads by the CLIP that it was trained with
    assert studio.clip() is pipeline.clip and studio.models("generate")["clip"]["name"] == "mine"
    assert "clip-tokenizer" in [one.name for one in needed("tiny", {"clip": "mine"})]
    assert "clip-tokenizer" not in [one.name for one in needed("tiny")]
    assert catalog.parts("tiny", "edit", {"clip": "mine"})["critic"] == "tiny-critic"


def test_a_part_is_given_to_another_model_and_back_while_it_runs(models: Path) -> None:
    write_clip(models / "mine.safetensors")
    studio = Studio("tiny", "cpu")
    tiny = studio.clip()
    studio.choose("clip", "mine")
    assert isinstance(studio.clip(), OpenaiClip) and studio.use == {"clip": "mine"}
    assert studio.models("generate")["clip"]["name"] == "mine"
    for part, name in (("judge", "mine"), ("clip", "nothing"), ("vqgan", "mine"), ("clip", "clip-vit-l-14")):
        with pytest.raises(BadInput):
            studio.choose(part, name)
    assert studio.use == {"clip": "mine"}
    studio.choose("clip")
    assert studio.use == {} and type(studio.clip()) is type(tiny)
    shutil.copytree(diffusion_folder("1.5"), models / "my-diffusion")
    assert fields_for("tiny", checkpoint_of("my-diffusion")) == []
    with pytest.raises(BadInput, match="part 'diffusion' is not in the pack tiny"):
        studio.choose("diffusion", "my-diffusion")
    studio.choose("diffusion", "my-diffusion", "sd-1.5")
    assert studio.pack == "sd-1.5" and studio.models("diffuse")["diffusion"]["name"] == "my-diffusion"
    assert fields_for("tiny", checkpoint_of("mine")) == ["clip", "critic"]
    assert fields_for("mini", checkpoint_of("mine")) == ["clip", "critic"]
    assert fields_for("tiny", checkpoint_of("ddpm-church-256")) == ["unet"]
    assert fields_for("nothing", checkpoint_of("mine")) == []


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (
            {"judge": "tiny-clip"},
            "part 'judge' is not in the pack mini; it has clip, critic, dalle, tokenizer",
        ),
        ({"clip": "nothing"}, "model 'nothing' is not known; the models are tiny-tokenizer"),
        ({"clip": "vqgan-f16-16384"}, "vqgan-f16-16384 cannot be the clip.*try clip-vit-b-32"),
        ({"vqgan": "dalle-mini"}, "dalle-mini cannot be the vqgan"),
        ({"unet": "strange"}, "strange cannot be the unet"),
    ],
)
def test_only_what_fits_replaces_a_part(use: dict[str, str], words: str, models: Path) -> None:
    write_converted(models / "strange.safetensors", Converted("marvel", {}, {"x": torch.zeros(1)}), {})
    with pytest.raises(BadInput, match=words):
        Studio("mini", "cpu", use)
    Studio("mini", "cpu", {"clip": "tiny-critic", "critic": "tiny-clip"})  # each of them is a CLIP


def test_a_users_vocabulary_tells_what_it_is(models: Path) -> None:
    (models / "one.json").write_text(tokenizer_from_merges([]).to_str(), "utf-8")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "红"]
    (models / "two.json").write_text(tokenizer_from_words(words).to_str(), "utf-8")
    pieces = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "Ġ": 4, "a": 5}
    three = DalleMiniTokenizer(pieces, []).vocabulary.to_str()
    (models / "three.json").write_text(three, "utf-8")
    (models / "four.json").write_text("{}", "utf-8")
    studio = Studio("mini", "cpu")
    found = [type(studio.load(name)) for name in ("one", "two", "three")]
    assert found == [ClipTokenizer, WordPieceTokenizer, DalleMiniTokenizer]
    with pytest.raises(BadInput, match=r"four\.json is no vocabulary that is known here"):
        studio.load("four")


def test_a_model_that_was_trained_on_is_loaded_again(models: Path) -> None:
    write_clip(models / "mine.safetensors")
    studio = Studio("mini", "cpu", {"clip": "mine"})
    first, before = studio.load("mine"), studio.models("optimize")["clip"]["sha256"]
    assert studio.load("mine") is first
    data = (models / "mine.safetensors").read_bytes()
    write_atomically(models / "mine.safetensors", data[:-4] + b"\0\0\0\0")
    again = studio.load("mine")
    assert again is not first and studio.load("mine") is again
    assert studio.models("optimize")["clip"]["sha256"] != before


def test_a_users_clip_reads_with_the_vocabulary_of_its_kind(models: Path) -> None:
    write_clip(models / "mine.safetensors")
    write_converted(models / "yours.safetensors", Converted("chinese-clip", {}, {"x": torch.zeros(1)}), {})
    assert [checkpoint_of(name).spec.vocabulary for name in ("mine", "yours")] == [
        "clip-tokenizer", "clip-chinese-tokenizer",
    ]  # fmt: skip
    assert checkpoint_of("mine").role == "clip" and checkpoint_of("mine").pack == "own"


# ------------------------------------------------------------------------------------------------------------- refusing


def damaged(path: Path, how: str) -> None:
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif how == "text":
        path.write_text("<html>not found</html>")
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "other kind":
        write_converted(path, Converted("marvel", {}, {"x": torch.zeros(1)}), {})
    elif how == "other weights":
        write_converted(path, Converted("openai-clip", CLIP.to_dict(), {"x": torch.zeros(1)}), {})
    elif how == "no config":
        save_file({"x": torch.zeros(1)}, path, {"kind": "openai-clip"})
    else:
        values = {**CLIP.to_dict(), **json.loads(how)}
        write_converted(path, Converted("openai-clip", values, {"x": torch.zeros(1)}), {})


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("truncated", "is damaged|are damaged"),
        ("text", "are damaged"),
        ("empty", "are damaged"),
        ("other kind", "are of the kind 'marvel', which is not known"),
        ("other weights", "do not fit"),
        ("no config", "are damaged"),
        ('{"sides": 3}', "carry a strange config"),
        ('{"patch_size": 0}', "carry a strange config"),
        ('{"image_width": "wide"}', "carry a strange config"),
        (
            '{"vocabulary_size": 100}',
            "clip-vit-b-32 knows 100 tokens and the vocabulary clip-tokenizer has 514",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")  # of a layer that cannot be
def test_damaged_and_strange_files_are_refused_in_one_sentence(how: str, words: str, models: Path) -> None:
    damaged(models / "clip-vit-b-32.safetensors", how)
    studio = Studio("mini", "cpu")
    with pytest.raises(BadInput, match=words) as refused:
        studio.pipeline("optimize")
    assert "clip-vit-b-32" in str(refused.value) and "\n" not in str(refused.value)
    write_clip(models / "clip-vit-b-32.safetensors")
    assert isinstance(studio.clip(), OpenaiClip)  # nothing broken was kept


def test_what_a_pipeline_lacks_is_told_before_anything_is_loaded(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (models / "clip-vit-b-16.safetensors").unlink()
    (models / "clip-tokenizer.json").unlink()
    monkeypatch.setattr(Studio, "_read", lambda *_: pytest.fail("it was loaded"))
    with pytest.raises(BadInput) as refused:
        Studio("mini", "cpu").pipeline("optimize")
    assert str(refused.value) == (
        "optimize in the pack mini needs clip-vit-b-16, clip-tokenizer; run: python launch.py models fetch clip-vit-b-16"
    )


# ----------------------------------------------------------------------------------------------------- memory, precision


def test_the_heaviest_that_wait_leave_first_and_only_as_many_as_must() -> None:
    wanted, light, middle, heavy = (nn.Linear(size, 1, bias=False) for size in (10, 20, 30, 40))
    assert [parameter_bytes(one) for one in (wanted, heavy)] == [40, 160]
    waiting = [light, heavy, middle]
    assert networks_to_offload([wanted], waiting, 400) == []
    assert networks_to_offload([wanted], waiting, 399) == [heavy]
    assert networks_to_offload([wanted], waiting, 239) == [heavy, middle]
    assert networks_to_offload([wanted], waiting, 0) == [heavy, middle, light]


def test_a_diffusers_pipeline_is_the_networks_in_it(models: Path) -> None:
    shutil.copytree(diffusion_folder("1.5"), models / "stable-diffusion-1.5")
    studio = Studio("sd-1.5", "cpu")
    pipeline: Any = studio.pipeline("diffuse")
    inside = networks_of(pipeline.diffusion.pipe)
    assert {id(one) for one in inside} == {
        id(getattr(pipeline.diffusion.pipe, name)) for name in ("unet", "vae", "text_encoder")
    }
    assert networks_of(pipeline.clip) == [pipeline.clip] and networks_of(pipeline.clip.tokenizer) == []


def test_shapes_without_memory_can_be_had_after_diffusers_was_used(models: Path) -> None:
    """In a process of its own, since torch remembers what it found first; the converters need such shapes."""
    program = f"""
import torch
from pipelines.models.stable_diffusion.load import load_diffusers
load_diffusers({str(diffusion_folder("1.5"))!r}, torch.device("cpu"))
with torch.device("meta"):
    assert torch.linspace(0, 1, 2).is_meta
"""
    assert subprocess.run([sys.executable, "-c", program], cwd=catalog.ASSETS.parent).returncode == 0


def test_half_precision_is_for_large_networks_on_a_gpu() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda", 0)
    assert {dtype_of(kind, cpu) for kind in SPECS} == {torch.float32}
    assert {kind for kind in SPECS if dtype_of(kind, gpu) == torch.bfloat16} == {
        "openai-clip", "chinese-clip", "dalle-mini", "rudalle", "dalle-pytorch", "siglip", "flow",
    }  # fmt: skip
    assert dtype_of("taming-vqgan", gpu) == torch.float32 and dtype_of("diffusion", gpu) == torch.float16


def test_memory_is_the_sum_of_the_parts(models: Path) -> None:
    parts = ("vqgan-f16-16384", "clip-vit-l-14", "clip-vit-b-16")
    assert memory_needed("mini", "optimize", {"clip": "clip-vit-l-14"}) == sum(
        OPEN_WEIGHTS[name].memory for name in parts
    )
    assert memory_needed("full", "generate") > memory_needed("mini", "generate") > 2e9
    assert memory_needed("tiny", "generate") == 0
    write_clip(models / "mine.safetensors")
    assert memory_needed("tiny", "optimize", {"clip": "mine"}) == 2 * checkpoint_of("mine").size


def test_every_pack_names_known_models_of_the_right_kind() -> None:
    for pack, pipelines in catalog.PACKS.items():
        for parts in pipelines.values():
            catalog.check_use(pack, parts)
        assert {one.pack for one in needed(pack)} == {"tiny" if pack == "tiny" else "full"}
    own = {spec.kind for rows in families().values() for spec in rows}  # what a user may add
    assert own == {kind for kind, spec in SPECS.items() if spec.network} - {
        "clip", "vqgan", "dvae", "dalle", "dalle-semantic", "transformer", "unet", "prior", "judge", "matting",
    }  # fmt: skip


def test_a_unet_of_pixels_takes_the_place_of_edits_prior_and_of_nothing_else() -> None:
    use = {"unet": "tiny-unet"}
    catalog.check_use("tiny", use)
    judges = {"clip": "tiny-clip", "critic": "tiny-critic", "pictures": "tiny-pictures"}
    assert catalog.parts("tiny", "edit", use) == {"unet": "tiny-unet", **judges}
    assert catalog.parts("tiny", "diffuse", use) == catalog.parts("tiny", "diffuse")
    with pytest.raises(BadInput, match="unet"):
        catalog.check_use("tiny", {"unet": "tiny-vqgan"})
