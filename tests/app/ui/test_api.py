"""The tools as an API: a client of another process's kind calls all of them over HTTP."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio.mcp import GradioMCPServer
from gradio_client import Client
from PIL import Image

from app.jobs.queue import JobQueue
from app.library import Library
from app.ui import api, page
from pipelines.core.record import read_record
from pipelines.errors import BadInput, templates
from pipelines.io.images import picture_to_uri
from tests.support.painter import PAINTERS, PainterStudio

TOOLS = ["/generate", "/diffuse", "/optimize", "/guide", "/edit", "/rank", "/search"]
TOOLS += ["/classify", "/explain", "/probe", "/score"]
RED, BLUE = (picture_to_uri(Image.new("RGB", (40, 30), colour)) for colour in ("red", "blue"))


@pytest.fixture
def client(studio: tuple[str, JobQueue], tmp_path: Path) -> Iterator[Client]:
    made = Client(studio[0], verbose=False, download_files=tmp_path)
    yield made
    made.close()


def test_a_client_calls_the_tools_that_draw_and_rank(client: Client, studio: tuple[str, JobQueue]) -> None:
    best, made = client.predict("a cup", candidates=3, keep=2, seed=5, api_name="/generate")
    assert [one["rank"] for one in made["pictures"]] == [1, 2] and made["pictures"][0]["seed"] == 5
    for file in (best, *(one["file"] for one in made["pictures"])):
        assert read_record(Path(file).read_bytes(), PAINTERS).settings["prompt"] == "a cup"

    best, made = client.predict("a cup", width=128, candidates=1, api_name="/diffuse")
    assert made["settings"]["width"] == 128 and len(made["pictures"]) == 1
    assert read_record(Path(best).read_bytes(), PAINTERS).pipeline == "diffuse"

    best, made = client.predict("a red cup", image=RED, steps=10, start="white", api_name="/optimize")
    record = read_record(Path(best).read_bytes(), PAINTERS)
    assert record.settings["steps"] == 10 and record.settings["image"].startswith("data:image/")
    assert (
        made["settings"]["start"] == "white" and "image" not in made["settings"]
    )  # no picture comes back as text

    best, made = client.predict("a red cup", steps=10, cut_overview="[3]*400+[1]*600", api_name="/guide")
    assert read_record(Path(best).read_bytes(), PAINTERS).pipeline == "guide"
    recorded = read_record(Path(best).read_bytes(), PAINTERS).settings
    assert recorded["cut_overview"] == "[3]*400+[1]*600"

    best, made = client.predict("a blue cup", "a red cup", image=RED, strip=3, api_name="/edit")
    assert len(made["pictures"]) == 3
    assert read_record(Path(best).read_bytes(), PAINTERS).settings["source"] == "a red cup"

    found = client.predict([BLUE, RED, RED], "something red", api_name="/rank")
    assert [one["picture"] for one in found["ranking"]] == [1, 2, 0]
    assert found["ranking"][1]["duplicate_of"] == 1
    assert found["ranking"][0]["score"] > found["ranking"][2]["score"]

    found = client.predict("something red", count=2, api_name="/search")
    assert len(found) == 2 and found[0]["score"] >= found[1]["score"]
    assert read_record(Path(found[0]["file"]).read_bytes(), PAINTERS).pipeline == found[0]["tool"]


def test_a_client_calls_the_tools_of_see(client: Client) -> None:
    found = client.predict([BLUE, RED], labels="red，blue", api_name="/classify")
    assert [one["labels"][0]["label"] for one in found["pictures"]] == ["blue", "red"]
    assert found["independent"] is False and found["pictures"][0]["labels"][0]["probability"] > 0.9
    found = client.predict(RED, "a red thing", api_name="/explain")
    assert found["phrases"][0]["text"] == "red" and found["phrases"][0]["adds"] > 0
    assert found["rival"]["margin"] > 0 and len(found["maps"][1]["map"]) == 24  # of 40 x 30 pixels
    pictures, labels = [RED, BLUE] * 3, ["warm", "cold"] * 3
    taught = client.predict(pictures, labels, api_name="/probe")
    assert taught["labels"] == ["warm", "cold"] and taught["curve"]["points"][0]["mean"] == 1
    found = client.predict([BLUE], probe=taught["probe"], api_name="/classify")
    assert found["pictures"][0]["labels"][0]["label"] == "cold"
    found = client.predict([BLUE, RED], "red", api_name="/score")
    assert found[1]["clip"] > found[0]["clip"] and found[0]["critic"] == found[0]["clip"]


def test_endpoints_are_public_and_documented(studio: tuple[str, JobQueue]) -> None:
    url, _ = studio
    info = httpx.get(f"{url}gradio_api/info").json()
    assert list(info["named_endpoints"]) == TOOLS and info["unnamed_endpoints"] == {}
    parameters = {one["parameter_name"]: one for one in info["named_endpoints"]["/edit"]["parameters"]}
    assert [name for name, one in parameters.items() if not one["parameter_has_default"]] == [
        "prompt",
        "source",
    ]
    assert parameters["mode"]["type"] == {"enum": ["instant", "quick", "reusable", "paper"]}
    assert parameters["strength"]["type"] == {"type": "number"}
    assert not {"until", "directions", "tokens", "changes", "batch"} & parameters.keys()
    config = httpx.get(f"{url}config").json()
    public = [one["api_name"] for one in config["dependencies"] if one["api_visibility"] == "public"]
    assert public == [name[1:] for name in TOOLS]
    assert config["footer_links"] == ["api"]


def test_addresses_are_absolute_for_those_who_speak_plain_http(studio: tuple[str, JobQueue]) -> None:
    url, _ = studio
    address = f"{url}gradio_api/call/v2/generate"
    begun = httpx.post(address, json={"prompt": "a cup", "candidates": 1}).json()
    told = httpx.get(f"{address}/{begun['event_id']}", timeout=30).text
    best = json.loads(told.split("data: ")[-1])[0]
    assert best["url"].startswith(url)
    assert httpx.get(best["url"]).headers["content-type"] == "image/png"


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("/generate", {"prompt": ""}, "the prompt is empty"),
    ("/generate", {"prompt": "a cup", "candidates": 900}, "candidates 900 is too large; the most is 512"),
    ("/generate", {"prompt": "a cup", "image": "/etc/hostname"}, "'/etc/hostname' is not inside the call"),
    ("/generate", {"prompt": "a cup", "image": "data:image/png;base64,AAAA"}, "not a PNG, JPEG or WebP"),
    ("/generate", {"prompt": "a cup", "image": {"url": RED}}, "is not text"),
    ("/generate", {"prompt": "a crash"}, "the run failed inside"),
    ("/optimize", {"prompt": "a cup", "steps": 301}, "steps 301 is too large; the most is 300"),
    ("/guide", {"prompt": "a cup", "max_frames": 90}, "is too large; the most is 300"),
    ("/optimize", {"prompt": "a cup", "start": "fire"}, "start 'fire' is not one of splash"),
    ("/optimize", {"prompt": "a cup", "regions": "a sun @ /etc/hostname"}, "give a data:image"),
    ("/optimize", {"prompt": "a cup", "image_prompts": "http://127.0.0.1:9/a.png:1"}, "give a data:image"),
    ("/edit", {"prompt": "a cat", "source": "the cat"}, "there is nowhere to go"),
    ("/edit", {"prompt": "a cat", "source": "a dog", "source_images": "/etc"}, "give a data:image"),
    ("/rank", {"pictures": [], "text": "a cup"}, "a list of 1 to 64"),
    ("/rank", {"pictures": [RED] * 65, "text": "a cup"}, "a list of 1 to 64"),
    ("/rank", {"pictures": RED, "text": "a cup"}, "a list of 1 to 64"),
    ("/rank", {"pictures": [RED, "http://127.0.0.1:9/a.png"], "text": "a cup"}, "picture 1 'http"),
    ("/rank", {"pictures": [RED], "text": 3}, "text '3' is not text"),
    ("/classify", {"pictures": [RED], "labels": "，"}, "there are no labels"),
    ("/classify", {"pictures": [RED], "templates": "a photo"}, "must hold {label} once"),
    ("/classify", {"pictures": ["/etc/hostname"]}, "picture 0 '/etc/hostname'"),
    ("/classify", {"pictures": [RED], "probe": "/etc/hostname"}, "the file is no probe"),
    ("/classify", {"pictures": [RED], "labels": "a", "probe": "data:,"}, "not both"),
    ("/explain", {"picture": "http://127.0.0.1:9/a.png", "text": "a"}, "picture 0 'http"),
    ("/explain", {"picture": RED, "text": ""}, "the prompt is empty"),
    ("/probe", {"pictures": [RED, BLUE], "labels": ["a"]}, "2 pictures and 1 labels"),
    ("/probe", {"pictures": [RED, BLUE], "labels": ["a", "a"]}, "at least two labels"),
    ("/score", {"pictures": [], "text": "a cup"}, "a list of 1 to 64"),
    ("/search", {"text": " "}, "the prompt is empty"),
    ("/search", {"text": "a cup", "count": 1000}, "count 1000 is not a whole number from 1 to 100"),
]


@pytest.mark.parametrize(("name", "given", "sentence"), WRONG, ids=[str(one) for one in range(len(WRONG))])
def test_what_is_wrong_is_told_in_a_sentence(
    client: Client, name: str, given: dict[str, Any], sentence: str, caplog: Any, capfd: Any
) -> None:
    with pytest.raises(Exception, match=re.escape(sentence)) as raised, caplog.at_level(logging.ERROR):
        client.predict(**given, api_name=name)
    assert "\n" not in str(raised.value) and "secret" not in str(raised.value)
    assert getattr(raised.value, "title", "") in templates()
    if "crash" not in str(given):
        assert caplog.records == [] and "Traceback" not in capfd.readouterr().err


def test_callers_do_not_share_a_session(studio: tuple[str, JobQueue]) -> None:
    url, queue = studio
    known = {job.id for job in queue.jobs(count=1000)}
    for _ in range(2):
        one = Client(url, verbose=False, download_files=False)
        for _ in range(2):
            one.predict("a cup", candidates=1, api_name="/generate")
        one.close()
    fresh = [job.session for job in queue.jobs(count=1000) if job.id not in known]
    assert len(fresh) == 4 and len(set(fresh)) == 2
    assert all(one.startswith("api-") for one in fresh)


def test_agents_get_the_same_tools(tmp_path: Path) -> None:
    """Gradio's own schema of the tools, which it works out without the package that speaks to agents."""
    queue = JobQueue(PainterStudio(), tmp_path, PAINTERS)
    try:
        server = object.__new__(GradioMCPServer)
        server.blocks = page.build(PainterStudio(), queue, Library(tmp_path), tmp_path)
        server.api_info, server.tool_prefix = server.blocks.get_api_info(), ""
        server.tool_to_endpoint = server.get_tool_to_endpoint()
        assert server.tool_to_endpoint == {name[1:]: name for name in TOOLS}
        for name, endpoint in server.tool_to_endpoint.items():
            block = server.get_block_fn_from_endpoint_name(endpoint)
            assert block is not None and not block.queue  # answered without a second connection to the server
            description, parameters = server.get_fn_description(block, name)
            schema, files = server.get_input_schema(name, parameters)
            assert "Returns: " in description and files == []  # nothing that would be fetched
            assert all(
                one["description"] and one.keys() & {"type", "enum", "oneOf"}
                for one in schema["properties"].values()
            )
            assert schema["required"] and "request" not in schema["properties"]
    finally:
        queue.close()


def test_an_agent_lists_and_calls_the_tools(tmp_path: Path) -> None:
    pytest.importorskip("mcp", reason="the optional extra gradio[mcp] is not installed")
    from mcp import ClientSession
    from mcp.client.streamable_http import streamablehttp_client

    queue = JobQueue(PainterStudio(), tmp_path, PAINTERS)
    blocks = page.build(PainterStudio(), queue, Library(tmp_path), tmp_path)
    _, url = page.launch(blocks, port=None, mcp=True)
    calls = {
        "generate": {"prompt": "a cup", "candidates": 1},
        "diffuse": {"prompt": "a cup", "candidates": 1},
        "optimize": {"prompt": "a cup", "steps": 5},
        "guide": {"prompt": "a cup", "steps": 5},
        "edit": {"prompt": "a blue cup", "source": "a cup", "image": RED},
        "rank": {"pictures": [RED, BLUE], "text": "red"},
        "search": {"text": "red"},
        "classify": {"pictures": [RED], "labels": "red, blue"},
        "explain": {"picture": RED, "text": "red"},
        "probe": {"pictures": [RED, BLUE], "labels": ["warm", "cold"]},
        "score": {"pictures": [RED], "text": "red"},
    }

    async def talk() -> None:
        async with (
            streamablehttp_client(f"{url}gradio_api/mcp/") as (read, write, _),
            ClientSession(read, write) as agent,
        ):
            await agent.initialize()
            assert [tool.name for tool in (await agent.list_tools()).tools] == list(calls)
            for name, given in calls.items():
                answer = await agent.call_tool(name, given)
                assert not answer.isError, answer.content
                if name in ("generate", "diffuse", "optimize", "guide", "edit"):
                    assert answer.content[0].type == "image"
                    address = answer.content[1].text.removeprefix("Image URL: ")
                    assert (
                        address.startswith(url) and httpx.get(address).headers["content-type"] == "image/png"
                    )
            answer = await agent.call_tool("generate", {"prompt": "a cup", "image": "/etc/hostname"})
            assert answer.isError and "is not inside the call" in answer.content[0].text

    try:
        asyncio.run(talk())
    finally:
        blocks.close(verbose=False)
        queue.close()


def test_agents_need_a_package_and_are_told_so(monkeypatch: Any) -> None:
    monkeypatch.setattr(api.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        BadInput, match=r'--mcp needs the package mcp; run: .* -m pip install "gradio\[mcp\]==6'
    ):
        page.launch(page.gr.Blocks(), mcp=True)
