"""The Optimize tab: a picture that grows, played like an instrument."""

from app.ui.tabs.optimize.tab import build as build
