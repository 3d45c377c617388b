"""The Edit tab: a picture changed from one text to another."""

from app.ui.tabs.edit.tab import build as build
