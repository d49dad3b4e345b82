"""One generic registry; attacks, defenses, backbones and data sets are four of it.

Entries come from three places and are found in one: built-ins (named by a lazy ``module:attribute``,
so that nothing is imported before it is used), installed packages (entry points) and a user's file
(``--plugin``), whose decorators run when it is loaded.
"""

from __future__ import annotations

import fnmatch
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Generic, TypeVar

from robustbench_tin.errors import InvalidSettingError, UnknownNameError, one_line

T = TypeVar("T")


@dataclass(frozen=True)
class Entry(Generic[T]):
    """A registered name: where it came from, and how to get the thing itself."""

    name: str
    origin: str
    load: Callable[[], T]


class Registry(Generic[T]):
    """Names and what they stand for.

    Args:
        kind: what an entry is, for messages (``"attack"``).
        group: the entry-point group in which other packages announce theirs.
        builtin: lazy targets ``module:attribute`` by name.
    """

    def __init__(self, kind: str, *, group: str, builtin: Mapping[str, str] | None = None) -> None:
        self.kind = kind
        self._group = group
        self._entries: dict[str, Entry[T]] = {}
        self._prefixes: dict[str, Callable[[str], T]] = {}
        self._entry_points_read = False
        for name, target in (builtin or {}).items():
            self._entries[name] = Entry(name, "built-in", self._importer(name, target))

    def register(self, name: str, *, origin: str | None = None) -> Callable[[T], T]:
        """Decorator: register what follows under ``name``.

        Raises:
            InvalidSettingError: where the name is taken, naming who has it.
        """

        def decorate(value: T) -> T:
            self.add(name, value, origin=origin or _file_of(value))
            return value

        return decorate

    def add(self, name: str, value: T, *, origin: str) -> None:
        """Register ``value`` under ``name``; the plain form of :meth:`register`."""
        self._insert(Entry(name, origin, lambda: value))
        _name_class(name, value)

    def add_prefix(self, prefix: str, factory: Callable[[str], T]) -> None:
        """Let ``prefix:REST`` stand for ``factory("REST")``, for families too large to list."""
        self._prefixes[prefix] = factory

    @property
    def prefixes(self) -> frozenset[str]:
        """The words that open a prefixed name (``timm`` in ``timm:resnet18``)."""
        return frozenset(self._prefixes)

    def get(self, name: str) -> T:
        """Return what ``name`` stands for.

        Raises:
            UnknownNameError: with the close names.
        """
        self._read_entry_points()
        if name in self._entries:
            return self._entries[name].load()
        prefix, colon, rest = name.partition(":")
        if colon and rest and prefix in self._prefixes:
            return self._prefixes[prefix](rest)
        raise UnknownNameError(self.kind, name, self.names())

    def names(self) -> list[str]:
        """All registered names, in the order of registration."""
        self._read_entry_points()
        return list(self._entries)

    def entries(self) -> list[Entry[T]]:
        """All entries, in the order of registration."""
        self._read_entry_points()
        return list(self._entries.values())

    def match(self, pattern: str) -> list[str]:
        """Names that fit an ``fnmatch`` pattern; a plain or prefixed name fits itself.

        Raises:
            UnknownNameError: where nothing fits.
        """
        if pattern.partition(":")[0] in self._prefixes:
            return [pattern]
        found = [name for name in self.names() if fnmatch.fnmatchcase(name, pattern)]
        if not found:
            raise UnknownNameError(self.kind, pattern, self.names())
        return found

    def _insert(self, entry: Entry[T]) -> None:
        taken = self._entries.get(entry.name)
        if taken is not None:
            raise InvalidSettingError(
                f"{self.kind} '{entry.name}' of {entry.origin} is already registered by {taken.origin};"
                " choose another name"
            )
        self._entries[entry.name] = entry

    def _importer(self, name: str, target: str) -> Callable[[], T]:
        def load() -> T:
            module, _, attribute = target.partition(":")
            value: T = getattr(importlib.import_module(module), attribute)
            _name_class(name, value)
            return value

        return load

    def _read_entry_points(self) -> None:
        if self._entry_points_read:
            return
        self._entry_points_read = True
        for point in metadata.entry_points(group=self._group):
            origin = f"package {point.dist.name}" if point.dist else f"entry point {point.value}"
            self._insert(Entry(point.name, origin, self._guarded(point.name, point.value, origin)))

    def _guarded(self, name: str, target: str, origin: str) -> Callable[[], T]:
        """As :meth:`_importer`, for other people's packages, which may be broken."""

        def load() -> T:
            try:
                return self._importer(name, target)()
            except Exception as error:
                raise InvalidSettingError(
                    f"{self.kind} '{name}' of {origin} does not load: {one_line(error)}; update or remove it"
                ) from error

        return load


def load_plugin(path: str | Path) -> None:
    """Run a user's Python file, whose decorators register what it defines.

    A file is loaded once per process, however often it is named.

    Raises:
        InvalidSettingError: where the file is missing or does not import.
    """
    path = Path(path).resolve()
    if not path.is_file():
        raise InvalidSettingError(f"plugin '{path}' is no file; expected a Python file")
    module_name = f"robustbench_tin_plugin_{path.stem}_{abs(hash(str(path))):x}"
    if module_name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise InvalidSettingError(f"plugin '{path}' is no Python file; expected a name that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # an exit within it would look like success
        del sys.modules[module_name]
        if isinstance(error, InvalidSettingError):
            raise
        raise InvalidSettingError(
            f"plugin '{path}' does not load: {one_line(error)}; mend the file"
        ) from error


def _name_class(name: str, value: object) -> None:
    """Tell a class its registered name, so that its objects can print their spec."""
    if isinstance(value, type) and not value.__dict__.get("name"):
        value.name = name  # type: ignore[attr-defined]


def _file_of(value: object) -> str:
    """The file that defines ``value``, as the origin that people recognise."""
    module = sys.modules.get(getattr(value, "__module__", ""))
    return str(getattr(module, "__file__", None) or getattr(value, "__module__", "unknown"))
