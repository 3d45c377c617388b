"""A visit of the page takes little memory on the server, and there are not more of them than a fixed number."""

from __future__ import annotations

import pickle
import sys
from typing import Any

import httpx
import pytest

from app.jobs.queue import JobQueue
from app.ui import sessions


def size_of(visit: Any) -> int:
    """Bytes of what a visit holds of its own: its tables, and the texts in them."""
    tables = [visit.config_values, visit.state_data, visit.blocks_config.blocks, visit.blocks_config.fns]
    return sum(map(sys.getsizeof, tables)) + len(pickle.dumps(visit.config_values))


def test_visits_take_little_and_end(studio: tuple[str, JobQueue], monkeypatch: pytest.MonkeyPatch) -> None:
    import gc

    monkeypatch.setattr(sessions, "MOST_VISITS", 200)
    url, _ = studio
    functions = httpx.get(f"{url}config").json()["dependencies"]
    look = next(one["id"] for one in functions if one["api_name"] == "watch")
    holders = [
        one for one in gc.get_objects() if type(one) is sessions.VisitHolder and one.blocks.local_url == url
    ]  # those of pages that were served here before may still be there
    for holder in holders:
        holder.capacity = 5
    for number in range(12):
        body = {"data": ["", "somebody", ""], "fn_index": look, "session_hash": f"visit{number}"}
        assert httpx.post(f"{url}gradio_api/run/predict", json=body).status_code == 200
    holder = next(one for one in holders if "visit11" in one.session_data)
    names = [name for name in holder.session_data if name.startswith("visit")]
    assert names == [f"visit{number}" for number in range(7, 12)]
    assert set(holder.time_last_used) <= set(holder.session_data)
    assert all(size_of(visit) < 60_000 for visit in holder.session_data.values())
