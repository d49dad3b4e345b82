"""One scene of the demo set: a cluttered background, pieces of other things, and the thing itself."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from robustbench_tin.data.demo.drawing import (
    SIZE,
    Canvas,
    Colour,
    Dice,
    Grid,
    Window,
    box,
    coverage,
    disc,
    smooth,
    wave,
)
from robustbench_tin.data.demo.things import THINGS, Thing

# Half of a thing's extent in pixels, and its largest tilt (2·atan of it: 33 degrees).
RADII = (18.0, 26.0)
LEAN = 0.3
# One thing in ODD_ONES has a random colour; the others have this share of their class's colour.
ODD_ONES = 4
LIKENESS = (0.8, 1.0)
# Amplitude of the fine texture, in units of the pixel range, and its period in pixels.
TEXTURE = (0.06, 0.14)
PERIOD = (3.5, 5.0)
# Number of pieces in the background: meaningless ones, and faded ones of other classes.
CLUTTER = 8
DISTRACTORS = 3
FADE = (0.4, 0.6)
# Largest distance of colours from the grey of the background, and of the clutter's from there.
TINT = 0.06
SPREAD = 0.18
GRAIN = 0.03


def draw_scene(
    seed: int, split: int, index: int, label: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Draw image ``index`` of a split.

    Returns:
        The picture, uint8 ``(3, SIZE, SIZE)``, and the object's mask, bool ``(SIZE, SIZE)``.
    """
    dice = Dice(seed, split, index)
    base = _near(dice, _grey(dice.between(0.3, 0.7)), TINT)
    canvas = _background(dice, base)
    _distract(dice, canvas, base, label)
    mask = _place(dice, canvas, THINGS[label], base)
    canvas.pixels += GRAIN * dice.grid(3, SIZE, SIZE)
    return canvas.bytes(), mask


def box_of(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """The smallest box ``x0, y0, x1, y1`` (corners included) that contains the whole mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def _background(dice: Dice, base: Colour) -> Canvas:
    pixels = smooth(0.10 * dice.grid(3, 5, 5)) + np.asarray(base)[:, None, None]
    pixels += smooth(0.10 * dice.grid(1, 17, 17))
    canvas = Canvas(pixels)
    whole = Window(0.0, 0.0, SIZE)
    u, v = whole.axes(dice.turn(1.0), dice.between(3.0, 9.0), dice.between(3.0, 9.0))
    canvas.pixels += dice.between(0.0, 0.08) * (wave(u) if dice.below(2) else wave(u) * wave(v))
    for _ in range(CLUTTER):
        _piece(dice, canvas, base)
    return canvas


def _piece(dice: Dice, canvas: Canvas, base: Colour) -> None:
    """A disc, a hoop, a bar or a wedge without meaning."""
    radius = dice.between(4.0, 13.0)
    window = Window(dice.between(0.0, SIZE), dice.between(0.0, SIZE), 1.5 * radius)
    u, v = window.axes(dice.turn(1.0), radius, radius)
    kind = dice.below(4)
    if kind == 0:
        distance = disc(u, v, 0.0, 0.0, 0.8)
    elif kind == 1:
        distance = np.abs(disc(u, v, 0.0, 0.0, 0.8)) - 0.15
    elif kind == 2:
        distance = box(u, v, 0.0, 0.0, 1.0, dice.between(0.15, 0.7))
    else:
        distance = np.maximum(np.abs(u) + 0.5 * v - 0.5, -0.8 - v)
    canvas.paint(window, _near(dice, base, SPREAD), dice.between(0.5, 0.9) * coverage(distance * radius))


def _distract(dice: Dice, canvas: Canvas, base: Colour, label: int) -> None:
    """Faded pieces of things of other classes."""
    for _ in range(DISTRACTORS):
        thing = THINGS[(label + 1 + dice.below(len(THINGS) - 1)) % len(THINGS)]
        radius = dice.between(9.0, 16.0)
        window = Window(dice.between(4.0, SIZE - 4.0), dice.between(4.0, SIZE - 4.0), radius + 2.0)
        u, v = window.axes(dice.turn(LEAN), radius, radius)
        distance = np.maximum(thing.form(u, v), _half(dice, u, v)) * radius
        opacity = dice.between(*FADE)
        period = dice.between(*PERIOD)
        shade = dice.between(*TEXTURE) * thing.texture(u * (radius / period), v * (radius / period))
        body = _typical(dice, thing)
        canvas.paint(window, body, opacity * coverage(distance), shade)
        second = coverage(np.maximum(thing.pattern(u, v) * radius, distance))
        canvas.paint(window, _opposed(dice, body), opacity * second, shade)


def _half(dice: Dice, u: Grid, v: Grid) -> Grid:
    cosine, sine = dice.turn(1.0)
    sign = 1.0 if dice.below(2) else -1.0
    return sign * (cosine * u + sine * v) - dice.between(-0.1, 0.3)


def _place(dice: Dice, canvas: Canvas, thing: Thing, base: Colour) -> npt.NDArray[np.bool_]:
    """Draw the thing at a random place, whole and in front; returns its mask."""
    radius = dice.between(*RADII)
    across = radius * dice.between(0.8, 1.0)
    x, y = dice.between(radius + 1.0, SIZE - 2.0 - radius), dice.between(radius + 1.0, SIZE - 2.0 - radius)
    window = Window(x, y, radius + 2.0)
    u, v = window.axes(dice.turn(LEAN), across if dice.below(2) else -across, radius)
    distance = thing.form(u, v) * across
    inside = coverage(distance)

    body = _typical(dice, thing)
    second = _opposed(dice, body)
    period = dice.between(*PERIOD)
    shade = dice.between(*TEXTURE) * thing.texture(np.abs(u) * (across / period), v * (radius / period))
    shade += dice.between(-0.1, 0.1) * u + dice.between(-0.1, 0.1) * v
    canvas.paint(window, body, inside, shade)
    canvas.paint(window, second, np.minimum(coverage(thing.pattern(u, v) * across), inside), shade)
    rim = inside - coverage(distance + 1.3)
    canvas.paint(window, _lit(base, dice.between(0.02, 0.15)), 0.8 * rim)

    mask = np.zeros((SIZE, SIZE), dtype=np.bool_)
    mask[window.where] = inside >= 0.5
    return mask


def _typical(dice: Dice, thing: Thing) -> Colour:
    """A colour close to its class's; for one thing in four, any colour."""
    share = 0.0 if dice.below(ODD_ONES) == 0 else dice.between(*LIKENESS)
    red, green, blue = dice.colour(0.05, 0.95)
    return (
        red + share * (thing.colour[0] - red),
        green + share * (thing.colour[1] - green),
        blue + share * (thing.colour[2] - blue),
    )


def _opposed(dice: Dice, colour: Colour) -> Colour:
    """A light colour for a dark one, and a dark one for a light one."""
    return _near(dice, _grey(0.85 if _light(colour) < 0.5 else 0.15), 0.12)


def _grey(light: float) -> Colour:
    return light, light, light


def _near(dice: Dice, base: Colour, spread: float) -> Colour:
    red, green, blue = dice.colour(-spread, spread)
    return base[0] + red, base[1] + green, base[2] + blue


def _light(colour: Colour) -> float:
    return 0.3 * colour[0] + 0.6 * colour[1] + 0.1 * colour[2]


def _lit(colour: Colour, light: float) -> Colour:
    """The colour moved along grey until its lightness is ``light``."""
    shift = light - _light(colour)
    return colour[0] + shift, colour[1] + shift, colour[2] + shift
