"""A soak: a served studio under clients, kills, mutated pictures, a full disk and slow lines; its memory is watched.

Each trial counts what it tried and what went wrong. Wrong is an answer without a sentence, a picture of somebody else, a
server that is gone or slow, and memory that grows. A refusal in a sentence is not.
"""

from __future__ import annotations

import base64
import io
import json
import random
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx2 as httpx
import psutil
from PIL import Image

from app.soak_requests import FOREIGN, odd_requests
from pipelines.core.record import read_texts, record_from_json
from pipelines.errors import BadInput

WORDS = ("red", "blue", "green", "small", "old"), ("heart", "house", "star", "fish", "tree", "cup")
ANSWER_SECONDS = 10.0  # within which a page has to come, and a run to stop, whatever else goes on
START_SECONDS = 180.0
GROWTH = 8.0  # MB of memory in 100 jobs, over the second half of a soak; above is wrong
FEW_JOBS = 100  # under which it is not told: each tool loads its models at its first job

Kind = Literal["made", "refused", "broken"]


@dataclass
class Row:
    """One trial: how often it was tried, what went wrong, in words, and what else is worth telling."""

    name: str
    tried: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)
    told: str = ""

    def note(self, kind: Kind, words: str) -> None:
        self.tried += 1
        self.refused += kind == "refused"
        if kind == "broken":
            self.wrong.append(words[:200])


class Server:
    """A studio in a process of its own, which can be killed and started again over the same folder.

    `command` starts it at a port; {port} and {folder} in it are filled in.
    """

    def __init__(self, command: Sequence[str], folder: Path, log: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url, self.folder, self._log = f"http://127.0.0.1:{self.port}/", folder, log
        self._command = [part.format(port=self.port, folder=folder) for part in command]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until the page is there. BadInput when it does not come."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            with suppress(httpx.HTTPError):
                if httpx.get(self.url, timeout=5, trust_env=False).status_code == 200:
                    return
            time.sleep(0.1)
        raise BadInput("cli.soak_no_start", log=self._log)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def megabytes(self) -> float:
        """Its memory that is its own."""
        assert self.process is not None
        with suppress(psutil.Error):
            return psutil.Process(self.process.pid).memory_info().rss / 1e6
        return 0.0

    def fill_disk(self, full: bool) -> bool:
        """As if its disk were full: no file of its grows. False where the system has no such limit."""
        try:
            import resource

            assert self.process is not None
            _, hard = resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (0 if full else hard, hard))
        except (ImportError, AttributeError, OSError):
            return False
        return True


class Caller:
    """A program that calls the tools over a connection of its own."""

    def __init__(self, url: str) -> None:
        self.client = httpx.Client(base_url=url, timeout=300, trust_env=False)

    def call(self, tool: str, **values: Any) -> tuple[Kind, Any]:
        """What a tool answers: what it made, a sentence, or what is broken."""
        try:
            begun = self.client.post(f"/gradio_api/call/v2/{tool}", json=values)
            if begun.status_code >= 400:
                return self._refusal(begun)
            address = f"/gradio_api/call/v2/{tool}/{begun.json()['event_id']}"
            text = self.client.get(address).text
            event, _, data = text.rstrip().rpartition("\ndata: ")
            answer = json.loads(data)
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as problem:
            return "broken", f"{tool}: {type(problem).__name__}: {problem}"
        if event.endswith("complete"):
            return "made", answer
        sentence = answer.get("error") if isinstance(answer, dict) else answer
        inside = not sentence or "failed inside" in str(sentence)
        return ("broken" if inside else "refused"), f"{tool}: {sentence}"

    @staticmethod
    def _refusal(answer: httpx.Response) -> tuple[Kind, str]:
        kind: Kind = "broken" if answer.status_code == 500 else "refused"
        return kind, f"{answer.status_code} {answer.text[:120]}"

    def close(self) -> None:
        self.client.close()


class Soak:
    """The trials over one server. `small` are settings that make a run short, by tool."""

    def __init__(
        self, server: Server, small: dict[str, dict[str, Any]], picture: bytes, seed: int = 0
    ) -> None:
        self.server, self.small, self.picture = server, small, picture
        self.random = random.Random(seed)
        self.rows: dict[str, Row] = {}
        self.curve: list[tuple[int, float]] = []  # jobs made, MB
        self.made = 0

    def row(self, name: str) -> Row:
        return self.rows.setdefault(name, Row(name))

    # ---------------------------------------------------------------------------------------------------- the trials

    def clients(self, count: int, each: int) -> None:
        """Programs at once; each gets pictures of its own prompts."""
        row, lock = self.row("clients"), threading.Lock()
        prompts = [[self._prompt() for _ in range(each)] for _ in range(count)]

        def work(own: list[str]) -> None:
            caller = Caller(self.server.url)
            for number, prompt in enumerate(own):
                tool = list(self.small)[number % len(self.small)]
                kind, answer = caller.call(tool, prompt=prompt, **self.small[tool])
                if kind == "made" and (shown := _prompt_in(caller, answer)) != prompt:
                    kind, answer = "broken", f"asked for {prompt!r} and got {shown!r}"
                with lock:
                    self.made += kind == "made"
                    row.note(kind, str(answer))
            caller.close()

        with ThreadPoolExecutor(count) as pool:
            list(pool.map(work, prompts))
        self._look()

    def mutated_pictures(self, count: int) -> None:
        """Pictures with wrong bytes: ranked, or refused in a sentence."""
        row, caller = self.row("mutated pictures"), Caller(self.server.url)
        for _ in range(count):
            uri = "data:image/png;base64," + base64.b64encode(self._mutated()).decode("ascii")
            kind, answer = caller.call("rank", pictures=[uri], text="a heart")
            row.note(kind, str(answer))
        caller.close()
        self._still_there(row)

    def strangers(self, count: int) -> None:
        """Odd requests, which are answered without an error of the server, and those of other pages, which are refused."""
        row = self.row("odd requests")
        asked = odd_requests()
        with httpx.Client(base_url=self.server.url, timeout=60, trust_env=False) as client:
            for method, path, body in self.random.sample(asked, min(count, len(asked))):
                origin = (
                    self.random.choice(FOREIGN) if method == "POST" and self.random.random() < 0.2 else ""
                )
                headers = {"Origin": origin} if origin else {}
                try:
                    status = client.request(method, "/" + path, content=body, headers=headers).status_code
                except httpx.HTTPError as problem:
                    row.note("broken", f"{method} {path[:80]}: {type(problem).__name__}")
                    continue
                good = status == 403 if origin else status < 500
                kind: Kind = "broken" if not good else "refused" if status >= 400 else "made"
                row.note(kind, f"{method} {path[:80]}: {status} {origin} {body[:60]!r}")
        self._still_there(row)

    def slow_lines(self, count: int, seconds: float) -> None:
        """Callers that send their requests a byte at a time keep nobody else waiting."""
        row, address = self.row("slow lines"), urlsplit(self.server.url)
        lines = []
        for _ in range(count):
            with suppress(OSError):
                line = socket.create_connection((address.hostname, address.port), 5)
                line.sendall(
                    b"POST /gradio_api/run/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000\r\n\r\n"
                )
                lines.append(line)
        end, slowest = time.monotonic() + seconds, 0.0
        while time.monotonic() < end:
            for line in lines:
                with suppress(OSError):
                    line.send(b" ")
            slowest = max(slowest, self._still_there(row))
            time.sleep(0.1)
        row.told = f"the page in {slowest:.1f} s at most beside {len(lines)} of them"
        for line in lines:
            line.close()

    def stop(self, load: int) -> None:
        """A run that is stopped under load ends within a step or two of its own."""
        row, over = self.row("stop under load"), threading.Event()

        def ask() -> None:
            with httpx.Client(base_url=self.server.url, timeout=30, trust_env=False) as client:
                while not over.is_set():
                    with suppress(httpx.HTTPError):
                        client.get("/config")

        with ThreadPoolExecutor(load + 1) as pool:
            for _ in range(load):
                pool.submit(ask)
            caller, before = Caller(self.server.url), self._journals()
            running = pool.submit(
                caller.call, "optimize", prompt="a tower", **{**self.small["optimize"], "steps": 300}
            )
            while self._journals() <= before and not running.done():  # models are loaded first
                time.sleep(0.05)
            asked = time.monotonic()
            self._stop_all()
            kind, answer = running.result()
            seconds = time.monotonic() - asked
            over.set()
            row.note(
                "broken" if kind == "broken" or seconds > ANSWER_SECONDS else "made",
                f"{seconds:.1f} s: {answer}",
            )
            row.told = f"{seconds:.1f} s after it was asked for"
            caller.close()

    def full_disk(self) -> None:
        """With a full disk runs fail in a sentence, and work again afterwards."""
        row, caller = self.row("full disk"), Caller(self.server.url)
        if not self.server.fill_disk(True):
            row.told = "this system cannot try it"
            return
        try:
            for tool in self.small:
                kind, answer = caller.call(tool, prompt=self._prompt(), **self.small[tool])
                row.note("broken" if kind == "made" else kind, f"saved on a full disk: {answer}")
            self._still_there(row)
        finally:
            self.server.fill_disk(False)
        tool = next(iter(self.small))
        kind, answer = caller.call(tool, prompt=self._prompt(), **self.small[tool])
        row.note("broken" if kind != "made" else kind, f"afterwards: {answer}")
        self.made += kind == "made"
        caller.close()

    def kill(self) -> None:
        """A server that is killed in the middle of runs starts again with every picture that it had finished."""
        row = self.row("kills")
        before = self._pictures()
        with ThreadPoolExecutor(3) as pool:
            callers = [Caller(self.server.url) for _ in range(3)]
            for caller in callers:
                pool.submit(
                    caller.call, "optimize", prompt=self._prompt(), **{**self.small["optimize"], "steps": 200}
                )
            time.sleep(self.random.uniform(0.1, 1.5))
            self.server.kill()
        for caller in callers:
            caller.close()
        try:
            self.server.start()
        except BadInput as problem:
            row.note("broken", str(problem))
            return
        lost = before - self._pictures()
        broken = [path.name for path in self._pictures() if _broken(path)]
        row.note("broken" if lost or broken else "made", f"lost {len(lost)}, broken {broken[:3]}")
        self._still_there(row)
        self.curve.clear()  # another process

    # --------------------------------------------------------------------------------------------------- the outcome

    def memory(self) -> Row:
        """How the server's memory grew over the second half of what was made since its last start."""
        row = self.row("memory")
        half = self.curve[len(self.curve) // 2 :]
        jobs = half[-1][0] - half[0][0] if half else 0
        if jobs < FEW_JOBS:
            row.told = f"{half[-1][1]:.0f} MB; too few jobs to tell its growth" if half else ""
            return row
        growth = (half[-1][1] - half[0][1]) / jobs * 100
        row.tried, row.told = jobs, f"{half[-1][1]:.0f} MB, {growth:+.1f} MB in 100 jobs of the second half"
        if growth > GROWTH:
            row.wrong.append(row.told)
        return row

    def table(self) -> str:
        """What was tried, as a table of Markdown."""
        self.memory()
        lines = ["| trial | tried | refused in a sentence | wrong | |", "|---|---|---|---|---|"]
        lines += [
            f"| {row.name} | {row.tried:,} | {row.refused:,} | {len(row.wrong):,} | {row.told} |"
            for row in self.rows.values()
        ]
        return "\n".join(lines) + "\n"

    @property
    def wrong(self) -> list[str]:
        """All that went wrong, in words."""
        return [f"{row.name}: {words}" for row in self.rows.values() for words in row.wrong]

    # ------------------------------------------------------------------------------------------------------- the parts

    def _prompt(self) -> str:
        return (
            f"a {self.random.choice(WORDS[0])} {self.random.choice(WORDS[1])} {self.random.randrange(10**6)}"
        )

    def _mutated(self) -> bytes:
        data = bytearray(self.picture)
        for _ in range(self.random.choice((1, 1, 3, 20))):
            at = self.random.randrange(len(data))
            change: Callable[[], None] = self.random.choice(
                (
                    lambda at=at: data.__setitem__(at, self.random.randrange(256)),
                    lambda at=at: data.__setitem__(slice(at, at + self.random.randrange(64)), b""),
                    lambda at=at: data.__setitem__(slice(at, at), self.random.randbytes(8)),
                )
            )
            change()
        return bytes(data) or b"\0"

    def _still_there(self, row: Row) -> float:
        """The seconds in which the page came, which is one more thing tried."""
        begun = time.monotonic()
        try:
            status = httpx.get(self.server.url, timeout=ANSWER_SECONDS, trust_env=False).status_code
            row.note("made" if status == 200 else "broken", f"the page: {status}")
        except httpx.HTTPError as problem:
            row.note("broken", f"the page: {type(problem).__name__}")
        return time.monotonic() - begun

    def _look(self) -> None:
        self.curve.append((self.made, self.server.megabytes))

    def _stop_all(self) -> None:
        """Stop every run that has a journal, by the address that the page's button uses."""
        for folder in (self.server.folder / "runs").glob("*/"):
            with suppress(httpx.HTTPError):
                httpx.post(f"{self.server.url}stop/{folder.name}", timeout=10, trust_env=False)

    def _journals(self) -> set[Path]:
        return set(self.server.folder.glob("runs/*/*"))

    def _pictures(self) -> set[Path]:
        return {path for path in self.server.folder.glob("*-*-*/*.png") if not path.name.startswith(".")}


def _prompt_in(caller: Caller, answer: Any) -> str:
    """The prompt in the record of the picture that an answer names."""
    try:
        data = caller.client.get(answer[0]["url"]).content
        return str(record_from_json(read_texts(data)["atelier"]).settings["prompt"])
    except (httpx.HTTPError, BadInput, LookupError, TypeError) as problem:
        return f"{type(problem).__name__}: {problem}"


def _broken(path: Path) -> bool:
    try:
        Image.open(io.BytesIO(path.read_bytes())).load()
    except (OSError, SyntaxError, ValueError):
        return True
    return False
