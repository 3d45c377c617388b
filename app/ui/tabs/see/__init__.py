"""The See tab: what CLIP sees in pictures."""

from app.ui.tabs.see.tab import build as build
