"""No address is fetched for a caller: refused at the door, without looking a name up."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from gradio.processing_utils import async_ssrf_protected_get

from app.jobs.queue import JobQueue
from app.ui.addresses import is_address, names_address
from pipelines.errors import BadInput

FILE = {"_type": "gradio.FileData"}


@pytest.fixture
def no_lookups(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Look-ups of names other than this machine's; a test fails when there were any."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def resolve(host: Any, *rest: Any, **more: Any) -> Any:
        if host in ("127.0.0.1", "localhost", b"127.0.0.1", None):
            return real(host, *rest, **more)
        asked.append(str(host))
        raise socket.gaierror(socket.EAI_NONAME, "no look-up is allowed here")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    yield asked
    assert not asked, asked


@pytest.mark.parametrize(
    "text",
    [
        *(
            "http://x/a.png",
            "HTTPS://x",
            " https://x",
            "\thttp:/x",
            "http:x",
            "ftp://x/a",
            "file:///etc/passwd",
        ),
        *("file:/etc/passwd", "//x/a.png", "\\\\x\\share", "/\\x", "gopher://x", "s3://bucket/a", "wss://x"),
    ],
)
def test_what_an_address_is(text: str) -> None:
    assert is_address(text)


@pytest.mark.parametrize(
    "text", ["", "data:image/png;base64,AA", "/tmp/gradio/a/b.png", "C:\\a.png", "a: b", "a.png"]
)
def test_what_no_address_is(text: str) -> None:
    assert not is_address(text)


def test_addresses_are_found_at_any_depth() -> None:
    own = {"127.0.0.1:7860"}

    def found(value: Any) -> bool:
        return names_address(json.dumps(value).encode(), own)

    form = {"path": "http://evil.example/a.png", "meta": FILE}
    deep: Any = form
    for _ in range(40):
        deep = {"data": [deep]}
    assert found({"data": [form]}) and found(deep) and found([[{"url": "//evil.example/a"}]])
    assert names_address(json.dumps(form).encode("utf-16"), own)  # as Gradio would read it
    assert names_address(b"[" * 100_000 + b"]" * 100_000, own)
    upload = {
        "path": "/tmp/gradio/ab/ü 1.png",
        "url": "http://127.0.0.1:7860/gradio_api/file=/tmp/gradio/ab/%C3%BC%201.png",
    }
    assert not found({"data": [upload, None, 7, "http://is.text/"]})
    assert found({**upload, "url": upload["url"].replace("127.0.0.1:7860", "evil.example")})
    assert found({**upload, "path": "/tmp/gradio/other.png"})
    assert not names_address(b"not json", own) and not names_address(b"", own)


def test_every_function_of_the_page_refuses_addresses(
    studio: tuple[str, JobQueue], no_lookups: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    url, _ = studio
    forms = [
        {"path": "http://evil.example/a.png", "meta": FILE},
        {"url": "https://evil.example/a.png", "meta": FILE},
        {"path": "/tmp/x.png", "url": "http://evil.example/x.png", "meta": FILE},
    ]
    with httpx.Client(base_url=url) as client:
        functions = client.get("/config").json()["dependencies"]
        assert len(functions) > 40
        for number, one in enumerate(functions):
            form = forms[number % len(forms)]
            for data in ([form] * max(1, len(one["inputs"])), [[{"deep": form}]]):
                body = {"data": data, "fn_index": one["id"], "session_hash": "s"}
                for path in ("run/predict", "queue/join"):
                    refused = client.post(f"/gradio_api/{path}", json=body)
                    assert refused.status_code == 400 and "No address is fetched" in refused.json()["error"]
        for path in ("call/generate", "call/v2/generate", "api/generate", "component_server"):
            assert client.post(f"/gradio_api/{path}", json={"data": [forms[0]]}).status_code == 400
        for target in (
            "file=http://evil.example/a.png",
            "file=http%3A%2F%2Fevil.example/a.png",
            "file/http://evil.example/a.png",
            "file=%20https://evil.example",
            "proxy=http://evil.example/a.png",
        ):
            assert client.get(f"/gradio_api/{target}").status_code == 400
            assert client.head(f"/gradio_api/{target}").status_code == 400
        plain = client.post(
            "/gradio_api/run/predict", content=b'{"data": ["http://only.text/"], "fn_index": 100000}'
        )
        assert plain.status_code != 400
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.anyio
async def test_what_gradio_fetches_with_cannot_call_out(
    studio: tuple[str, JobQueue], no_lookups: list[str]
) -> None:
    with pytest.raises(BadInput, match="no address is fetched"):
        await async_ssrf_protected_get("http://evil.example/a.png")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_a_call_of_very_many_values_is_refused_before_it_is_read(studio: tuple[str, JobQueue]) -> None:
    answer = httpx.post(f"{studio[0]}gradio_api/call/rank", content=b"[" * 400_000)
    assert answer.status_code != 413
    answer = httpx.post(f"{studio[0]}gradio_api/call/rank", content=b"[" * 600_000)
    assert answer.status_code == 413 and "values" in answer.json()["error"]
