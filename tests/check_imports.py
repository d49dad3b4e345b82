"""Imports go one way between rooms and make no circle, lazy ones included; ``make lint`` runs this."""

from __future__ import annotations

import sys

import grimp

PACKAGE = "robustbench_tin"
# A room may import those below it.
ROOMS = ("", "attacks", "defenses", "benchmarks", "top")
# The same within ``benchmarks``; "" are the modules that lie beside its rooms. Those of one line do not
# import each other.
BENCHMARK_ROOMS = (
    ("codes", "statistics"),
    ("planning",),
    ("runs",),
    ("measurement", "reporting"),
    ("trust", "comparison"),
    ("cells",),
    ("evidence", "tracking"),
    ("",),
    ("charts",),
    ("report",),
    ("commands", "gate"),
)
# Modules of the package's own folder that stand above all rooms.
TOP = ("cli", "testing", "pytest_plugin", "__main__")


def room(module: str) -> int:
    """The number of a module's room, counted from the ground up."""
    name = module.removeprefix(PACKAGE).removeprefix(".")
    first = name.split(".")[0]
    if not name or first.startswith(TOP):
        return ROOMS.index("top")
    return ROOMS.index(first) if first in ROOMS else 0


def benchmark_room(module: str) -> str | None:
    """The name of a module's room in ``benchmarks``; None for a module of another room."""
    path = module.split(".")[1:]
    if path[:1] != ["benchmarks"] or len(path) == 1:
        return None
    return path[1] if path[1] in {name for line in BENCHMARK_ROOMS for name in line} else ""


def may_import(module: str, imported: str) -> bool:
    """Whether the rooms allow an import."""
    here, there = benchmark_room(module), benchmark_room(imported)
    if here is None or there is None or here == there:
        return room(imported) <= room(module)
    height = {name: number for number, line in enumerate(BENCHMARK_ROOMS) for name in line}
    return height[there] < height[here]


def upward(graph: grimp.ImportGraph) -> list[str]:
    """Imports of a room from one above it."""
    return [
        f"{module} imports {imported}, of a room above its own or beside it"
        for module in sorted(graph.modules)
        for imported in sorted(graph.find_modules_directly_imported_by(module))
        if not may_import(module, imported)
    ]


def circles(graph: grimp.ImportGraph) -> list[set[str]]:
    """Groups of modules, each of which imports all others of its group in the end."""
    reached = {module: graph.find_upstream_modules(module) for module in graph.modules}
    groups: list[set[str]] = []
    for module in sorted(graph.modules):
        group = {other for other in reached[module] if module in reached[other]} | {module}
        if len(group) > 1 and group not in groups:
            groups.append(group)
    return groups


def main() -> int:
    # An import for types alone makes no circle when the program runs.
    graph = grimp.build_graph(PACKAGE, exclude_type_checking_imports=True)
    wrong = upward(graph)
    wrong += [f"a circle: {', '.join(sorted(group))}" for group in circles(graph)]
    print("\n".join(wrong) or f"{len(graph.modules)} modules, all imports go one way")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
