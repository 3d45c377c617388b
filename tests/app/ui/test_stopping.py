"""Stop by its own address, while others ask for all they can."""

from __future__ import annotations

import threading
import time

import httpx

from app.jobs.queue import JobQueue


def test_stop_ends_a_run_at_its_next_step_under_load(studio: tuple[str, JobQueue], queue: JobQueue) -> None:
    url, over = studio[0], threading.Event()

    def ask() -> None:
        while not over.is_set():
            queue.jobs(count=50)
            time.sleep(0.001)

    job_id = queue.submit("optimize", {"prompt": "a slow tower", "steps": 300}, "ann")
    while queue.job(job_id).done < 2:
        time.sleep(0.01)
    crowd = [threading.Thread(target=ask) for _ in range(6)]
    for one in crowd:
        one.start()
    try:
        assert httpx.post(f"{url}stop/{job_id}").status_code == 204
        told = queue._live[job_id].job.done
        while queue._running:
            time.sleep(0.01)
        ended = queue.journal(job_id).steps()[-1]
    finally:
        over.set()
        for one in crowd:
            one.join()
    assert queue.job(job_id).state == "stopped"
    assert ended <= told + 2  # the step that it was in, which may be the next one that nobody was told of yet
    assert httpx.post(f"{url}stop/nobody").status_code == 204
    assert httpx.get(f"{url}stop/{job_id}").status_code == 405
