"""The colours of what is cut out, without the background that shines through its edges, and how opaque these are.

By Germer et al. 2020, "Fast multi-level foreground estimation": where a picture is alpha F + (1 - alpha) B, smooth F and
B are found on a picture of one pixel first, then on ones of twice the size each.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]

# how much neighbours count: everywhere, and times the difference of their opacity
SMOOTH, AT_EDGES = 1e-5, 0.1
SMALL, ROUNDS_SMALL, ROUNDS = 32, 10, 4  # up to this side there are more rounds, because they cost nothing
BAND = 2  # pixels on both sides of an outline whose opacity is worked out anew
ALIKE = 0.15  # distance of two colours in [0, 1]^3 below which nothing between them can be told


def foreground(colours: Array, alpha: Array) -> Array:
    """(h, w, 3) colours and (h, w) opacities, in [0, 1] -> (h, w, 3), the colours of the foreground alone, in [0, 1].

    Where a place is opaque they are the picture's own; where it is clear they go on from the nearest edge.
    """
    height, width = alpha.shape
    front: Array = np.zeros((1, 1, 3), np.float32) + _mean_under(colours, alpha)
    back: Array = np.zeros((1, 1, 3), np.float32) + _mean_under(colours, 1 - alpha)
    levels = max(1, int(np.ceil(np.log2(max(height, width)))))
    for level in range(levels + 1):
        size = (round(width ** (level / levels)), round(height ** (level / levels)))
        seen, opacity = _resized(colours, size), _resized(alpha[..., None], size)
        front, back = _nearest(front, size), _nearest(back, size)
        for _ in range(ROUNDS_SMALL if max(size) <= SMALL else ROUNDS):
            front, back = _solved(seen, opacity, front, back)
    return np.where(alpha[..., None] > 0.999, colours, front)


def at_edges(colours: Array, alpha: Array) -> Array:
    """(h, w, 3) colours and (h, w) opacities, in [0, 1] -> (h, w), the opacities near outlines as the colours say them.

    Within BAND pixels of where the opacity is a half, a colour lies between those that go on from inside and from
    outside (alpha F + (1 - alpha) B), and where it lies is the opacity. Strokes without an inside, and places where the
    two colours are alike, keep theirs.
    """
    thing = alpha > 0.5
    inside, outside = ~_wider(~thing, BAND), ~_wider(thing, BAND)
    if not inside.any() or not outside.any():
        return alpha
    front, back = (foreground(colours, mask.astype(np.float32)) for mask in (inside, outside))
    across = front - back
    length = (across * across).sum(2)
    share = (((colours - back) * across).sum(2) / np.maximum(length, 1e-6)).clip(0, 1)
    known = ~inside & ~outside & _wider(inside, 2 * BAND) & (length > ALIKE**2)
    return np.where(known, share, alpha).astype(np.float32)


def _wider(mask: Mask, by: int) -> Mask:
    """Also what is within `by` pixels of a mask, (h, w)."""
    return np.asarray(Image.fromarray(mask.astype(np.uint8)).filter(ImageFilter.MaxFilter(2 * by + 1))) > 0


def _solved(seen: Array, alpha: Array, front: Array, back: Array) -> tuple[Array, Array]:
    """One round of equation 6: every place is solved with its four neighbours held."""
    weights, fronts, backs = 0.0, 0.0, 0.0
    for axis, by in ((0, 1), (0, -1), (1, 1), (1, -1)):
        weight = SMOOTH + AT_EDGES * np.abs(alpha - _moved(alpha, axis, by))
        weights = weights + weight
        fronts, backs = fronts + weight * _moved(front, axis, by), backs + weight * _moved(back, axis, by)
    clear = 1 - alpha
    a, b, d = alpha * alpha + weights, alpha * clear, clear * clear + weights
    right, below = alpha * seen + fronts, clear * seen + backs
    determinant = a * d - b * b
    new_front = (d * right - b * below) / determinant
    new_back = (a * below - b * right) / determinant
    return new_front.clip(0, 1).astype(np.float32), new_back.clip(0, 1).astype(np.float32)


def _moved(x: Array, axis: int, by: int) -> Array:
    """Every place shows its neighbour; at the border itself."""
    index = (np.arange(x.shape[axis]) + by).clip(0, x.shape[axis] - 1)
    return x.take(index, axis)


def _mean_under(colours: Array, weight: Array) -> Array:
    total = max(float(weight.sum()), 1e-6)
    return ((colours * weight[..., None]).sum((0, 1)) / total).astype(np.float32)


def _resized(x: Array, size: tuple[int, int]) -> Array:
    """(h, w, c) to the size (width, height), by area."""
    channels = [Image.fromarray(x[..., k]).resize(size, Image.Resampling.BOX) for k in range(x.shape[2])]
    return np.stack([np.asarray(channel) for channel in channels], 2)


def _nearest(x: Array, size: tuple[int, int]) -> Array:
    rows = np.arange(size[1]) * x.shape[0] // size[1]
    columns = np.arange(size[0]) * x.shape[1] // size[0]
    return x[rows][:, columns]
