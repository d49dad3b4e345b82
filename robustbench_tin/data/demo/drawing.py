"""Drawing tools of the demo set: dice, distances to shapes, waves, a canvas.

Every machine and every NumPy version must draw the same bytes. The dice are therefore ``RandomState``, a
frozen stream. Pixels are computed in float64 with only ``+ - * /``, square roots and comparisons, which IEEE
754 defines to the last bit, and nothing is summed over an axis. Rotations come from the rational points of
the circle.
"""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

Grid = npt.NDArray[np.float64]
Colour = tuple[float, float, float]

SIZE = 64
_AXIS = np.arange(SIZE, dtype=np.float64)


class Dice:
    """Random numbers that depend only on the key.

    Args:
        key: numbers from 0 to 2**32 - 1, for example seed, split and image.
    """

    def __init__(self, *key: int) -> None:
        self._state = np.random.RandomState(list(key))

    def between(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * float(self._state.random_sample())

    def below(self, count: int) -> int:
        """A whole number from 0 to ``count - 1``."""
        return int(count * float(self._state.random_sample()))

    def colour(self, low: float, high: float) -> Colour:
        """Red, green and blue, each in [low, high)."""
        return self.between(low, high), self.between(low, high), self.between(low, high)

    def turn(self, reach: float) -> tuple[float, float]:
        """Cosine and sine of a random angle between ± 2·atan(reach)."""
        half = self.between(-reach, reach)
        scale = 1.0 + half * half
        return (1.0 - half * half) / scale, 2.0 * half / scale

    def grid(self, *shape: int) -> Grid:
        """An array of numbers in [-1, 1)."""
        return 2.0 * self._state.random_sample(shape) - 1.0


def disc(u: Grid, v: Grid, x: float, y: float, radius: float) -> Grid:
    """Signed distance (negative inside) to a disc around ``(x, y)``."""
    return ellipse(u, v, x, y, radius, radius)


def ellipse(u: Grid, v: Grid, x: float, y: float, across: float, down: float) -> Grid:
    """Signed distance, roughly, to an ellipse of half axes ``across`` and ``down``."""
    a, b = (u - x) / across, (v - y) / down
    return (np.sqrt(a * a + b * b) - 1.0) * min(across, down)


def box(u: Grid, v: Grid, x: float, y: float, across: float, down: float) -> Grid:
    """Signed distance to a rectangle of half sides ``across`` and ``down``."""
    return np.maximum(np.abs(u - x) - across, np.abs(v - y) - down)


def side(u: Grid, v: Grid, x0: float, y0: float, x1: float, y1: float) -> Grid:
    """Signed distance to the half plane to the right of the line from point 0 to point 1 (y points down)."""
    dx, dy = x1 - x0, y1 - y0
    length = float(np.sqrt(dx * dx + dy * dy))
    return ((u - x0) * dy - (v - y0) * dx) / length


def polygon(u: Grid, v: Grid, *points: tuple[float, float]) -> Grid:
    """Signed distance to a convex polygon whose points run clockwise on the screen."""
    distance = side(u, v, *points[-1], *points[0])
    for start, end in itertools.pairwise(points):
        distance = np.maximum(distance, side(u, v, *start, *end))
    return distance


def wave(phase: Grid) -> Grid:
    """A triangle wave of period 1 in [-1, 1]."""
    return 4.0 * np.abs(phase - np.floor(phase + 0.5)) - 1.0


def coverage(distance: Grid) -> Grid:
    """The share of each pixel that lies inside, in [0, 1], for a signed distance in pixels."""
    return np.minimum(np.maximum(0.5 - distance, 0.0), 1.0)


def smooth(knots: Grid) -> Grid:
    """Enlarge ``(C, K, K)`` knots to ``(C, SIZE, SIZE)`` by linear interpolation."""
    place = _AXIS * ((knots.shape[-1] - 1) / SIZE)
    left = place.astype(np.int64)
    part = place - left
    rows = knots[:, left] * (1.0 - part)[:, None] + knots[:, left + 1] * part[:, None]
    full: Grid = rows[:, :, left] * (1.0 - part) + rows[:, :, left + 1] * part
    return full


class Window:
    """The square of pixels around a place, and coordinates relative to the place.

    Args:
        x: column of the place in pixels.
        y: row of the place in pixels.
        reach: distance from the place to the square's sides in pixels; the image's edge cuts the square.
    """

    def __init__(self, x: float, y: float, reach: float) -> None:
        first_row, last_row = max(0, int(y - reach)), min(SIZE, int(y + reach) + 2)
        first_column, last_column = max(0, int(x - reach)), min(SIZE, int(x + reach) + 2)
        self.where = (slice(first_row, last_row), slice(first_column, last_column))
        self._dx = (_AXIS[first_column:last_column] - x)[None, :]
        self._dy = (_AXIS[first_row:last_row] - y)[:, None]

    def axes(self, turn: tuple[float, float], across: float, down: float) -> tuple[Grid, Grid]:
        """Rotated coordinates in units of ``across`` and ``down`` pixels; a negative unit mirrors."""
        cosine, sine = turn
        return (
            (cosine * self._dx + sine * self._dy) / across,
            (cosine * self._dy - sine * self._dx) / down,
        )


class Canvas:
    """A picture being drawn: float64 ``(3, SIZE, SIZE)``, about [0, 1]."""

    def __init__(self, pixels: Grid) -> None:
        self.pixels = pixels

    def paint(self, window: Window, colour: Colour, opacity: Grid, shade: Grid | float = 0.0) -> None:
        """Blend ``colour + shade`` over the window with the given ``opacity`` (0 to 1)."""
        part = self.pixels[:, *window.where]
        part += opacity * (np.asarray(colour)[:, None, None] + shade - part)

    def bytes(self) -> npt.NDArray[np.uint8]:
        """The picture as uint8; halves round up, whichever rounding mode is set."""
        return np.floor(np.minimum(np.maximum(self.pixels, 0.0), 1.0) * 255.0 + 0.5).astype(np.uint8)
