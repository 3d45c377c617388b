"""Teaching on the tab See: the labels with their pictures, and how good the label set is that was taught."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from app.ui.html.common import button
from app.ui.i18n import both, both_aloud
from app.ui.markup import html, joined
from app.ui.tray import Shown
from pipelines.see.probe import Curve, CurvePoint, Probe

WIDTH, HEIGHT, LEFT, BOTTOM = 320.0, 150.0, 44.0, 22.0  # of the curve's drawing


def groups(taught: Mapping[str, Sequence[Shown]]) -> Markup:
    """The labels that are being taught, with their pictures."""
    rows = joined(
        html(
            '<li><b>{}</b><span class="faces">{}</span><span class="count">{}</span>'
            '<button type="button" class="quiet" data-act="forget" data-label="{}" aria-label="{}">×</button></li>',
            label,
            joined(html('<img src="{}" alt="">', picture.small) for picture in pictures[:6]),
            len(pictures),
            label,
            both_aloud("see_forget"),
        )
        for label, pictures in taught.items()
    )
    return html(
        '<section class="answer"><h3>{}</h3>{}<p class="small">{}</p></section>',
        both("see_groups"),
        html('<ul class="groups">{}</ul>', rows) if taught else "",
        both("see_teach_more") if len(taught) < 2 else both("see_teach_ready"),
    )


def learned(probe: Probe, curve: Curve, name: str) -> Markup:
    """What was learned: the curve beside zero-shot, and the file."""
    return html(
        '<section class="answer"><h3>{}</h3>{}<p class="small">{}</p><p class="acts">{}'
        '<a class="quiet" href="{}" download="{}">{}</a></p></section>',
        both("see_taught", count=len(probe.labels), pictures=probe.facts["pictures"]),
        _curve(curve),
        both("see_curve_text", pictures=curve.pictures) if curve.points else both("see_curve_none"),
        button("see_use_it", "use", taught=name),
        probe.to_uri(),
        name,
        both("see_save_it"),
    )


@dataclass(frozen=True)
class _Plot:
    """Places in the drawing: of points by their number of `count`, and of accuracies from `floor` to 1."""

    count: int
    floor: float

    def x(self, k: int) -> float:
        return LEFT + 12 + k * (WIDTH - LEFT - 28) / max(1, self.count - 1)

    def y(self, accuracy: float) -> float:
        return 8 + (HEIGHT - BOTTOM - 8) * (1 - (accuracy - self.floor) / (1 - self.floor))


def _curve(curve: Curve) -> Markup | str:
    """Accuracy over pictures a label, with its spread, and zero-shot as a line."""
    if not curve.points:
        return ""
    low = min(curve.zero_shot, *(min(point.accuracies) for point in curve.points))
    plot = _Plot(len(curve.points), min(0.9, max(0.0, int(10 * low - 0.5) / 10)))
    line = " ".join(f"{plot.x(k):.1f},{plot.y(point.mean):.1f}" for k, point in enumerate(curve.points))
    marks = joined(
        html(
            '<text x="{:.1f}" y="{:.1f}" text-anchor="end">{:.0f} %</text>',
            LEFT - 6,
            plot.y(accuracy) + 4,
            100 * accuracy,
        )
        for accuracy in (plot.floor, (1 + plot.floor) / 2, 1.0)
    )
    zero = html(
        '<line class="zero-shot" x1="{0:.1f}" x2="{1:.1f}" y1="{2:.1f}" y2="{2:.1f}"/>',
        LEFT,
        WIDTH - 8,
        plot.y(curve.zero_shot),
    )
    return html(
        '<svg class="shots" viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">{}{}<polyline points="{}"/>{}</svg>'
        '<p class="legend"><span class="key critic">{}</span><span class="key clip">{}</span></p>',
        WIDTH,
        HEIGHT,
        both_aloud("see_curve"),
        zero,
        marks,
        line,
        joined(_point(plot, k, point) for k, point in enumerate(curve.points)),
        both("see_curve"),
        both("see_zero_shot", share=f"{100 * curve.zero_shot:.0f}"),
    )


def _point(plot: _Plot, k: int, point: CurvePoint) -> Markup:
    """One number of pictures: the mean, from the lowest to the highest, and the number below."""
    return html(
        '<line class="whisker" x1="{0:.1f}" x2="{0:.1f}" y1="{1:.1f}" y2="{2:.1f}"/>'
        '<circle cx="{0:.1f}" cy="{3:.1f}" r="4"/><text x="{0:.1f}" y="{4:.1f}" text-anchor="middle">{5}</text>',
        plot.x(k),
        plot.y(min(point.accuracies)),
        plot.y(max(point.accuracies)),
        plot.y(point.mean),
        HEIGHT - 4,
        point.shots,
    )
