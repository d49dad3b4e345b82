"""The names that the author of a plug-in imports: listed, lazy, and enough for every example in the docs."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = [
    "robustbench_tin",
    "robustbench_tin.attacks",
    "robustbench_tin.defenses",
    "robustbench_tin.testing",
]
EVERY_PACKAGE = pytest.mark.parametrize("package", PACKAGES)


def imported_for_types(source: str) -> set[str]:
    """The names that a module imports for type checkers only."""
    (block,) = [
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    return {alias.asname or alias.name for node in block.body for alias in node.names}


@EVERY_PACKAGE
def test_every_public_name_is_listed_and_there(package: str) -> None:
    module = importlib.import_module(package)
    assert dir(module) == sorted(module.__all__)
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        assert getattr(module, name) is not None
    lazy = {name for name in module.__all__ if name not in vars(module)}
    assert lazy <= imported_for_types(Path(module.__file__).read_text()) <= set(module.__all__)


def test_each_job_from_a_run_to_its_report_is_a_public_name() -> None:
    program = (
        "import sys, robustbench_tin\n"
        "print(*dir(robustbench_tin), 'torch' in sys.modules)\n"
        "from robustbench_tin import compare, plot, report\n"
        "print(compare.__name__, plot.__name__, report.__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "__version__ bench compare evaluate perturb plot report False",
        "compare plot report",
    ]


@EVERY_PACKAGE
def test_another_name_is_an_attribute_error(package: str) -> None:
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'Nothing'"):
        importlib.import_module(package).Nothing  # noqa: B018


PLUGIN_PAGES = ("write-an-attack.md", "write-a-defense.md")


def plugin_examples() -> list[tuple[str, str]]:
    """The Python blocks of the README and the docs that define, check or use a plug-in."""
    found = []
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        found += [
            (page.name, block)
            for block in blocks
            if page.name in PLUGIN_PAGES or ".register(" in block or "robustbench_tin.testing" in block
        ]
    return found


@pytest.mark.parametrize(("page", "block"), plugin_examples())
def test_the_examples_of_plugins_import_from_these_packages_only(page: str, block: str) -> None:
    imported = set()
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom):
            imported.add(node.module)
        elif isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
    ours = {name for name in imported if name.partition(".")[0] == "robustbench_tin"}
    assert ours <= set(PACKAGES)


def test_there_are_such_examples() -> None:
    pages = [page for page, _ in plugin_examples()]
    assert pages.count("write-an-attack.md") >= 6
    assert pages.count("write-a-defense.md") >= 3


def test_checking_a_plugin_needs_no_pytest() -> None:
    program = (
        "import sys\n"
        "sys.modules['pytest'] = None\n"
        "from robustbench_tin.testing import check_attack, check_defense\n"
        "check_defense('none')\n"
        "try:\n"
        "    from robustbench_tin.testing import AttackContract\n"
        "except ImportError:\n"
        "    print('only the classes do')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "only the classes do\n"
