"""A picture: an Altair chart with separate data, which becomes a Vega-Lite specification or a file."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustbench_tin.atomic import replacing
from robustbench_tin.benchmarks.charts.theme import PRINTED
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.text import printable

if TYPE_CHECKING:
    import altair as alt

FORMATS = ("svg", "png", "pdf")
_PIXELS_PER_INCH = 200

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Picture:
    """A drawn chart. A notebook shows it.

    Attributes:
        chart: the chart; it refers to its data by name.
        data: the rows of each data set, by name.
        description: one or two sentences for people who do not see the picture.
    """

    chart: alt.TopLevelMixin = field(repr=False)
    data: Mapping[str, Rows] = field(repr=False)
    description: str = ""

    def specification(self, config: Mapping[str, Any] = PRINTED) -> dict[str, Any]:
        """The Vega-Lite specification, with data.

        Args:
            config: fonts and colours of everything but the data.
        """
        # Data are added later, because Altair would check them row by row.
        made: dict[str, Any] = self.chart.to_dict()
        return {**made, "datasets": dict(self.data), "config": dict(config), "description": self.description}

    def _repr_html_(self) -> str:
        source = f"data:image/svg+xml;base64,{b64encode(self._svg().encode()).decode()}"
        return f'<img src="{source}" alt="{escape(self.description)}" style="max-width:100%">'

    def _svg(self) -> str:
        import vl_convert

        svg: str = vl_convert.vegalite_to_svg(self.specification(), vl_version=vega_lite_version())
        return svg

    def save(self, file: str | Path) -> None:
        """Write the picture in the format of the file's suffix: svg, png or pdf.

        Raises:
            InvalidSettingError: for another suffix.
        """
        import vl_convert

        file = Path(file)
        kind = require_format(file)
        specification = self.specification()
        version = vega_lite_version()
        if kind == "svg":
            content = self._svg().encode()
        elif kind == "png":
            content = vl_convert.vegalite_to_png(specification, vl_version=version, ppi=_PIXELS_PER_INCH)
        else:
            content = vl_convert.vegalite_to_pdf(specification, vl_version=version)
        with replacing(file) as temporary:
            temporary.write_bytes(content)


def require_format(file: Path) -> str:
    """The format that a file's suffix names.

    Raises:
        InvalidSettingError: for a suffix outside :data:`FORMATS`.
    """
    kind = file.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise InvalidSettingError(f"out got '{file}'; expected a file name that ends in .svg, .png or .pdf")
    return kind


def require_charts() -> None:
    """Raise if the drawing packages are not installed.

    Raises:
        InvalidSettingError: with the command that installs them.
    """
    names = {"altair": "altair", "vl_convert": "vl-convert-python", "jinja2": "Jinja2"}
    missing = [package for module, package in names.items() if find_spec(module) is None]
    if missing:
        raise InvalidSettingError(
            f"pictures and reports need {', '.join(missing)}, which is not installed; install it with"
            " pip install 'robustbench-tin[report]'"
        )


def vega_lite_version() -> str:
    """The version of Vega-Lite that Altair writes: ``6.4``."""
    import altair as alt

    return ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])


def shown(text: str) -> str:
    """A name in a picture: one line, not too long for an axis or a legend."""
    return printable(text)
