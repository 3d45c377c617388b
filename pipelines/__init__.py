"""Atelier's pipelines: how pictures are generated, and the networks and trainings behind them."""
