"""Records of other programs, read as text from the three formats."""

from __future__ import annotations

import gzip
import io
import json
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from app.library import Foreign, Library, read_query
from app.library.exif import XMP, exif_texts
from app.library.foreign import foreign_of, foreign_of_text, read_foreign
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
    "sdnext.png": (
        png(parameters="Prompt: a ruby moth\nSteps: 20 | Seed: 489641143 | Sampler: UniPC | Model: lyriel"),
        ("a1111", "489641143", "lyriel"), "a ruby moth",
    ),
    "fooocus a1111.png": (
        png(parameters="cinematic still of a lace swan, harmonious\nNegative prompt: anime\nSteps: 30, "
            'Seed: 91, Model: jugger, Raw prompt: "a lace swan,\\nin snow", Version: Fooocus v2.4.3'),
        ("fooocus", "91", "jugger"), "a lace swan,\nin snow",
    ),
    "lost lines.jpg": (
        with_exif("JPEG", {}, comment("a salt lynx, dusk Negative prompt: rain Steps: 20, Sampler: Euler a, Seed: 92")),
        ("a1111", "92", ""), "a salt lynx, dusk",
    ),
    "civitai.jpg": (
        with_exif("JPEG", {}, comment("a cork boat\nNegative prompt: x\nSteps: 14, Sampler: DPM++ 2M, Seed: 93, "
                  'Civitai resources: [{"type":"checkpoint","modelName":"a, Seed: 4"}], Civitai metadata: {}')),
        ("a1111", "93", ""), "a cork boat",
    ),
    "civitai comfyui.jpg": (
        with_exif("JPEG", {}, comment(json.dumps({
            "6": {"class_type": "smZ CLIPTextEncode", "inputs": {"text": ["9", 0]}}, "extra": {"airs": []},
            "11": {"class_type": "KSampler", "inputs": {"seed": 94, "positive": ["6", 0]}},
            "extraMetadata": json.dumps({"prompt": "a bone flute", "seed": 94}),
        }))),
        ("comfyui", "94", ""), "a bone flute",
    ),
    "novelai.webp": (
        with_exif("WEBP", {}, comment(json.dumps({"Software": "NovelAI", "Description": "a gold ibis", "Source": "V4",
                  "Comment": json.dumps({"prompt": "x", "uc": "", "seed": 95})}))),
        ("novelai", "95", "V4"), "a gold ibis",
    ),
    "exif.png": (
        with_exif("PNG", {}, comment("a plaid goat\nSteps: 20, Sampler: Euler a, Seed: 88")),
        ("a1111", "88", ""), "a plaid goat",
    ),
    "xmp.png": (
        png(**{"XML:com.adobe.xmp": '<dc:description><rdf:Alt><rdf:li xml:lang="x-default">a peat crane\n-fog\n'
               "Steps: 10, Sampler: DDIM, Seed: 96, Model: sd</rdf:li></rdf:Alt></dc:description>"}),
        ("a1111", "96", "sd"), "a peat crane",
    ),
    "parameters.png": (png(parameters='{"prompt": "a glue gnu", "seed": 90, "version": "DiffusionBee"}'),
                       ("other", "90", ""), "a glue gnu"),
    "named.png": (png(**{"mold:prompt": "a chalk dove", "mold:seed": "97", "mold:model": "flux"}),
                  ("other", "97", "flux"), "a chalk dove"),
    "json.png": (png(metadata=json.dumps({"input": {"prompt": "a lead duck", "seed": 98.0}})),
                 ("other", "98", ""), "a lead duck"),
    "graph of invokeai.png": (png(invokeai_graph=json.dumps({
        "nodes": {"n": {"prompt": "rust"}, "a": {"prompt": "a tin crab"}, "b": {"seed": 99}},
        "edges": [{"source": {"node_id": k}, "destination": {"field": f"{sign}_conditioning"}}
                  for k, sign in (("n", "negative"), ("a", "positive"))],
    })), ("invokeai", "99", ""), "a tin crab"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_what_other_programs_wrote(name: str) -> None:
    data, (tool, seed, model), prompt = FILES[name]
    found = foreign_of(data)
    assert found is not None
    assert (found.tool, found.seed, found.model) == (tool, seed, model)
    assert found.prompt.startswith(prompt) and "Job ID" not in found.prompt and "Template" not in found.prompt
    assert prompt.split("\n")[0] in found.text


def graph(**nodes: tuple[str, dict[str, object]]) -> str:
    return json.dumps({key: {"class_type": kind, "inputs": inputs} for key, (kind, inputs) in nodes.items()})


ENCODE = "CLIPTextEncode"
SAMPLER = ("KSampler", {"seed": 3, "positive": ["p", 0], "negative": ["n", 0]})
UNWANTED = (ENCODE, {"text": "unwanted words"})


@pytest.mark.parametrize(
    "text",
    [
        graph(n=UNWANTED, s=SAMPLER, p=("Any Switch (rgthree)", {"any_01": ["q", 0]}), q=(ENCODE, {"text": "a fox, red"})),
        graph(n=UNWANTED, s=SAMPLER, p=("ConditioningCombine", {"conditioning_1": ["q", 0], "conditioning_2": ["n", 0]}),
              q=(ENCODE, {"text": ["j", 0]}),
              j=("StringConcatenate", {"string_a": "a fox", "string_b": ["r", 0], "delimiter": ", "}),
              r=("PrimitiveString", {"value": "red"})),
        graph(n=UNWANTED, s=SAMPLER, p=(ENCODE, {"text": ["w", 0]}),
              w=("ImpactWildcardProcessor", {"wildcard_text": "__a__", "populated_text": "a fox, red", "seed": 8})),
        graph(n=UNWANTED, d=("FaceDetailer", {"seed": 99}), s=SAMPLER, p=("Styler", {"text_positive": "a fox, red"})),
        graph(n=UNWANTED, s=("KSampler", {"seed": ["v", 0], "positive": ["p", 0]}), p=(ENCODE, {"text": "a fox, red"}),
              v=("Seed Everywhere", {"mode": 1, "seed": 3})),
        graph(s=SAMPLER, p=("Reroute", {"": ["p", 0], "x": ["q", 0]}), q=(ENCODE, {"text": "a fox, red"})),
    ],
)  # fmt: skip
def test_a_prompt_is_followed_back_through_a_graph(text: str) -> None:
    found = read_foreign({"prompt": text})
    assert found is not None and (found.tool, found.prompt, found.seed) == ("comfyui", "a fox, red", "3")


def test_a_drawn_graph_is_followed_too_without_its_notes_and_muted_nodes(tmp_path: Path) -> None:
    inner = {
        "nodes": [
            {
                "id": 10,
                "type": "MarkdownNote",
                "widgets_values": ["a note that is longer than any of the prompts here"],
            },
            {"id": 8, "type": ENCODE, "mode": 2, "widgets_values": ["a muted text"]},
            {
                "id": 6,
                "type": ENCODE,
                "widgets_values": ["a fox, red"],
                "inputs": [{"name": "clip", "link": 1}],
            },
            {"id": 7, "type": ENCODE, "widgets_values": ["unwanted words, many of them"]},
            {"id": 20, "type": "Reroute", "inputs": [{"name": "", "link": 4}]},
            {
                "id": 3,
                "type": "KSampler",
                "inputs": [{"name": "positive", "link": 9}, {"name": "negative", "link": 5}],
                "widgets_values": [156680208700286, "randomize", 20, 8, "euler", "normal", 1],
            },
        ],
        "links": [[4, 6, 0, 20, 0, "X"], {"id": 9, "origin_id": 20, "origin_slot": 0}, [5, 7, 0, 3, 2, "X"]],
    }
    subgraph = {
        "nodes": [{"id": 99, "type": "x-y"}],
        "links": [],
        "definitions": {"subgraphs": [inner]},
        "version": 1,
    }
    for drawn in (inner, subgraph):
        (tmp_path / "graph.json").write_text(json.dumps(drawn))
        for found in (
            read_foreign({"workflow": json.dumps(drawn)}),
            foreign_of_text(tmp_path / "graph.json"),
        ):
            assert found is not None and (found.prompt, found.seed) == ("a fox, red", "156680208700286")


def test_a_graph_that_is_cut_off_still_names_its_studio() -> None:
    found = read_foreign({"prompt": '{"1": {"class_type": "KSampler", "inputs": {"seed": 3, "pos'})
    assert found is not None and (found.tool, found.prompt, found.seed) == ("comfyui", "", "")


@pytest.mark.parametrize("seed", ["-1", "18446744073709551616", "123456789012345678901", "1.5", "x"])
def test_what_is_no_seed_is_none(seed: str) -> None:
    for texts in (
        {"parameters": f"a cat\nSteps: 2, Sampler: E, Seed: {seed}"},
        {"prompt": "a cat", "seed": seed},
    ):
        found = read_foreign(texts)
        assert found is not None and (found.prompt, found.seed) == ("a cat", "")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "a fox\nWidth: 512\nSeed: 3412\nSteps: 25\nPrompt Strength: 0.8",
            ("easydiffusion", "a fox", "3412"),
        ),
        (
            "prompt: a fox\nseed: 3\nuse_stable_diffusion_model: sd\nwidth: 512",
            ("easydiffusion", "a fox", "3"),
        ),
        ("Prompt: a fox\nNegative prompt: dog\nSeed: 5\nSteps: 20", ("other", "a fox", "5")),
        ('{"positive_prompt": "a fox", "seed": 7, "steps": 3}', ("other", "a fox", "7")),
        ("a fox\nNegative prompt: dog", ("a1111", "a fox", "")),
        (
            "a cat\nSteps: 2, Sampler: E, Seed: 1\n\na fox\nSteps: 2, Sampler: E, Seed: 2",
            ("a1111", "a fox", "2"),
        ),
        ("a sign, prompt: go\nSteps: 2, Sampler: E, Seed: 3", ("a1111", "a sign, prompt: go", "3")),
        ("Title: a cat\nTitle: a dog\nSeed: a plant", None),
        ("a cat\na dog", None),
        ('{"prompt": "a fox", "seed": 3}', None),
    ],
)
def test_text_files_of_one_run(text: str, told: tuple[str, str, str] | None, tmp_path: Path) -> None:
    file = tmp_path / "run.txt"
    file.write_text(text)
    found = foreign_of_text(file)
    assert (None if found is None else (found.tool, found.prompt, found.seed)) == told


def hidden(text: str, packed: bool) -> bytes:
    """A PNG with a text in its opacity."""
    data = gzip.compress(text.encode()) if packed else text.encode()
    mark = b"stealth_pngcomp" if packed else b"stealth_pnginfo"
    bits = np.unpackbits(np.frombuffer(mark + struct.pack(">I", 8 * len(data)) + data, np.uint8))
    levels = np.full((64, 60, 4), 255, np.uint8)
    opacity = levels[..., 3].T.copy().ravel()
    opacity[: len(bits)] = 254 + bits
    levels[..., 3] = opacity.reshape(60, 64).T
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "PNG")
    return buffer.getvalue()


def test_texts_hidden_in_the_opacity_are_read() -> None:
    told = {"Software": "NovelAI", "Description": "a fox", "Comment": json.dumps({"seed": 7, "uc": ""})}
    for data, tool in (
        (hidden(json.dumps(told), True), "novelai"),
        (hidden("a fox\nSteps: 20, Sampler: Euler a, Seed: 7", False), "a1111"),
    ):
        found = foreign_of(data)
        assert found is not None and (found.tool, found.prompt, found.seed) == (tool, "a fox", "7")
    buffer = io.BytesIO()
    Image.new("RGBA", (8, 8)).save(buffer, "PNG")
    assert foreign_of(buffer.getvalue()) is None


def test_a_studio_that_only_says_that_a_machine_drew_it() -> None:
    for sign, tool in (("OpenAI", "openai"), ("Adobe Firefly", "firefly"), ("some Co.", "machine")):
        found = foreign_of(png(**{"XML:com.adobe.xmp": f"<x>{sign} trainedAlgorithmicMedia</x>"}))
        assert found is not None and (found.tool, found.prompt, found.seed) == (tool, "", "")
    assert foreign_of(png(**{"XML:com.adobe.xmp": "<x>Google Pixel</x>"})) is None  # a camera's
    labelled = foreign_of(png(**{"XML:com.adobe.xmp": 'xmlns:TC260="http://www.tc260.org.cn/ns/AIGC/1.0/"'}))
    assert labelled is not None and labelled.tool == "machine"


def test_they_are_searched_beside_pictures_that_say_nothing(tmp_path: Path) -> None:
    home, folder = tmp_path / "outputs", tmp_path / "strangers"
    folder.mkdir()
    for number, (name, (data, _, _)) in enumerate(FILES.items()):
        (folder / name.upper()).write_bytes(data[:-20] + data[-20:])
        more, shade = divmod(12 * number, 252)
        Image.new("RGB", (8, 8), (shade, 99 + 60 * more, 9)).save(folder / f"plain {number}.jpg")
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
    assert library.choices()["tool"]["comfyui"] == sum(told[0] == "comfyui" for _, told, _ in FILES.values())
    told = library.page(read_query("velvet fox", stacked=False), 0, 2 * len(FILES), clip).found
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
        {"parameters": "Seed: " + "[" * 4000 + "\nSteps: 1, Seed: " + '"[{' * 1500},
        {
            "prompt": json.dumps(
                {str(k): {"class_type": "A", "inputs": {"positive": [str(k + 1), 0]}} for k in range(3000)}
            )
        },
        {"Description": "a\0" * 2_000_000},
    ],
)
def test_texts_made_to_keep_a_reader_busy_cost_nothing(texts: dict[str, str]) -> None:
    begun = time.process_time()
    found = read_foreign(texts)
    assert time.process_time() - begun < 1
    assert found is None or len(found.text) <= 4000
