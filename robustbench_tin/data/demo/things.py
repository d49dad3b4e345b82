"""The demo set's ten classes: each has a form, a coarse pattern and a fine texture.

Forms lie inside the unit circle of their own coordinates, with ``v`` pointing down. Form and pattern are
large and of high contrast. The texture is fine and faint, so that an attack of a few grey levels can erase or
forge it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from robustbench_tin.data.demo.drawing import Colour, Grid, box, disc, ellipse, polygon, wave

Shape = Callable[[Grid, Grid], Grid]


@dataclass(frozen=True)
class Thing:
    """A class of objects.

    Attributes:
        name: its name, for the user.
        form: signed distance to the silhouette, in the form's own units.
        pattern: signed distance to the part of it with the second colour.
        texture: a wave in [-1, 1], from coordinates in units of the texture's period.
        colour: the colour that most things of this class are close to.
    """

    name: str
    colour: Colour
    form: Shape
    pattern: Shape
    texture: Shape


def _fish(u: Grid, v: Grid) -> Grid:
    body = ellipse(u, v, 0.2, 0.0, 0.76, 0.46)
    tail = polygon(u, v, (-0.3, 0.0), (-0.85, 0.5), (-0.85, -0.5))
    return np.minimum(body, tail)


def _fish_pattern(u: Grid, v: Grid) -> Grid:
    return np.minimum(disc(u, v, 0.62, -0.1, 0.13), box(u, v, 0.12, 0.0, 0.14, 0.6))


def _mushroom(u: Grid, v: Grid) -> Grid:
    cap = np.maximum(disc(u, v, 0.0, 0.0, 0.95), v - 0.05)
    return np.minimum(cap, box(u, v, 0.0, 0.45, 0.26, 0.48))


def _mushroom_pattern(u: Grid, v: Grid) -> Grid:
    stem = 0.05 - v
    left, right = disc(u, v, -0.45, -0.3, 0.2), disc(u, v, 0.38, -0.22, 0.18)
    return np.minimum(np.minimum(stem, disc(u, v, -0.02, -0.62, 0.17)), np.minimum(left, right))


def _house(u: Grid, v: Grid) -> Grid:
    walls = box(u, v, 0.0, 0.4, 0.6, 0.38)
    roof = polygon(u, v, (0.0, -0.92), (0.9, 0.05), (-0.9, 0.05))
    return np.minimum(walls, roof)


def _house_pattern(u: Grid, v: Grid) -> Grid:
    return np.minimum(v - 0.05, box(u, v, 0.18, 0.58, 0.16, 0.28))


def _pine(u: Grid, v: Grid) -> Grid:
    top = polygon(u, v, (0.0, -0.98), (0.38, -0.4), (-0.38, -0.4))
    middle = polygon(u, v, (0.0, -0.7), (0.54, 0.08), (-0.54, 0.08))
    low = polygon(u, v, (0.0, -0.3), (0.72, 0.6), (-0.72, 0.6))
    trunk = box(u, v, 0.0, 0.75, 0.14, 0.22)
    return np.minimum(np.minimum(top, middle), np.minimum(low, trunk))


def _pine_pattern(u: Grid, v: Grid) -> Grid:
    return np.minimum(0.6 - v, np.minimum(np.abs(v - 0.02) - 0.07, np.abs(v + 0.45) - 0.06))


def _tyre(u: Grid, v: Grid) -> Grid:
    return np.abs(disc(u, v, 0.0, 0.0, 0.68)) - 0.28


def _tyre_pattern(u: Grid, v: Grid) -> Grid:
    return np.abs(disc(u, v, 0.0, 0.0, 0.68)) - 0.09


def _cup(u: Grid, v: Grid) -> Grid:
    body = polygon(u, v, (-0.75, -0.62), (0.45, -0.62), (0.25, 0.75), (-0.55, 0.75))
    handle = np.abs(disc(u, v, 0.45, -0.05, 0.34)) - 0.1
    return np.minimum(body, handle)


def _cup_pattern(u: Grid, v: Grid) -> Grid:
    return np.maximum(np.abs(v - 0.05) - 0.2, u - 0.3)


def _star(u: Grid, v: Grid) -> Grid:
    # inside are the points that at most one of the five lines of a pentagram cuts off
    cut = [x * u + y * v - 0.3 for x, y in _PENTAGON]
    second: Grid = np.sort(np.stack(cut), axis=0)[-2]
    return second


_PENTAGON = (
    (0.0, 1.0),
    (-0.9510565162951535, 0.3090169943749474),
    (-0.5877852522924731, -0.8090169943749475),
    (0.5877852522924731, -0.8090169943749475),
    (0.9510565162951535, 0.3090169943749474),
)


def _star_pattern(u: Grid, v: Grid) -> Grid:
    return disc(u, v, 0.0, 0.0, 0.24)


def _bottle(u: Grid, v: Grid) -> Grid:
    body = box(u, v, 0.0, 0.38, 0.34, 0.55)
    shoulder = ellipse(u, v, 0.0, -0.15, 0.34, 0.3)
    neck = box(u, v, 0.0, -0.62, 0.13, 0.35)
    return np.minimum(np.minimum(body, shoulder), neck)


def _bottle_pattern(u: Grid, v: Grid) -> Grid:
    return np.minimum(np.abs(v - 0.42) - 0.24, v + 0.78)


def _butterfly(u: Grid, v: Grid) -> Grid:
    across = np.abs(u)
    upper = ellipse(across, v, 0.48, -0.34, 0.42, 0.36)
    lower = ellipse(across, v, 0.38, 0.4, 0.3, 0.34)
    body = ellipse(u, v, 0.0, 0.0, 0.13, 0.72)
    return np.minimum(np.minimum(upper, lower), body)


def _butterfly_pattern(u: Grid, v: Grid) -> Grid:
    across = np.abs(u)
    spots = np.minimum(disc(across, v, 0.55, -0.36, 0.17), disc(across, v, 0.42, 0.44, 0.12))
    return np.minimum(spots, ellipse(u, v, 0.0, 0.0, 0.13, 0.72))


def _moon(u: Grid, v: Grid) -> Grid:
    return np.maximum(disc(u, v, 0.0, 0.0, 0.97), -disc(u, v, 0.5, 0.0, 0.78))


def _moon_pattern(u: Grid, v: Grid) -> Grid:
    return disc(u, v, -0.6, 0.0, 0.17)


def _crossed(u: Grid, v: Grid) -> Grid:
    return wave(0.7 * (u + v)) * wave(0.7 * (u - v))


def _bricks(u: Grid, v: Grid) -> Grid:
    row = np.floor(v)
    return np.where((v - row < 0.3) | (wave(0.4 * u + 0.5 * row) > 0.6), -1.0, 0.5)


def _checks(u: Grid, v: Grid) -> Grid:
    return np.where(wave(0.7 * u) * wave(0.7 * v) > 0.0, 1.0, -1.0)


def _dots(u: Grid, v: Grid) -> Grid:
    return np.where(wave(u) + wave(v) > 0.5, 1.0, -0.4)


THINGS = (
    Thing("fish", (0.15, 0.45, 0.85), _fish, _fish_pattern, _crossed),
    Thing("mushroom", (0.85, 0.2, 0.15), _mushroom, _mushroom_pattern, _dots),
    Thing("house", (0.9, 0.55, 0.15), _house, _house_pattern, _bricks),
    Thing("pine", (0.1, 0.55, 0.2), _pine, _pine_pattern, lambda u, v: wave(v + 0.4 * wave(0.5 * u))),
    Thing("tyre", (0.15, 0.15, 0.2), _tyre, _tyre_pattern, lambda u, v: wave(np.sqrt(u * u + v * v))),
    Thing("cup", (0.92, 0.92, 0.88), _cup, _cup_pattern, lambda u, v: wave(u)),
    Thing("star", (0.95, 0.85, 0.2), _star, _star_pattern, _checks),
    Thing("bottle", (0.1, 0.5, 0.5), _bottle, _bottle_pattern, lambda u, v: wave(0.7 * (u + v))),
    Thing(
        "butterfly", (0.6, 0.2, 0.75), _butterfly, _butterfly_pattern, lambda u, v: wave(0.5 * u) * wave(v)
    ),
    Thing("moon", (0.95, 0.6, 0.7), _moon, _moon_pattern, lambda u, v: wave(v)),
)
