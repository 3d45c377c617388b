"""What the Library's script asks the server: answers as HTML, errors as sentences, files of the library only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from app.library import Library
from app.serving import Serving
from app.ui.folders import HERE, MOST, Folders
from app.ui.html.library import frame
from app.ui.pictures import Pictures
from app.ui.tabs.library import sent
from app.ui.wall import Wall, query_of
from pipelines.errors import BadInput
from tests.support.painter import PAINTERS, PainterStudio
from tests.support.wall import hang


class Context:
    """What a wall needs of a page."""

    def __init__(self, folder: Path, folders: Folders) -> None:
        self.studio, self.folders, self.serving = PainterStudio(), folders, Serving()
        self.pictures = Pictures(lambda: folder, folder / "none")
        self.queue = type("Queue", (), {"pipelines": PAINTERS})()
        self.handover, self.tabs = "handover", "tabs"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    outputs = tmp_path / "outputs"
    hang(outputs, "red", "#d01010", prompt="<b>red</b> & {x}", seed=3)
    hang(outputs, "blue", "#1010d0", prompt="blue", seed=4, age=90_000)
    folders = Folders(Library(outputs), outputs, may_open=True)
    context: Any = Context(outputs, folders)
    with TestClient(Starlette(routes=Wall(context).routes())) as one:
        yield one
    folders.close()


def ask(client: TestClient, question: str, **facts: Any) -> dict[str, Any]:
    answer = client.post(f"/library/{question}", json=facts)
    assert answer.status_code in (200, 400), answer.text
    return answer.json()


def test_a_page_of_the_wall_is_html_that_believes_nothing(client: TestClient) -> None:
    answer = ask(client, "find")
    assert (answer["found"], answer["total"], answer["more"], answer["order"]) == (2, 2, False, "date")
    assert "&lt;b&gt;red&lt;/b&gt; &amp; {x}" in answer["cells"] and "<b>red" not in answer["cells"]
    assert answer["cells"].count('class="day"') == 2
    assert ask(client, "find", count=1)["more"]
    blue = ask(client, "find", text="blue", count=1)
    assert "blue.png" in blue["cells"] and 'class="nearness"' in blue["cells"] and "day" not in blue["cells"]
    assert ask(client, "find", seed="3")["total"] == 1
    assert "No picture fits" in ask(client, "find", tool="dalle")["nothing"]


def test_thumbnails_and_files_are_served_and_nothing_else(client: TestClient) -> None:
    answer = client.get("/library/thumbnail/2026-01-01/red.png?of=1")
    assert answer.headers["content-type"] == "image/webp" and "immutable" in answer.headers["cache-control"]
    assert client.get("/library/file/2026-01-01/red.png").content[:4] == b"\x89PNG"
    for name in ("../secret.png", "library/marks.jsonl", "nothing.png", "%2e%2e/x.png", "a%00.png"):
        assert client.get(f"/library/file/{name}").status_code == 404
        assert client.get(f"/library/thumbnail/{name}").status_code == 404
    assert client.get("/library/file/2026-01-01/red.png?folder=abc").status_code == 404
    assert client.get("/library/zip/abc").status_code == 404


@pytest.mark.parametrize(
    ("question", "facts", "sentence"),
    [
        ("find", {"date": "yesterday"}, "is no date"),
        ("find", {"seed": "x"}, "not a whole number"),
        ("find", {"sort": "fate"}, "is no order"),
        ("find", {"given": ["/etc/passwd"]}, "no picture"),
        ("find", {"like": ["gone.png"]}, "gone.png"),
        ("large", {"id": "gone.png"}, "gone.png"),
        ("beside", {"ids": ["2026-01-01/red.png"]}, "choose two to four"),
        ("act", {"do": "explode"}, "cannot do"),
        ("folder", {"place": "/no/such/place"}, "no folder"),
        ("find", {"folder": "abc"}, "not open any more"),
    ],
)
def test_what_is_wrong_is_a_sentence_in_both_languages(
    client: TestClient, question: str, facts: dict[str, Any], sentence: str
) -> None:
    error = ask(client, question, **facts)["error"]
    assert sentence in error and 'lang="zh-CN"' in error and "Traceback" not in error


def test_what_is_no_json_is_answered_too(client: TestClient) -> None:
    for body in (b"{", b"[1]", b"null", b"\xff"):
        answer = client.post("/library/find", content=body)
        assert answer.status_code in (200, 400) and ("cells" in answer.json() or "error" in answer.json())
    assert client.post("/library/find", json={"text": 3, "like": "x", "count": "many"}).status_code == 200


def test_acts_are_told_and_undone(client: TestClient) -> None:
    ids = ["2026-01-01/red.png", "2026-01-01/blue.png"]
    assert "2 got a star" in ask(client, "act", do="star", ids=ids)["said"]
    assert ask(client, "find", starred=True)["total"] == 2
    assert ask(client, "undo")["kind"] == "star"
    assert ask(client, "find", starred=True)["total"] == 0
    assert "nothing left to undo" in ask(client, "undo")["said"]
    ask(client, "act", do="tag", ids=ids, tag="  for  <me> ")
    menus = ask(client, "choices")
    assert menus["tags"] == ["for <me>"] and "&lt;me&gt;" in menus["menus"]["tag"]
    assert ask(client, "find", tag="for <me>")["total"] == 2
    zipped = ask(client, "zip", ids=ids)
    assert client.get("/" + zipped["address"]).content[:2] == b"PK"


def test_one_picture_and_two(client: TestClient) -> None:
    ids = ["2026-01-01/red.png", "2026-01-01/blue.png"]
    large = ask(client, "large", id=ids[0])["html"]
    assert "&lt;b&gt;red" in large and 'data-name="2026-01-01/red.png"' in large and "seed 3" in large
    assert "Where it comes from" in ask(client, "family", id=ids[0])["html"]
    assert ask(client, "beside", ids=ids)["html"].count('class="pane"') == 2


def test_a_folder_from_elsewhere_is_only_read(client: TestClient, tmp_path: Path) -> None:
    other = tmp_path / "photos"
    other.mkdir()
    Image.new("RGB", (60, 40), "#10d010").save(other / "green.jpg")
    key = ask(client, "folder", place=str(other))["folder"]
    answer = ask(client, "find", folder=key)
    assert answer["total"] == 1 and 'data-name=""' in answer["cells"]
    assert client.get(f"/library/file/green.jpg?folder={key}").headers["content-type"] == "image/jpeg"
    assert "only read" in ask(client, "act", folder=key, do="bin", ids=["green.jpg"])["error"]
    assert not ask(client, "choices", folder=key)["own"] and "photos" in ask(client, "choices")["folder"]
    assert sorted(one.name for one in other.iterdir()) == ["green.jpg"]


def test_who_may_open_folders(tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    closed = Folders(Library(outputs), outputs)
    with pytest.raises(BadInput, match="your own computer"):
        closed.open(str(tmp_path))
    assert not closed and 'data-menu="folder"' not in frame(folders=bool(closed))
    given = Folders(Library(outputs), outputs, given=[tmp_path])
    assert given and 'data-menu="folder"' in frame(folders=True)
    opening = Folders(Library(outputs), outputs, may_open=True)
    assert opening.open(str(outputs)) == HERE
    for k in range(MOST):
        (tmp_path / str(k)).mkdir()
        opening.open(str(tmp_path / str(k)))
    assert opening.open(str(tmp_path / "3")) in opening.opened()
    with pytest.raises(BadInput, match="which is the most"):
        opening.open(str(tmp_path))
    for each in (closed, given, opening):
        each.close()


def test_what_goes_to_another_tab(tmp_path: Path) -> None:
    hang(tmp_path, "red", "red")
    context: Any = Context(tmp_path, Folders(Library(tmp_path), tmp_path))
    name = "2026-01-01/red.png"
    for act, handed in (
        ("reuse", "generate:settings:"),
        ("remix", "generate:remix:"),
        ("edit", "edit:start:"),
    ):
        assert sent(context, {"act": act, "name": name})["handover"] == handed + name
    assert "handover" not in sent(context, {"act": "explode", "name": name})
    assert "handover" not in sent(context, {"act": "edit", "name": "../secret.png"})


def test_queries_take_no_path_from_a_browser() -> None:
    with pytest.raises(BadInput):
        query_of({"given": ["/etc/passwd"]})
    query = query_of({"text": "cat:1 -dog", "stacked": False, "binned": True, "starred": "yes"})
    assert query.binned and not query.stacked and not query.starred and len(query.terms) == 2
