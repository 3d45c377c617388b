"""How the studio is served: flags and environment, the names it answers to, and who may come in."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from app.serving import LOCAL, Serving, check_free, host_name, serving_of
from app.ui.door import MOST_WRONG, WRONG_SECONDS, Door, Tries
from pipelines.errors import BadInput


def of(environment: dict[str, str] | None = None, **flags: Any) -> Serving:
    return serving_of(environment=environment or {}, **flags)


# ------------------------------------------------------------------------------------------- flags and environment


def test_this_machine_alone_is_the_default() -> None:
    assert of() == LOCAL
    assert not LOCAL.beyond and not LOCAL.apart and LOCAL.protection == "none"
    assert LOCAL.may_change_models
    assert of({"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": "8000"}) == Serving(port=8000)
    assert of({"GRADIO_SERVER_PORT": "8000"}, port="9000").port == 9000
    assert not of(host="localhost").beyond and not of(host="[::1]").beyond and not of(host="127.0.0.2").beyond
    assert of(password="sesame").protection == "password"  # also here, where several people share a machine


def test_beyond_this_machine_there_is_a_token_unless_something_else_is_asked_for() -> None:
    wide = of(host="0.0.0.0")
    assert wide.beyond and wide.apart and wide.protection == "token" and len(wide.secret) >= 32
    assert wide.secret not in repr(wide) and of(host="0.0.0.0").secret != wide.secret
    assert of({"GRADIO_SERVER_NAME": "0.0.0.0"}).protection == "token"
    assert of(allow_host=["studio.example.org"]).protection == "token"
    assert of(root_path="/studio").protection == "token"
    assert of(host="0.0.0.0", password="sesame").protection == "password"
    opened = of(host="0.0.0.0", open_to_all=True)
    assert opened.protection == "none" and opened.answers("anything.example") and opened.apart
    assert not opened.may_change_models and wide.may_change_models
    assert not of(host="0.0.0.0", shared_library=True).apart


def test_on_a_space_everybody_is_let_in_and_every_name_is_answered() -> None:
    space = of({"SPACE_ID": "somebody/atelier", "SYSTEM": "spaces"})
    assert (space.host, space.port, space.protection) == ("0.0.0.0", 7860, "none")
    assert space.answers("somebody-atelier.hf.space") and space.apart and space.proxied
    assert of({"SPACE_ID": "somebody/atelier"}, host="127.0.0.1").host == "127.0.0.1"
    named = of({"SPACE_ID": "somebody/atelier", "SPACE_HOST": "somebody-atelier.hf.space"})
    assert named.address(7860) == "https://somebody-atelier.hf.space/"
    assert of({"SPACE_ID": "somebody/atelier"}, password="sesame").protection == "password"


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"port": "70000"}, "port '70000' is not a whole number from 1 to 65535; try 7860"),
        ({"port": "x"}, "port 'x'"),
        ({"host": "a b"}, "neither a name nor an address"),
        ({"allow_host": ["http://x"]}, "is not a name"),
        ({"root_path": "studio"}, "is not a path"),
        ({"root_path": "//evil.example"}, "is not a path"),
        ({"open_to_all": True}, "other machines reach"),
        ({"open_to_all": True, "password": "x", "host": "0.0.0.0"}, "do not go together"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(flags: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence) as problem:
        of(**flags)
    assert "\n" not in str(problem.value)


def test_names_are_read_from_headers() -> None:
    for header, name in {
        "Studio.Example:7860": "studio.example",
        "studio.example.": "studio.example",
        "[::1]:7860": "::1",
        "::1": "::1",
        "10.0.0.7": "10.0.0.7",
        "": "",
    }.items():
        assert host_name(header) == name
    assert of(host="gpu-box").answers("GPU-box:7860") and of(host="gpu-box").answers("localhost:7860")
    assert not of(host="gpu-box").answers("gpu-box.evil.example") and not LOCAL.answers("10.0.0.7")
    wide = of(host="0.0.0.0", allow_host=["studio.example"])
    assert (
        wide.answers("10.0.0.7:7860") and wide.answers("studio.example") and not wide.answers("evil.example")
    )


def test_the_address_that_is_printed_can_be_opened() -> None:
    assert LOCAL.address(7860) == "http://127.0.0.1:7860/"
    assert of(host="::1").address(1) == "http://[::1]:1/"
    token = of(allow_host=["studio.example"])
    assert token.address(80) == f"http://studio.example:80/?token={token.secret}"
    whole = of(root_path="https://example.org/studio", password="sesame")
    assert whole.address(7860) == "https://example.org/studio/" and whole.path == "/studio"
    assert whole.answers("example.org")


def test_a_place_that_cannot_be_listened_at_is_said_in_a_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BadInput, match=f"port {port} is taken; try --port"):
            check_free("127.0.0.1", port)
    check_free("127.0.0.1", port)
    with pytest.raises(
        BadInput, match=r"192\.0\.2\.1 is no address of this machine; try --host 127\.0\.0\.1"
    ):
        check_free("192.0.2.1", port)


# --------------------------------------------------------------------------------------------------------- the door


def client(serving: Serving, **options: Any) -> TestClient:
    async def told(request: Request) -> JSONResponse:
        who = request.client.host if request.client else ""
        headers = {name: value for name, value in request.headers.items() if "forwarded" in name}
        return JSONResponse({"path": request.url.path, "scheme": request.url.scheme, "who": who, **headers})

    async def socket_of(websocket: Any) -> None:
        await websocket.accept()
        await websocket.close()

    app = Starlette(
        routes=[WebSocketRoute("/socket", socket_of), Route("/{rest:path}", told, methods=["GET", "POST"])],
        middleware=[Middleware(Door, serving=serving, **options)],  # type: ignore[arg-type]
    )
    return TestClient(app, base_url="http://studio.example", follow_redirects=False)


EVERYWHERE = (
    "/",
    "/config",
    "/picture/a.png",
    "/film/a.mp4",
    "/direction/a.safetensors",
    "/gradio_api/info",
    "/visitor",
)


def test_other_names_are_not_answered() -> None:
    page = client(LOCAL)
    assert page.get("/", headers={"Host": "localhost:7860"}).status_code == 200
    refused = page.get("/", headers={"Host": "evil.example:7860"})
    assert refused.status_code == 400 and "evil.example" in refused.text and "--allow-host" in refused.text
    with pytest.raises(WebSocketDisconnect), page.websocket_connect("ws://studio.example/socket"):
        pass


def test_without_the_link_nothing_is_answered() -> None:
    serving = of(allow_host=["studio.example"])
    page = client(serving)
    for path in EVERYWHERE:
        refused = page.get(path)
        assert refused.status_code == 401 and "private" in refused.text and "不公开" in refused.text
    for path in ("/gradio_api/run/predict", "/gradio_api/queue/join", "/gradio_api/upload", "/enter"):
        assert page.post(path, json={}).status_code == 401
    assert page.get("/?token=wrong").status_code == 401
    with pytest.raises(WebSocketDisconnect), page.websocket_connect("ws://studio.example/socket"):
        pass

    welcome = page.get(f"/?job=7&token={serving.secret}")
    assert (welcome.status_code, welcome.headers["location"]) == (303, "/?job=7")
    cookie = welcome.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie and serving.secret not in cookie
    assert all(page.get(path).status_code == 200 for path in EVERYWHERE)
    with page.websocket_connect("ws://studio.example/socket"):
        pass
    # another start, another cookie
    assert client(serving).get("/", headers={"Cookie": cookie.split(";")[0]}).status_code == 401


def test_a_program_brings_the_token_in_a_header() -> None:
    serving = of(allow_host=["studio.example"])
    page = client(serving)
    assert page.get("/config", headers={"Authorization": f"Bearer {serving.secret}"}).status_code == 200
    assert page.get("/config", headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert page.get("/config").status_code == 401


def test_the_way_on_stays_on_this_site() -> None:
    serving = of(allow_host=["studio.example"])
    for path in ("//evil.example", "/%5Cevil.example", "/%2F/evil.example"):
        on = client(serving).get(f"http://studio.example{path}?token={serving.secret}").headers["location"]
        assert on.startswith("/") and on[1:2] not in ("/", "\\")


def test_the_password_is_asked_for_and_tries_are_limited() -> None:
    now = [0.0]
    page = client(of(allow_host=["studio.example"], password="open sesame 芝麻"), clock=lambda: now[0])
    asked = page.get("/picture/a.png")
    assert (
        asked.status_code == 401 and "asks for a password" in asked.text and 'action="/enter"' in asked.text
    )
    wrong = page.post("/enter", data={"password": "open"})
    assert wrong.status_code == 401 and "not the password" in wrong.text and "密码不对" in wrong.text
    right = page.post("/enter", data={"password": "open sesame 芝麻"})
    assert (right.status_code, right.headers["location"]) == (303, "/") and page.get(
        "/config"
    ).status_code == 200

    page.cookies.clear()
    for _ in range(MOST_WRONG - 1):
        assert page.post("/enter", data={"password": "guess"}).status_code == 401
    tired = page.post("/enter", data={"password": "open sesame 芝麻"})
    assert tired.status_code == 429 and "wait" in tired.text
    assert page.get("/", headers={"Authorization": "Bearer guess"}).status_code == 429
    assert page.post("/enter", data={"password": "x" * 10_000}).status_code == 429
    now[0] += WRONG_SECONDS + 1
    assert page.post("/enter", data={"password": "open sesame 芝麻"}).status_code == 303


def test_tries_from_many_addresses_are_counted_together() -> None:
    tries = Tries(lambda: 0.0)
    for number in range(60):
        assert tries.may(f"10.0.0.{number}")
        tries.note(f"10.0.0.{number}")
    assert not tries.may("10.0.1.1")


def test_forwarded_headers_are_believed_behind_a_proxy_only() -> None:
    forged = {
        "X-Forwarded-For": "6.6.6.6, 10.0.0.9",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "evil.example",
        "Forwarded": "for=6.6.6.6",
    }
    told = client(of(allow_host=["studio.example"], open_to_all=True)).get("/", headers=forged).json()
    assert told == {"path": "/", "scheme": "http", "who": "testclient"}
    behind = of(allow_host=["studio.example"], root_path="/studio", open_to_all=True)
    assert client(behind).get("/", headers=forged).status_code == 400  # the name is checked there too
    told = client(behind).get("/", headers={**forged, "X-Forwarded-Host": "studio.example"}).json()
    assert (told["scheme"], told["who"]) == ("https", "10.0.0.9")
    for last, who in (
        ("10.0.0.7:4711", "10.0.0.7"),
        ("[2001:db8::7]:4711", "2001:db8::7"),
        ("2001:db8::7",) * 2,
    ):
        own = [("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-For", last)]  # of the caller, and of the proxy
        assert (
            client(behind).get("/", headers=[*own, ("X-Forwarded-Host", "studio.example")]).json()["who"]
            == who
        )


def test_behind_a_proxy_under_a_path() -> None:
    serving = of(allow_host=["studio.example"], root_path="/studio/")
    for path in ("/", "/studio/"):  # whether the proxy takes its path off or not
        page = client(serving)
        welcome = page.get(f"{path}?token={serving.secret}", headers={"X-Forwarded-Proto": "https"})
        assert welcome.headers["location"] == "/studio/"
        assert "Path=/studio" in welcome.headers["set-cookie"] and "Secure" in welcome.headers["set-cookie"]
        cookie = welcome.headers["set-cookie"].split(";")[0]
        assert page.get(f"{path}config", headers={"Cookie": cookie}).json()["path"] == "/config"


def test_inside_another_sites_page_the_cookie_is_meant_for_that() -> None:
    page = client(of({"SPACE_ID": "somebody/atelier"}, password="sesame"))
    cookie = page.post("/enter", data={"password": "sesame"}).headers["set-cookie"]
    assert {"SameSite=None", "Secure", "Partitioned", "HttpOnly"} <= set(cookie.split("; "))
