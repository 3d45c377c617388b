"""The Generate tab: a prompt becomes ranked pictures."""

from app.ui.tabs.generate.tab import build as build
