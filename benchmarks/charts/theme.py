"""The look of charts: colours that colour-blind people can distinguish, with shapes and dashes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import altair as alt

# Okabe and Ito (2008), without black (invisible on dark pages) and yellow (invisible on white ones).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A8A8A")
# One more than colours: 56 series differ in colour or shape.
SHAPES = (
    *("circle", "square", "triangle-up", "diamond"),
    *("cross", "triangle-down", "triangle-right", "triangle-left"),
)
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [10, 4], [4, 2, 1, 2])
# A sequential scale that looks the same to colour-blind people, and works in grey.
_HEAT: Final = "cividis"

PANEL_WIDTH, PANEL_HEIGHT = 240, 180


def _config(ink: str, background: str | None) -> Mapping[str, Any]:
    text = {"labelColor": ink, "titleColor": ink, "labelFontSize": 11, "titleFontSize": 12}
    return {
        "background": background,
        "font": "DejaVu Sans, Verdana, sans-serif",
        "view": {"stroke": ink, "strokeOpacity": 0.25, "continuousWidth": PANEL_WIDTH},
        "axis": {
            **text,
            "titleFontWeight": "normal",
            "domainColor": ink,
            "tickColor": ink,
            "gridColor": ink,
            "gridOpacity": 0.12,
            "labelLimit": 400,
        },
        "legend": {
            **text,
            "titleFontWeight": "bold",
            "labelLimit": 360,
            "symbolSize": 70,
            "symbolOpacity": 1,
            "symbolBaseStrokeColor": ink,
        },
        "header": {**text, "titleFontWeight": "bold", "labelLimit": 360},
        "title": {"color": ink, "fontSize": 13, "fontWeight": "bold", "anchor": "start"},
        "text": {"color": ink},
        "mark": {"color": "#808080"},
    }


PRINTED = _config("black", "white")
"""For files: black on white."""
ON_PAGE = _config("currentColor", None)
"""For the report: text in the colour of the page, whether light, dark or printed."""


def colour_scale(names: Sequence[str]) -> alt.Scale:
    """A colour for each name; colours repeat after the last one."""
    return _cycled(names, COLOURS)


def shape_scale(names: Sequence[str]) -> alt.Scale:
    """A shape for each name; shapes repeat after the last one."""
    return _cycled(names, SHAPES)


def dash_scale(names: Sequence[str]) -> alt.Scale:
    """A dash for each name; dashes repeat after the last one."""
    return _cycled(names, DASHES)


def percent_colour(column: str, title: str, *, length: int) -> alt.Color:
    """A colour scale for a column of numbers from 0 to 100; the legend's length is in pixels."""
    import altair as alt

    return alt.Color(
        f"{column}:Q",
        title=title,
        scale=alt.Scale(scheme=_HEAT, domain=[0, 100]),
        legend=alt.Legend(gradientLength=length),
    )


def _cycled(names: Sequence[str], values: Sequence[Any]) -> alt.Scale:
    import altair as alt

    return alt.Scale(domain=list(names), range=[values[number % len(values)] for number in range(len(names))])
