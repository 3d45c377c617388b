"""The list of a visitor's runs behind the header's word on the queue: reorder, drop, clear, pause."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import gradio as gr

from app.jobs.queue import JobQueue
from app.ui.context import clicked
from app.ui.html.page import queue_status
from pipelines.errors import BadInput


class QueuePanel:
    """The functions behind the list. Holds nothing of a visitor's."""

    def __init__(self, queue: JobQueue) -> None:
        self.queue = queue

    def act(self, visitor: str, event: gr.EventData) -> Any:
        """A click in the list: the list as it stands after it. Clicks that others answer are left to them."""
        data = clicked(event)
        act, job = data.get("act", ""), data.get("job", "")
        if not act.startswith("queue-"):
            return gr.skip()
        with suppress(BadInput):  # the job is over, and not known any more
            if act in ("queue-up", "queue-down"):
                self.queue.move(job, -1 if act == "queue-up" else 1)
            elif act == "queue-drop":
                self.queue.cancel(job)
            elif act == "queue-stop":
                self.queue.stop(job)
        if act == "queue-clear":
            self.queue.clear(visitor)
        elif act in ("queue-pause", "queue-go-on"):
            self.queue.pause(visitor, act == "queue-pause")
        return self.show(visitor)

    def show(self, visitor: str) -> str:
        """The header's word on the queue with the visitor's list."""
        waiting = len(self.queue.waiting())
        busy = self.queue.busy
        return queue_status(busy, waiting, self.queue.line(visitor), self.queue.is_paused(visitor))
