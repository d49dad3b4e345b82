"""Names from built-ins, packages and files, in one place; and that naming them costs nothing."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest

from robustbench_tin import attacks, defenses
from robustbench_tin.attacks import parse_attack
from robustbench_tin.defenses import parse_defense
from robustbench_tin.errors import InvalidSettingError, RobustTinWarning, UnknownNameError
from robustbench_tin.registry import Registry, load_plugin


@pytest.fixture
def shapes(monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setattr(metadata, "entry_points", lambda group: [])
    return Registry("shape", group="tests.shapes", builtin={"root": "math:sqrt", "gone": "no_such_module:X"})


def test_built_ins_are_imported_when_they_are_asked_for(shapes: Registry) -> None:
    assert shapes.names() == ["root", "gone"]
    assert shapes.get("root") is math.sqrt
    with pytest.raises(ModuleNotFoundError):
        shapes.get("gone")


def test_registering_keeps_the_value_its_name_and_its_origin(shapes: Registry) -> None:
    @shapes.register("round")
    class Round:
        name = ""

    assert shapes.get("round") is Round
    assert Round.name == "round"
    entry = shapes.entries()[-1]
    assert (entry.name, entry.origin) == ("round", __file__)


def test_a_name_taken_twice_says_by_whom(shapes: Registry) -> None:
    shapes.add("round", round, origin="first.py")
    with pytest.raises(
        InvalidSettingError, match=r"shape 'round' of second\.py is already registered by first\.py; choose"
    ):
        shapes.add("round", round, origin="second.py")
    with pytest.raises(InvalidSettingError, match="already registered by built-in"):
        shapes.register("root")(math.floor)
    assert shapes.get("root") is math.sqrt


def test_unknown_names_list_the_close_ones(shapes: Registry) -> None:
    with pytest.raises(UnknownNameError, match="unknown shape 'rot'; did you mean 'root'"):
        shapes.get("rot")
    with pytest.raises(UnknownNameError, match="known: gone, root"):
        shapes.get("zzzzzzz")


def test_prefixes_stand_for_families(shapes: Registry) -> None:
    shapes.add_prefix("poly", lambda rest: f"polygon of {rest}")
    assert shapes.get("poly:7") == "polygon of 7"
    assert shapes.prefixes == {"poly"}
    for text in ("poly", "poly:", "holy:7"):
        with pytest.raises(UnknownNameError):
            shapes.get(text)


def test_patterns_match_names(shapes: Registry) -> None:
    shapes.add_prefix("poly", str)
    assert shapes.match("*") == ["root", "gone"]
    assert shapes.match("r*") == ["root"]
    assert shapes.match("root") == ["root"]
    assert shapes.match("poly:3") == ["poly:3"]
    with pytest.raises(UnknownNameError):
        shapes.match("q*")


class TestEntryPoints:
    """Other packages' entries, without installing any."""

    @pytest.fixture
    def announce(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Registry]:
        def build(*points: tuple[str, str]) -> Registry:
            def listed(group: str) -> list[metadata.EntryPoint]:
                assert group == "tests.shapes"
                return [metadata.EntryPoint(name, value, group) for name, value in points]

            monkeypatch.setattr(metadata, "entry_points", listed)
            return Registry("shape", group="tests.shapes", builtin={"root": "math:sqrt"})

        return build

    def test_they_are_found_beside_the_built_ins(self, announce: Callable[..., Registry]) -> None:
        shapes = announce(("floor", "math:floor"))
        assert shapes.names() == ["root", "floor"]
        assert shapes.get("floor") is math.floor
        assert shapes.entries()[1].origin == "entry point math:floor"

    def test_they_may_not_take_a_built_ins_name(self, announce: Callable[..., Registry]) -> None:
        shapes = announce(("root", "os:sep"), ("floor", "math:floor"))
        with pytest.warns(RobustTinWarning, match=r"'root' of entry point os:sep is ignored: .*built-in"):
            assert shapes.names() == ["root", "floor"]
        assert shapes.get("root") is math.sqrt

    def test_two_packages_of_one_name_are_an_error_only_if_it_is_asked_for(
        self, announce: Callable[..., Registry]
    ) -> None:
        shapes = announce(("oval", "math:sin"), ("oval", "math:cos"))
        with pytest.warns(
            RobustTinWarning, match="by entry point math:sin and by entry point math:cos"
        ) as told:
            assert shapes.get("root") is math.sqrt
        assert len(told) == 1
        with pytest.raises(InvalidSettingError, match="'oval' is announced by"):
            shapes.get("oval")

    def test_a_users_file_wins_over_a_package(self, announce: Callable[..., Registry]) -> None:
        shapes = announce(("oval", "math:sin"))
        assert shapes.names() == ["root", "oval"]
        with pytest.warns(RobustTinWarning, match=r"of entry point math:sin is ignored: mine\.py"):
            shapes.add("oval", math.cos, origin="mine.py")
        assert shapes.get("oval") is math.cos

    def test_a_pattern_leaves_a_broken_one_out_and_its_name_does_not(
        self, announce: Callable[..., Registry]
    ) -> None:
        shapes = announce(("rooster", "no_such_module:X"))
        with pytest.warns(RobustTinWarning, match="rooster"):
            assert shapes.match("roo*") == ["root"]
        assert shapes.match("rooster") == ["rooster"]
        assert [entry.name for entry, _ in shapes.usable()] == ["root"]

    def test_one_that_exits_when_it_is_imported_is_broken(
        self, announce: Callable[..., Registry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "module_that_exits.py").write_text("raise SystemExit(0)")
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(InvalidSettingError, match="does not load: SystemExit: 0"):
            announce(("bad", "module_that_exits:X")).get("bad")

    def test_one_of_another_kind_is_broken(self, monkeypatch: pytest.MonkeyPatch) -> None:
        point = metadata.EntryPoint("floor", "math:floor", "tests.shapes")
        monkeypatch.setattr(metadata, "entry_points", lambda group: [point])
        shapes = Registry("shape", group="tests.shapes", expected="pathlib:Path")
        with pytest.raises(InvalidSettingError, match="expected the class Path or one below it"):
            shapes.get("floor")

    @pytest.mark.parametrize("target", ["no_such_module:X", "math:no_such_name"])
    def test_a_broken_package_is_one_line_and_spares_the_others(
        self, announce: Callable[..., Registry], target: str
    ) -> None:
        shapes = announce(("bad", target))
        assert shapes.get("root") is math.sqrt
        with pytest.raises(
            InvalidSettingError, match=r"shape 'bad' of entry point .* does not load: "
        ) as caught:
            shapes.get("bad")
        assert "\n" not in str(caught.value)


GOOD = """
from __future__ import annotations
from dataclasses import dataclass
from robustbench_tin import attacks, defenses

@attacks.register("noise-of-the-plugin")
@dataclass(frozen=True)
class Noise(attacks.Attack):
    "Moves nothing."
    strength: float = 0.5
    def run(self, attacked, labels, ball, generator):
        return ball.images

@defenses.register("prayer")
@dataclass(frozen=True)
class Prayer(defenses.Defense):
    "Hopes."
    times: int = 3
"""


class TestPluginFiles:
    """A user's file, its decorators, and its possible errors."""

    def test_a_good_one_registers_what_it_defines(self, write_plugin: Callable[..., Path]) -> None:
        path = write_plugin(GOOD)
        load_plugin(path)
        assert parse_attack("noise-of-the-plugin:strength=1/4").spec == "noise-of-the-plugin:strength=0.25"
        assert parse_defense("prayer:times=5").spec == "prayer:times=5"
        origins = {entry.name: entry.origin for entry in attacks.registry.entries()}
        assert origins["noise-of-the-plugin"] == str(path)

    def test_naming_it_twice_loads_it_once(
        self, write_plugin: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = write_plugin(GOOD)
        load_plugin(path)
        monkeypatch.chdir(path.parent)
        load_plugin("plugin.py")
        assert attacks.registry.names().count("noise-of-the-plugin") == 1

    def test_two_files_of_one_name_are_two_plugins(self, write_plugin: Callable[..., Path]) -> None:
        load_plugin(write_plugin(GOOD))
        (write_plugin("").parent / "other").mkdir()
        with pytest.raises(InvalidSettingError, match=r"already registered by .*plugin\.py"):
            load_plugin(write_plugin(GOOD, "other/plugin.py"))

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
            ("def f(:", "SyntaxError"),
            ("raise ValueError('one\\ntwo')", "ValueError: one two"),
            ("import torch; torch.zeros(2, 3) @ torch.zeros(2, 3)", "RuntimeError"),
        ],
    )
    def test_a_broken_one_is_one_line(
        self, write_plugin: Callable[..., Path], text: str, reason: str
    ) -> None:
        path = write_plugin(text, "broken.py")
        for _ in range(2):
            with pytest.raises(InvalidSettingError, match=reason) as caught:
                load_plugin(path)
            assert str(caught.value).startswith(f"plugin '{path}' does not load: ")
            assert "\n" not in str(caught.value)

    def test_one_that_is_no_python_file_is_refused(self, write_plugin: Callable[..., Path]) -> None:
        with pytest.raises(InvalidSettingError, match=r"ends in \.py"):
            load_plugin(write_plugin(GOOD, "plugin.txt"))

    def test_a_missing_one_is_refused(self, tmp_path: Path) -> None:
        for path in (tmp_path / "missing.py", tmp_path):
            with pytest.raises(InvalidSettingError, match="is not a file; expected a Python file"):
                load_plugin(path)

    def test_a_class_without_the_decorator_is_told_so(self, write_plugin: Callable[..., Path]) -> None:
        attack, defense = (part.replace("@dataclass(frozen=True)\n", "") for part in GOOD.split("@defenses"))
        head = GOOD.partition("@attacks")[0]
        for text, name in ((attack, "attack.py"), (f"{head}@defenses{defense}", "defense.py")):
            with pytest.raises(
                InvalidSettingError, match=r"is not a dataclass.*put @dataclass\(frozen=True\)"
            ):
                load_plugin(write_plugin(text, name))


def test_a_registered_name_that_a_parent_has_too_is_the_childs_own() -> None:
    @defenses.register("child")
    @dataclass(frozen=True)
    class Child(type(parse_defense("augment"))):
        """As its parent."""

    assert parse_defense("child:rotation=5").spec == "child:rotation=5.0"
    assert parse_defense("augment:rotation=5").spec == "augment:rotation=5.0"


@pytest.mark.parametrize("room", ["attacks", "defenses", "testing", "data", "models", "cli"])
def test_naming_things_imports_nothing_heavy(room: str) -> None:
    program = (
        f"import sys, robustbench_tin.{room}\n"
        "print(*sorted({'torch', 'timm', 'numpy', 'pandas', 'scipy', 'art'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
