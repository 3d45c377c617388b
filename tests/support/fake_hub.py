"""Plays the part of the Hugging Face Hub that a deploy talks to, on 127.0.0.1."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_right"


class FakeHub:
    """Spaces by name: their files, hardware, commits. Binary files must come by LFS, as on the Hub."""

    def __init__(self) -> None:
        self.spaces: dict[str, dict[str, Any]] = {}
        self.calls: list[str] = []  # METHOD path
        self.stored: dict[str, bytes] = {}  # LFS objects by their hash
        self.refuse: tuple[int, str] | None = None  # what making a Space is answered with
        hub = self

        class Handler(_Handler):
            def log_message(self, *_: Any) -> None:
                pass

            def answer(self) -> None:
                hub.answer(self)

            do_GET = do_POST = do_PUT = answer

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def make(self, name: str, hardware: str = "zero-a10g", private: bool = False, **files: bytes) -> None:
        self.spaces[name] = {
            "files": {".gitattributes": b"*.bin filter=lfs", **files},
            "hardware": hardware,
            "private": private,
            "commits": [],
        }

    def answer(self, request: _Handler) -> None:
        path = unquote(urlsplit(request.path).path)
        self.calls.append(f"{request.command} {path}")
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        if path.startswith("/stored/"):
            assert hashlib.sha256(body).hexdigest() == path[8:]
            self.stored[path[8:]] = body
            request.tell(200, {})
        elif request.headers.get("Authorization") != f"Bearer {TOKEN}":
            request.tell(401, {"error": "Invalid username or password."})
        elif path == "/api/repos/create":
            self._create(request, json.loads(body))
        elif path == "/api/validate-yaml":
            good = json.loads(body)["content"].startswith("---\ntitle: ")
            request.tell(200 if good else 400, {"errors": [], "warnings": []})
        elif path.endswith(".git/info/lfs/objects/batch"):
            request.tell(200, self._batch(json.loads(body)))
        else:
            _, _, _, owner, name, *rest = path.split("/")
            space = self.spaces.get(f"{owner}/{name}")
            if space is None:
                request.tell(404, {"error": "Repository not found"}, "RepoNotFound")
            else:
                request.tell(200, self._of(space, f"{owner}/{name}", rest, body))

    def _create(self, request: _Handler, asked: dict[str, Any]) -> None:
        assert (asked["type"], asked["sdk"]) == ("space", "gradio")
        if self.refuse:
            request.tell(self.refuse[0], {"error": self.refuse[1]})
            return
        name = f"{asked['organization']}/{asked['name']}"
        self.make(
            name, asked["hardware"], asked.get("visibility") == "private" or asked.get("private", False)
        )
        request.tell(200, {"url": f"{self.address}/spaces/{name}"})

    def _batch(self, asked: dict[str, Any]) -> dict[str, Any]:
        objects = []
        for one in asked["objects"]:
            upload = {"href": f"{self.address}/stored/{one['oid']}", "header": {}}
            objects.append({**one, "actions": {"upload": upload}})
        return {"transfer": "basic", "objects": objects}

    def _of(self, space: dict[str, Any], name: str, rest: list[str], body: bytes) -> Any:
        match rest[:1]:
            case []:
                siblings = [{"rfilename": one} for one in space["files"]]
                hardware = {"current": space["hardware"], "requested": space["hardware"]}
                runtime = {"stage": "RUNNING", "hardware": hardware}
                facts = {"id": name, "private": space["private"], "sha": "0" * 40}
                return {**facts, "siblings": siblings, "runtime": runtime}
            case ["hardware"]:
                space["hardware"] = json.loads(body)["flavor"]
                return {"stage": "RUNNING", "hardware": {"current": None, "requested": space["hardware"]}}
            case ["preupload"]:
                return {"files": [self._mode(one) for one in json.loads(body)["files"]]}
            case ["commit"]:
                return self._commit(space, name, [json.loads(line) for line in body.splitlines()])
            case ["tree"]:
                return [
                    {"type": "file", "path": path, "size": len(data), "oid": "1" * 40}
                    for path, data in space["files"].items()
                ]
        raise AssertionError(f"the Hub was asked for {rest}")

    def _mode(self, file: dict[str, Any]) -> dict[str, Any]:
        mode = "lfs" if _is_binary(base64.b64decode(file["sample"])) else "regular"
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}

    def _commit(self, space: dict[str, Any], name: str, lines: list[dict[str, Any]]) -> dict[str, Any]:
        files = space["files"]
        for line in lines[1:]:
            path = line["value"]["path"]
            if line["key"] == "file":
                files[path] = base64.b64decode(line["value"]["content"])
                assert not _is_binary(files[path]), "Your push was rejected because it contains binary files"
            elif line["key"] == "lfsFile":
                files[path] = self.stored[line["value"]["oid"]]
            else:
                assert line["key"] == "deletedFile"
                del files[path]
        space["commits"].append(lines[0]["value"]["summary"])
        oid = f"{len(space['commits']):040x}"
        return {"commitUrl": f"{self.address}/spaces/{name}/commit/{oid}", "commitOid": oid}


class _Handler(BaseHTTPRequestHandler):
    def tell(self, status: int, value: Any, code: str = "") -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()
        self.wfile.write(data)


def _is_binary(data: bytes) -> bool:
    try:
        return "\0" in data.decode()
    except UnicodeDecodeError:
        return True
