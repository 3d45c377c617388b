"""Gradio's memory of page visits, made small.

Gradio keeps for each visit of the page, and for each connection of a program, a copy of the page's configuration (0.37 MB,
for links that this page does not use), and ten thousand of them. What has to stay of a visit here is which components were
replaced by others, and the values of its states.
"""

from __future__ import annotations

from copy import copy
from datetime import datetime
from typing import Any

from gradio import Blocks, State
from gradio.state_holder import SessionState, StateHolder

MOST_VISITS = 200  # the ones used last; an older one begins anew


class Visit(SessionState):
    """One visit, without the copy of the configuration."""

    def __init__(self, blocks: Blocks) -> None:
        self.blocks_config = copy(blocks.default_config)
        self.config_values: dict[int, Any] = {}
        self.state_data: dict[int, Any] = {}
        self._state_ttl: dict[int, Any] = {}
        self.is_closed = False
        self.STATE_TTL_WHEN_CLOSED = 3600

    def __setitem__(self, key: int, value: Any) -> None:
        block = self.blocks_config.blocks.get(key)
        if isinstance(block, State):
            self._state_ttl[key] = block.time_to_live, datetime.now()
            self.state_data[key] = value
        else:
            self.blocks_config.blocks[key] = value

    def _update_config(self, key: int) -> None:
        pass

    def _update_value_in_config(self, key: int, value: Any) -> None:
        pass


class VisitHolder(StateHolder):
    """Visits by their names, at most MOST_VISITS."""

    def __init__(self, blocks: Blocks) -> None:
        super().__init__()
        self.set_blocks(blocks)
        self.capacity = MOST_VISITS

    def __getitem__(self, session_id: str) -> SessionState:
        if session_id not in self.session_data:
            self.session_data[session_id] = Visit(self.blocks)
        return super().__getitem__(session_id)
