"""The verb `bench`: the speed of pipelines, of batches and lanes, of the page, and of the library's search."""

from __future__ import annotations

import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from app.cli.bench_lanes import bench_batch, bench_lanes
from app.cli.bench_page import bench_page
from app.library import Library, near, read_query
from app.library.entry import Marks
from app.library.facts import FileFacts
from app.library.files import places_of
from app.library.finding import Finder
from app.library.index import Index
from app.library.query import Query
from app.library.reading import Look, look_at
from app.library.seeing import ClipLike, fingerprint, picture_vectors
from app.library.vectors import Vectors
from pipelines.benchmarks import cli
from pipelines.benchmarks.machine import timed
from pipelines.core.record import Record, versions, write_png
from pipelines.io.images import to_pil
from pipelines.studio import Studio

SEARCHES = (
    "cat:1 night:0.5 -dog",
    "a red heart",
    "猫",
    "strawberry:1 -face",
    "clock, old town",
    "a smiling face",
)


def main(arguments: list[str]) -> int:
    """The benches of the pipelines, `search`, `batch`, `lanes` and `page`; returns the exit code."""
    here = {"search": bench_search, "batch": bench_rows, "lanes": bench_lanes, "page": bench_served}
    return cli.main(arguments, {**cli.BENCHES, **here})


def bench_rows(device: str = "auto") -> dict[str, Any]:
    """`bench_batch` in a folder that goes afterwards."""
    with folder() as home:
        return bench_batch(home, device)


def bench_served(device: str = "auto") -> dict[str, Any]:
    """`bench_page` in a folder that goes afterwards."""
    with folder() as home:
        return bench_page(home, device)


def bench_search(
    device: str = "auto", pictures: int = 5000, broken: int = 100, vectors: int = 50_000, large: int = 200_000
) -> dict[str, Any]:
    """What the library takes: to fill its index, to open, to search; the size of its index; how exact large ones are."""
    clip = Studio("tiny", device).clip()
    with folder() as home:
        made = home / "pictures"
        say(f"writing {pictures:,} pictures and {broken:,} broken ones")
        write_pictures(made, pictures, broken)
        figures = {**measure_filling(made, clip), **measure_folder(made, home / "outputs", clip)}
    for size in (256, 512):  # the pack's CLIP, and ViT-B/32
        with folder() as home:
            figures |= measure_queries(home, vectors, size)
    if near.available():
        with folder() as home:
            figures |= measure_graph(home, large)
    else:
        figures["usearch"] = "is not installed; it is the extra `search` of pyproject.toml"
    return figures


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextmanager
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="atelier-bench-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


# -------------------------------------------------------------------------------------------------------- pictures


def write_pictures(made: Path, count: int, broken: int) -> None:
    """Variants of the pack's pictures with records, and files that are none or end in their middle."""
    from pipelines.edit.source_images import SourceImages
    from pipelines.weights.catalog import CHECKPOINTS

    source = SourceImages.load(CHECKPOINTS["tiny-pictures"].path)
    generator = np.random.default_rng(0)
    for number in range(count):
        image = to_pil(source.tensor([number % len(source)], 256))[0]
        levels = np.asarray(image, np.float32) * generator.uniform(0.6, 1.0, 3)
        image = Image.fromarray(levels.astype(np.uint8))
        name = source.names[number % len(source.names)]
        write_png(made / f"{number // 500:02}" / f"{number}.png", image, _record(name, number))
    good = (made / "00" / "0.png").read_bytes()
    for number in range(broken):
        data = (good[: len(good) // 2], b"", b"no picture at all", good[:8] + bytes(200))[number % 4]
        (made / f"broken-{number}.png").write_bytes(data)


def _record(name: str, seed: int) -> Record:
    return Record(
        pipeline="generate", pack="tiny", settings={"prompt": name, "seed": seed}, models={}, versions=versions(),
        device="cpu", picture={"seed": seed, "score": None, "rank": 1}, created="2026-11-29T12:00:00+00:00",
    )  # fmt: skip


def measure_filling(made: Path, clip: ClipLike, count: int = 480) -> dict[str, float]:
    """Pictures a second: decoding alone, CLIP alone, one after the other, and overlapped as the library does it."""
    files = sorted(made.glob("0*/*.png"))[:count]
    looks: list[Look] = []
    decoding = timed(lambda: looks.extend(look_at(file, bytes([0])) for file in files))
    shown = [look.picture for look in looks if look.picture is not None]
    seeing = timed(lambda: [picture_vectors(clip, shown[k : k + 32]) for k in range(0, len(shown), 32)])
    with folder() as home:
        for number, file in enumerate(files):
            target = home / "pictures" / f"{number}.png"
            target.parent.mkdir(exist_ok=True)
            shutil.copy2(file, target)
        with closing(Library(home / "pictures", outputs=home)) as library:
            together = timed(lambda: library.fill(clip))
    return {
        "decoding alone: pictures a second": len(files) / decoding,
        "CLIP alone: pictures a second": len(files) / seeing,
        "one after the other: pictures a second": len(files) / (decoding + seeing),
        "the library, overlapped, all written: pictures a second": len(files) / together,
    }


def measure_folder(made: Path, outputs: Path, clip: ClipLike) -> dict[str, Any]:
    """A folder with broken files: filled once, then opened and searched."""
    with closing(Library(made, outputs=outputs)) as library:
        first = timed(lambda: library.page(Query(), 0, 48))
        library.stop_index()
        say("filling the index")
        filling = timed(lambda: library.fill(clip))
        count, left_out = library.count(), len(library.broken())
    with closing(Library(made, outputs=outputs)) as library:

        def opened() -> None:
            page = library.page(Query(), 0, 48, clip)
            for found in page.found:
                library.thumbnail(found.entry.id)

        opening = timed(opened)
        library.page(read_query("warm up"), 0, 48, clip)
        searches = [timed(lambda text=text: library.page(read_query(text), 0, 48, clip)) for text in SEARCHES]
        scrolls = [timed(lambda skip=skip: library.page(Query(), skip, 48)) for skip in range(48, 960, 48)]
    return {
        "pictures": count,
        "broken files, listed": left_out,
        "first page of a folder never seen: seconds": first,
        "filling the whole index: seconds": filling,
        "opening with a full index, with thumbnails: seconds": opening,
        "search: seconds (median)": median(searches),
        "search: seconds (longest)": max(searches),
        "next page: seconds (median)": median(scrolls),
    }


# --------------------------------------------------------------------------------------------------------- vectors


def clustered(count: int, size: int, seed: int, centres: int = 2000) -> np.ndarray:
    """(count, size) unit vectors around centres, as those of pictures are: neighbours have cosines of about 0.7."""
    generator = np.random.default_rng(seed)
    middle = np.random.default_rng(1).standard_normal((centres, size)).astype(np.float32)
    vectors = middle[generator.integers(centres, size=count)]
    vectors += 0.65 * generator.standard_normal((count, size)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def fill_index(index: Index, vectors: np.ndarray, mark: str) -> None:
    """An index of pictures that are not there."""
    for start in range(0, len(vectors), 5000):
        part = vectors[start : start + 5000]
        contents = [(start + k).to_bytes(12, "big") for k in range(len(part))]
        index.facts.put(
            FileFacts(
                f"2026-11-29/20261129-120000-{start + k:06}-1.png", 10**18 + start + k, 100_000, content, "made",
                "generate", str(start + k), "dalle", f"a picture of the thing number {start + k} in the style of icons",
                wording=start + k,
            )
            for k, content in enumerate(contents)
        )  # fmt: skip
        for first in range(0, len(part), 500):  # SQLite's most variables in one question
            looks = [Look(content, look=bytes(108)) for content in contents[first : first + 500]]
            index.keep(looks, mark, part[first : first + 500])


def measure_queries(home: Path, count: int, size: int) -> dict[str, Any]:
    """Queries over vectors of `size` numbers, and how much the index takes."""
    say(f"an index of {count:,} vectors of {size} numbers")
    clip = Looked(size)
    index = Index(places_of(home), threading.Event())
    fill_index(index, clustered(count, size, 2), fingerprint(clip))
    finder = Finder(index, dict[str, Marks], lambda name: (0, name))
    texts = [read_query(f"{k}:1 {k + 1}:0.5 -{k + 2}x") for k in range(12)]
    finder.order(read_query("warm up"), clip, 0, True, 48).places(0, 48)
    times = [
        timed(lambda query=query: finder.order(query, clip, 0, True, 48).places(0, 48)) for query in texts
    ]
    index.close()
    files = {file.name: file.stat().st_size / 1e6 for file in index.places.index.iterdir() if file.is_file()}
    named = f"{count:,} vectors of {size}"
    return {
        f"{named}: seconds a query (median)": median(times),
        f"{named}: seconds a query (longest)": max(times),
        f"{named}: MB of vectors": sum(
            megabytes for name, megabytes in files.items() if name.endswith(".f16")
        ),
        f"{named}: MB in all": sum(files.values()),
    }


class Looked:
    """A CLIP whose texts are directions from their letters, which take no time; it sees nothing."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._directions = clustered(256, size, 1000)

    def encode_text(self, prompts: list[str]) -> Any:
        import torch

        rows = [sum(map(ord, prompt)) % len(self._directions) for prompt in prompts]
        return torch.from_numpy(self._directions[rows])

    def encode_image(self, images: Any) -> Any:
        import torch

        return torch.nn.functional.normalize(torch.ones(len(images), self.size), dim=1)


def measure_graph(home: Path, count: int, size: int = 256, queries: int = 200) -> dict[str, Any]:
    """How many of the exact ten nearest the graph finds, and what it takes."""
    say(f"a graph of {count:,} vectors of {size} numbers")
    vectors = Vectors(home / "vectors.f16", size)
    vectors.write(0, clustered(count, size, 3))
    graph = near.NearIndex(home / "vectors.usearch", size)
    building = timed(lambda: graph.add(vectors, count))
    wanted = clustered(queries, size, 4)
    exact = timed(lambda: vectors.dot(wanted[:1].T, count))
    best = np.argsort(-vectors.dot(wanted.T, count), axis=0)[:10].T  # (queries, 10)
    hits = [len(np.intersect1d(graph.search(one, 10)[0], best[k])) for k, one in enumerate(wanted)]
    times = [timed(lambda one=one: graph.search(one, near.ENTRIES)) for one in wanted[:20]]
    return {
        f"usearch, {count:,} vectors: seconds to build": building,
        f"usearch, {count:,} vectors: MB": graph.file.stat().st_size / 1e6,
        f"usearch, {count:,} vectors: recall@10": sum(hits) / (10 * queries),
        f"usearch, {count:,} vectors: seconds a query of {near.ENTRIES:,}": median(times),
        f"exact, {count:,} vectors: seconds a query": exact,
    }
