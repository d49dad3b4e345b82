"""The command line: one module a group of commands; ``main`` runs it."""

from __future__ import annotations

from robustbench_tin.lazy import lazy_names

__all__ = ["main"]

__getattr__, __dir__ = lazy_names(__name__, __all__, {"robustbench_tin.cli.app": ["main"]})
