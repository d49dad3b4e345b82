"""A generic registry, used for attacks, defenses, backbones and data sets.

Entries come from three sources: built-ins (named by a lazy ``module:attribute``, so that nothing is imported
before its use), installed packages (entry points), and a user's file (``--plugin``), whose decorators run
when it is loaded.
"""

from __future__ import annotations

import fnmatch
import importlib
import importlib.util
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Generic, NoReturn, TypeVar

from robustbench_tin.errors import (
    FOREIGN,
    InvalidSettingError,
    RobustTinError,
    RobustTinWarning,
    UnknownNameError,
    one_line,
)

T = TypeVar("T")

# A name that a spec can contain: see robustbench_tin/specs.py.
_NAME = re.compile(r"[^\s:+,=*?\[\]]+")


@dataclass(frozen=True)
class Entry(Generic[T]):
    """A registered name.

    Attributes:
        name: the name that users type.
        origin: the source that registered it.
        load: returns the registered value.
        of_package: True if another package's entry point announces it.
    """

    name: str
    origin: str
    load: Callable[[], T]
    of_package: bool = False


class Registry(Generic[T]):
    """Names and their registered values.

    Args:
        kind: the kind of entry, for messages (``"attack"``).
        group: the entry-point group in which other packages announce entries.
        builtin: lazy targets ``module:attribute`` by name.
        expected: lazy target of the class that an entry must be a subclass or an instance of; values from
            other packages' entry points are checked against it.
        checked_by: lazy target of a function that returns one clause on why a value cannot be an entry, or
            None. It checks all entries except the built-ins.

    A broken entry point, or one whose name is taken, gives a :class:`RobustTinWarning` and is ignored. It is
    an error only if its name is used.
    """

    def __init__(
        self,
        kind: str,
        *,
        group: str,
        builtin: Mapping[str, str] | None = None,
        expected: str | None = None,
        checked_by: str | None = None,
    ) -> None:
        self.kind = kind
        self._group = group
        self._expected = expected
        self._checked_by = checked_by
        self._warned: set[str] = set()
        self._entries: dict[str, Entry[T]] = {}
        self._prefixes: dict[str, Callable[[str], T]] = {}
        self._entry_points_read = False
        for name, target in (builtin or {}).items():
            self._entries[name] = Entry(name, "built-in", self._importer(name, target))

    def register(self, name: str, *, origin: str | None = None) -> Callable[[T], T]:
        """Decorator: register a class or value under ``name``.

        Raises:
            InvalidSettingError: if the name is taken (names its owner), if it is not a valid name, or if the
                value cannot be used (names the expected one).

        >>> colours: Registry[str] = Registry("colour", group="example.colours")
        >>> _ = colours.register("red", origin="an example")("#ff0000")
        >>> colours.get("red"), colours.names()
        ('#ff0000', ['red'])
        """
        if not (isinstance(name, str) and _NAME.fullmatch(name)):
            raise InvalidSettingError(
                f'{self.kind} got the name {name!r:.80}; expected @register("NAME"), a text without'
                " spaces and without any of : + , = * ? [ ]"
            )

        def decorate(value: T) -> T:
            self.add(name, value, origin=origin or _file_of(value))
            return value

        return decorate

    def add(self, name: str, value: T, *, origin: str) -> None:
        """Register ``value`` under ``name``, without a decorator; see :meth:`register`."""
        problem = self._problem_of(name, value)
        if problem is not None:
            raise InvalidSettingError(f"{self.kind} '{name}' of {origin} cannot be registered: {problem}")
        self._insert(Entry(name, origin, lambda: value))
        _name_class(name, value)

    def add_prefix(self, prefix: str, factory: Callable[[str], T]) -> None:
        """Let ``prefix:REST`` mean ``factory("REST")``, for families too large to list."""
        self._prefixes[prefix] = factory

    @property
    def prefixes(self) -> frozenset[str]:
        """The prefixes of names (``timm`` in ``timm:resnet18``)."""
        return frozenset(self._prefixes)

    def get(self, name: str) -> T:
        """The value registered under ``name``.

        Raises:
            UnknownNameError: for an unknown name; it lists the close names.
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

    def usable(self) -> Iterator[tuple[Entry[T], T]]:
        """Each entry with its value; a warning replaces another package's entry that does not load."""
        for entry in self.entries():
            if not entry.of_package or self._is_usable(entry):
                yield entry, entry.load()

    def match(self, pattern: str) -> list[str]:
        """Names that match an ``fnmatch`` pattern; a plain or prefixed name matches itself.

        Another package's entry that does not load matches only its own name.

        Raises:
            UnknownNameError: if no name matches.
        """
        if pattern.partition(":")[0] in self._prefixes:
            return [pattern]
        found = [
            entry.name
            for entry in self.entries()
            if fnmatch.fnmatchcase(entry.name, pattern)
            and (entry.name == pattern or not entry.of_package or self._is_usable(entry))
        ]
        if not found:
            raise UnknownNameError(self.kind, pattern, self.names())
        return found

    def _insert(self, entry: Entry[T]) -> None:
        taken = self._entries.get(entry.name)
        if taken is not None and not taken.of_package:
            raise InvalidSettingError(
                f"{self.kind} '{entry.name}' of {entry.origin} is already registered by {taken.origin};"
                " choose another name"
            )
        if taken is not None:
            self._warn(
                f"{self.kind} '{entry.name}' of {taken.origin} is ignored: {entry.origin} registers that name"
            )
        self._entries[entry.name] = entry

    def _insert_of_package(self, entry: Entry[T]) -> None:
        """Add another package's entry, unless its name is taken."""
        taken = self._entries.get(entry.name)
        if taken is None:
            self._entries[entry.name] = entry
        elif not taken.of_package:
            self._warn(
                f"{self.kind} '{entry.name}' of {entry.origin} is ignored: the name is taken ({taken.origin})"
            )
        elif taken.origin != entry.origin:
            clash = (
                f"{self.kind} '{entry.name}' is announced by {taken.origin} and by {entry.origin};"
                " remove one of them"
            )
            self._warn(f"{clash}; until then neither can be used")
            self._entries[entry.name] = Entry(
                entry.name, entry.origin, lambda: _refuse(clash), of_package=True
            )

    def _is_usable(self, entry: Entry[T]) -> bool:
        """True if another package's entry loads; otherwise warn."""
        try:
            entry.load()
        except RobustTinError as error:
            self._warn(str(error))
            return False
        return True

    def _warn(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            warnings.warn(text, RobustTinWarning, stacklevel=4)

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
        for point in self._entry_points():
            origin = _origin(point)
            load = self._guarded(point.name, point.value, origin)
            self._insert_of_package(Entry(point.name, origin, load, of_package=True))

    def _entry_points(self) -> list[metadata.EntryPoint]:
        try:
            return list(metadata.entry_points(group=self._group))
        except Exception as error:  # broken metadata of one package; torch cannot be imported then either
            raise InvalidSettingError(
                f"the entry points of the installed packages cannot be read: {one_line(error)}; repair or"
                " remove the package whose entry_points.txt is broken"
            ) from error

    def _guarded(self, name: str, target: str, origin: str) -> Callable[[], T]:
        """Like :meth:`_importer`, for other packages, which may be broken."""

        def load() -> T:
            try:
                value = self._importer(name, target)()
                self._require_expected(value)
                problem = self._problem_of(name, value)
            except FOREIGN as error:
                raise InvalidSettingError(
                    f"{self.kind} '{name}' of {origin} does not load: {one_line(error)}; update or remove it"
                ) from error
            if problem is not None:
                raise InvalidSettingError(f"{self.kind} '{name}' of {origin} cannot be used: {problem}")
            return value

        return load

    def _require_expected(self, value: object) -> None:
        if self._expected is None:
            return
        module, _, attribute = self._expected.partition(":")
        expected = getattr(importlib.import_module(module), attribute)
        if not (issubclass(value, expected) if isinstance(value, type) else isinstance(value, expected)):
            raise TypeError(f"got {value!r:.80}; expected the class {attribute} or one below it")

    def _problem_of(self, name: str, value: object) -> str | None:
        """The reason why ``value`` cannot be the entry ``name``; None if it can."""
        if self._checked_by is None:
            return None
        own = vars(value).get("name") if isinstance(value, type) else None
        if isinstance(own, str) and own and own != name and own not in self._entries:
            return f"its class sets name = {own!r}; expected no name, or the name under which it registers"
        module, _, attribute = self._checked_by.partition(":")
        problem: str | None = getattr(importlib.import_module(module), attribute)(value)
        return problem


def _refuse(reason: str) -> NoReturn:
    raise InvalidSettingError(reason)


def _origin(point: metadata.EntryPoint) -> str:
    try:
        name = point.dist.name if point.dist else None
    except Exception:  # noqa: BLE001 - other packages' metadata may raise any error
        name = None
    return f"package {name}" if name else f"entry point {point.value}"


def load_plugin(path: str | Path) -> None:
    """Run a user's Python file, whose decorators register its definitions.

    A file is loaded once per process, even if it is named several times.

    Raises:
        InvalidSettingError: if the file is missing or cannot be imported.
    """
    path = Path(path).resolve()
    if not path.is_file():
        raise InvalidSettingError(f"plugin '{path}' is not a file; expected a Python file")
    module_name = f"robustbench_tin_plugin_{path.stem}_{abs(hash(str(path))):x}"
    if module_name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise InvalidSettingError(f"plugin '{path}' is not a Python file; expected a name that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # an exit in the file would look like success
        del sys.modules[module_name]
        if isinstance(error, InvalidSettingError):
            raise
        raise InvalidSettingError(
            f"plugin '{path}' does not load: {one_line(error)}; correct the file"
        ) from error


def _name_class(name: str, value: object) -> None:
    """Store the registered name in a class, so that its objects can print their spec."""
    if isinstance(value, type) and not value.__dict__.get("name"):
        value.name = name  # type: ignore[attr-defined]


def _file_of(value: object) -> str:
    """The file that defines ``value``: an origin that users recognise."""
    module = sys.modules.get(getattr(value, "__module__", ""))
    return str(getattr(module, "__file__", None) or getattr(value, "__module__", "unknown"))
