"""Assert that a wheel holds every module of the checkout, and nothing that does not belong in it."""

import sys
import zipfile
from pathlib import Path

ROOMS = {
    "robustbench_tin": "robustbench_tin",
    "attacks": "robustbench_tin/attacks",
    "defenses": "robustbench_tin/defenses",
    "benchmarks": "robustbench_tin/benchmarks",
}
TEMPLATES = "benchmarks/report/templates"


def expected(root: Path) -> set[str]:
    """Every module, preset, schema and template of the checkout, by its path in the wheel."""
    found = set()
    for room, place in ROOMS.items():
        for file in (root / room).rglob("*.py"):
            inside = file.relative_to(root / room)
            if inside.parts[0] not in ROOMS and "__pycache__" not in inside.parts:
                found.add(f"{place}/{inside.as_posix()}")
    others = {
        file.relative_to(root).as_posix()
        for pattern in ("presets/*.toml", "schemas/*.json")
        for file in root.glob(f"robustbench_tin/{pattern}")
    }
    templates = {f"robustbench_tin/{file.relative_to(root)}" for file in root.glob(f"{TEMPLATES}/*")}
    return found | others | templates | {"robustbench_tin/py.typed"}


def main() -> None:
    """Compare, and name the files that are missing or superfluous."""
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        licensed = any(name.endswith("/LICENSE") for name in wheel.namelist())
    wanted = expected(Path(__file__).resolve().parent.parent)
    missing, surplus = sorted(wanted - names), sorted(names - wanted)
    assert not missing, f"not in the wheel: {missing}"
    assert not surplus, f"in the wheel, but no module: {surplus}"
    assert licensed, "the licence is not in the wheel"
    print(f"the wheel holds all {len(wanted)} files")


if __name__ == "__main__":
    main()
