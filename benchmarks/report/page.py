"""The HTML of the report: templates that escape every name, with embedded scripts and styles."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from robustbench_tin.benchmarks.charts.picture import vega_lite_version

if TYPE_CHECKING:
    from markupsafe import Markup

_TEMPLATES = files(__package__) / "templates"


def render(context: Mapping[str, Any]) -> str:
    """The HTML page.

    A content security policy lets the browser run only these scripts and load nothing from other places.

    Args:
        context: the values in the templates; texts are escaped.
    """
    from jinja2 import DictLoader, Environment, StrictUndefined
    from markupsafe import Markup

    names = ("page.html.j2", "parts.html.j2")
    environment = Environment(
        loader=DictLoader({name: _text(name) for name in names}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["script_json"] = script_json
    scripts = {"vega": _vega() if context["has_charts"] else "", "script": _text("page.js")}
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts.values() if script)
    trusted = {name: Markup(text) for name, text in scripts.items()}  # noqa: S704 - files of packages
    return environment.get_template("page.html.j2").render(
        **context,
        **trusted,
        style=Markup(_text("style.css")),  # noqa: S704 - a file of this package
        script_hashes=Markup(hashes),  # noqa: S704 - digests
    )


def script_json(value: object) -> Markup:
    """JSON for use inside a script element, which it cannot end."""
    from markupsafe import Markup

    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 - escaped above


@cache
def _vega() -> str:
    """Vega, Vega-Lite and vega-embed as one script."""
    import vl_convert

    script: str = vl_convert.javascript_bundle(
        "window.vegaEmbed = vegaEmbed;", vl_version=vega_lite_version()
    )
    # The block keeps its declared names apart from those of other scripts.
    return "{" + script.replace("</script", "<\\/script") + "\n}"


def _digest(script: str) -> str:
    return b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _text(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")
