"""Changes of pages that no plugin of MkDocs makes: the roles of docstrings (``:class:`~a.b.C```) become plain code."""

from __future__ import annotations

import re
from typing import Any

_ROLE = re.compile(r":(?:func|class|meth|mod|attr|data|exc):<code>(~?)([^<]+)</code>")


def on_page_content(html: str, **_: Any) -> str:
    """The page without the markup of Sphinx, which mkdocstrings shows as it is."""
    return _ROLE.sub(lambda role: f"<code>{role[2].rpartition('.')[2] if role[1] else role[2]}</code>", html)
