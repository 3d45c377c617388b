"""Records of other programs, read as text from the three formats."""

from __future__ import annotations

import io
import json
import struct
import time
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from app.library import Foreign, Library, read_query
from app.library.exif import XMP, exif_texts
from app.library.foreign import foreign_of, read_foreign
from tests.support.library import ColourClip

A1111 = (
    "a steampunk owl, <lora:brass:0.8>\nin the rain\nNegative prompt: blurry, (hands:1.2)\n"
    'Steps: 20, Sampler: "DPM++ 2M, Karras", CFG scale: 7, Seed: 1234567890, Size: 512x512, Model: dreamy_v3'
)
COMFY = {
    "3": {
        "class_type": "KSampler",
        "inputs": {"seed": 77, "steps": 20, "positive": ["6", 0], "negative": ["7", 0]},
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sdxl.safetensors"}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "watermark", "clip": ["4", 1]}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": ["9", 0], "clip": ["4", 1]}},
    "9": {"class_type": "Text", "inputs": {"string": "a glass pagoda"}},
}
INVOKE = {
    "positive_prompt": "a tin robot",
    "negative_prompt": "rust",
    "seed": 5,
    "model": {"name": "sd-1", "hash": "x"},
}
OLD_INVOKE = {
    "image": {"prompt": [{"prompt": "a paper ship", "weight": 1}], "seed": 9},
    "model_weights": "sd-1.4",
}
FOOOCUS = {"prompt": "a velvet fox", "negative_prompt": "", "seed": "42", "base_model": "jugger", "steps": 30}


def png(**texts: str) -> bytes:
    info, buffer = PngInfo(), io.BytesIO()
    for name, text in texts.items():
        info.add_itxt(name.replace("_", "-") if name == "sd_metadata" else name, text)
    Image.new("RGB", (8, 8), "teal").save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def with_exif(kind: str, tags: dict[int, object], inner: dict[int, object]) -> bytes:
    exif, buffer = Image.Exif(), io.BytesIO()
    for tag, value in tags.items():
        exif[tag] = value
    if inner:
        exif[0x8769] = inner
    Image.new("RGB", (8, 8), "teal").save(buffer, kind, exif=exif)
    return buffer.getvalue()


def comment(text: str) -> dict[int, object]:
    return {0x9286: b"UNICODE\0" + text.encode("utf-16-be")}


FILES = {
    "a1111.png": (png(parameters=A1111), ("a1111", "1234567890", "dreamy_v3"), "a steampunk owl, <lora:brass"),
    "a1111.jpg": (with_exif("JPEG", {}, comment(A1111)), ("a1111", "1234567890", "dreamy_v3"), "a steampunk owl"),
    "comfyui.png": (png(prompt=json.dumps(COMFY)), ("comfyui", "77", "sdxl.safetensors"), "a glass pagoda"),
    "comfyui.webp": (
        with_exif("WEBP", {0x0110: "prompt:" + json.dumps(COMFY)}, {}),
        ("comfyui", "77", "sdxl.safetensors"),
        "a glass pagoda",
    ),
    "invokeai.png": (png(invokeai_metadata=json.dumps(INVOKE)), ("invokeai", "5", "sd-1"), "a tin robot"),
    "sd-metadata.png": (png(sd_metadata=json.dumps(OLD_INVOKE)), ("invokeai", "9", "sd-1.4"), "a paper ship"),
    "dream.png": (png(Dream='"a wax moon" -s 50 -S 314 -W 512'), ("invokeai", "314", ""), "a wax moon"),
    "fooocus.png": (
        png(parameters=json.dumps(FOOOCUS), fooocus_scheme="fooocus"), ("fooocus", "42", "jugger"), "a velvet fox",
    ),
    "fooocus.jpg": (with_exif("JPEG", {}, comment(json.dumps(FOOOCUS))), ("fooocus", "42", "jugger"), "a velvet fox"),
    "lines below.png": (
        png(parameters=A1111 + "\nTemplate: a {steampunk|brass} owl\nNegative Template: blurry"),
        ("a1111", "1234567890", "dreamy_v3"), "a steampunk owl",
    ),
    "novelai.png": (
        png(Title="NovelAI generated image", Description="a fox, {{best quality}}", Software="NovelAI",
            Source="NovelAI Diffusion V4", Comment=json.dumps({"prompt": "x", "uc": "bad", "seed": 11})),
        ("novelai", "11", "NovelAI Diffusion V4"), "a fox, {{best quality}}",
    ),
    "swarmui.png": (
        png(parameters=json.dumps({"sui_image_params": {"prompt": "a jade frog", "seed": 21, "model": "m"}})),
        ("swarmui", "21", "m"), "a jade frog",
    ),
    "drawthings.png": (
        png(**{"XML:com.adobe.xmp": '<x:xmpmeta><exif:UserComment><rdf:Alt><rdf:li xml:lang="x-default">'
               "{&quot;c&quot;:&quot;an ice cat&quot;,&quot;uc&quot;:&quot;&quot;,&quot;seed&quot;:31,"
               "&quot;model&quot;:&quot;flux&quot;}</rdf:li></rdf:Alt></exif:UserComment></x:xmpmeta>"}),
        ("drawthings", "31", "flux"), "an ice cat",
    ),
    "easydiffusion.png": (
        png(prompt="a wool bear", seed="41", num_inference_steps="25", use_stable_diffusion_model="sd"),
        ("easydiffusion", "41", "sd"), "a wool bear",
    ),
    "tensorart.png": (
        png(generation_data=json.dumps(
            {"prompt": "a silk bird", "seed": "51", "baseModel": {"modelFileName": "x"}}
        ) + "\0"),
        ("tensorart", "51", "x"), "a silk bird",
    ),
    "midjourney.png": (
        png(Description="https://a.b/c.png a clay whale, dusk --ar 3:2 --seed 61 --v 6 Job ID: 12345678-aaaa"),
        ("midjourney", "61", ""), "a clay whale, dusk",
    ),
    "mochi.jpg": (
        with_exif("JPEG", {0x010E: "Include in Image: a tin deer; Exclude from Image: rust; Model: m; Steps: 9; "
                  "Seed: 71; Generator: Mochi Diffusion 5"}, {}),
        ("mochi", "71", "m"), "a tin deer",
    ),
    "flux.png": (png(prompt=json.dumps({
        "1": {"class_type": "CLIPTextEncodeFlux", "inputs": {"t5xxl": "a moss stag", "guidance": 3.5}},
        "2": {"class_type": "BasicGuider", "inputs": {"conditioning": ["1", 0]}},
        "3": {"class_type": "RandomNoise", "inputs": {"noise_seed": ["4", 0]}},
        "4": {"class_type": "PrimitiveInt", "inputs": {"value": 81}},
    })), ("comfyui", "81", ""), "a moss stag"),
    "words.png": (png(Description="a chalk circle"), ("other", "", ""), "a chalk circle"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_what_other_programs_wrote(name: str) -> None:
    data, (tool, seed, model), prompt = FILES[name]
    found = foreign_of(data)
    assert found is not None
    assert (found.tool, found.seed, found.model) == (tool, seed, model)
    assert found.prompt.startswith(prompt) and "Job ID" not in found.prompt and "Template" not in found.prompt
    assert prompt.split("\n")[0] in found.text


def test_a_studio_that_only_says_that_a_machine_drew_it() -> None:
    for sign, tool in (("OpenAI", "openai"), ("Adobe Firefly", "firefly"), ("some Co.", "machine")):
        found = foreign_of(png(**{"XML:com.adobe.xmp": f"<x>{sign} trainedAlgorithmicMedia</x>"}))
        assert found is not None and (found.tool, found.prompt, found.seed) == (tool, "", "")
    assert foreign_of(png(**{"XML:com.adobe.xmp": "<x>Google Pixel</x>"})) is None  # a camera's


def test_they_are_searched_beside_pictures_that_say_nothing(tmp_path: Path) -> None:
    home, folder = tmp_path / "outputs", tmp_path / "strangers"
    folder.mkdir()
    for number, (name, (data, _, _)) in enumerate(FILES.items()):
        (folder / name.upper()).write_bytes(data[:-20] + data[-20:])
        shade = 12 * number
        Image.new("RGB", (8, 8), (shade, 99, 9)).save(folder / f"plain {number}.jpg")
    library, clip = Library(folder, outputs=home), ColourClip()
    assert library.count() == 2 * len(FILES)
    library.fill(clip)
    for query, name in (
        (read_query("glass pagoda", stacked=False), "COMFYUI.PNG"),
        (read_query(words="Karras", stacked=False), "A1111.PNG"),
        (read_query(tool="fooocus", seed=42, stacked=False), "FOOOCUS.PNG"),
        (read_query(model="SDXL", stacked=False), "COMFYUI.PNG"),
        (read_query(words="plain 7"), "plain 7.jpg"),
    ):
        found = library.page(query, 0, 48, clip).found
        assert name in [each.entry.id for each in found[:3]], query
    assert library.find("A1111.JPG").text.endswith("dreamy_v3")
    assert library.choices()["tool"]["comfyui"] == 3
    told = library.page(read_query("velvet fox", stacked=False), 0, 48, clip).found
    assert [each.told for each in told] == [True] * 2 + [False] * (2 * len(FILES) - 2)


BROKEN_EXIF = {
    "an offset beyond": b"Exif\0\0II*\0\xff\xff\xff\x7f",
    "a circle": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\0\0\0\0",
    "no order": b"Exif\0\0XX*\0\x08\0\0\0",
    "a huge text": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x0e\x01\x02\0\xff\xff\xff\x7f\x08\0\0\0",
    "a pointer to the end": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x87\x69\0\x04\0\0\0\x01\0\0\0\x1a",
}


@pytest.mark.parametrize("block", BROKEN_EXIF.values(), ids=BROKEN_EXIF)
def test_broken_exif_says_nothing(block: bytes) -> None:
    jpeg = b"\xff\xd8\xff\xe1" + struct.pack(">H", len(block) + 2) + block + b"\xff\xda"
    assert exif_texts(jpeg) == {}
    webp = b"RIFF\0\0\0\0WEBPEXIF" + struct.pack("<I", len(block)) + block
    assert exif_texts(webp) == {}


@pytest.mark.parametrize(
    "texts",
    [
        {"parameters": "{" * 5000},
        {"prompt": json.dumps({"1": {"class_type": 5, "inputs": {"text": ["1", 0]}}})},
        {"prompt": json.dumps({"1": {"class_type": "A", "inputs": {"positive": ["1", 0]}}})},
        {"prompt": "[1, NaN]", "workflow": '{"nodes": [1, {"widgets_values": null}]}'},
        {"invokeai_metadata": '{"model": null, "positive_prompt": {"a": 1}}'},
        {"sd-metadata": '{"image": []}'},
        {"Dream": '"' + "\\" * 3000},
    ],
)
def test_nonsense_is_survived(texts: dict[str, str]) -> None:
    found = foreign_of(png(**texts))
    assert found is None or isinstance(found, Foreign)
    assert found is None or len(found.text) <= 4000


@pytest.mark.parametrize(
    "texts",
    [
        {XMP: "<exif:UserComment>" * 100_000},
        {"parameters": "a\n" * 2_000_000},
        {"Description": "a\0" * 2_000_000},
    ],
)
def test_texts_made_to_keep_a_reader_busy_cost_nothing(texts: dict[str, str]) -> None:
    begun = time.process_time()
    found = read_foreign(texts)
    assert time.process_time() - begun < 1
    assert found is None or len(found.text) <= 4000
