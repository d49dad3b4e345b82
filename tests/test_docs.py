"""The README and the docs: links lead somewhere, commands exist, pages made from the code are up to date."""

from __future__ import annotations

import ast
import re
import runpy
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from robustbench_tin import __version__, attacks, defenses
from robustbench_tin.cli import app as cli

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
OUTSIDE = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")]
PAGES = [*OUTSIDE, *sorted(DOCS.rglob("*.md"))]
COMMANDS = get_command(cli.app).commands  # type: ignore[attr-defined]


def blocks(page: Path, language: str) -> Iterator[str]:
    for match in re.finditer(
        rf"^```(?:{language})\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S
    ):
        yield match[1]


def commands(block: str) -> Iterator[list[str]]:
    """The words of each robust-tin command of shell blocks; variables that they set are filled in."""
    values: dict[str, str] = {}
    for line in block.replace("\\\n", " ").splitlines():
        assigned = re.fullmatch(r'(\w+)="(.*)"', line.strip())
        line = re.sub(r"\$(\w+)", lambda match: values.get(match[1], match[0]), line)
        if assigned:
            values[assigned[1]] = line.partition('"')[2].rstrip('" ')
            continue
        for part in re.split(r"&&|[|]| > ", line):
            words = shlex.split(part, comments=True)
            starts = [n for n, word in enumerate(words) if word in ("robust-tin", "robustbench_tin")]
            if starts and len(words) > starts[0] + 1:
                yield words[starts[0] + 1 :]


def every_command() -> list[tuple[str, list[str]]]:
    return [
        (str(page.relative_to(ROOT)), words)
        for page in PAGES
        for words in commands("\n".join(blocks(page, "sh|bash|console")))
    ]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings that are the same on the site and on GitHub."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    titles = re.findall(r"^#+ (.*)$", text, flags=re.M)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "") for title in titles]
    words = [re.sub(r"[^\w\s-]", "", title).strip().lower() for title in plain]
    return {re.sub(r"\s", "-", title) for title in words} & {re.sub(r"[-\s]+", "-", title) for title in words}


def links(page: Path) -> list[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for link in links(page):
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), f"{link}: no such file"
        if anchor and not anchor.startswith("robustbench_tin"):
            assert anchor in anchors(target), f"{link}: no such heading"


def test_the_shell_blocks_have_commands() -> None:
    assert len(every_command()) > 100
    assert [words[0] for words in commands('B="robust-tin bench --seeds 1"\n$B --jobs 2 | head')] == ["bench"]


@pytest.mark.parametrize(("page", "words"), every_command())
def test_every_command_is_one_that_the_command_line_takes(page: str, words: list[str]) -> None:
    if words[0].startswith("-"):
        assert words[0] in ("--help", "--version", "--install-completion")
        return
    assert words[0] in COMMANDS
    with COMMANDS[words[0]].make_context(words[0], list(words[1:]), resilient_parsing=False):
        pass


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_python_block_is_python(page: Path) -> None:
    for block in blocks(page, "python"):
        ast.parse(block)


def test_another_option_would_be_noticed() -> None:
    with pytest.raises(Exception, match=r"[Nn]o such option.*--shine"):
        COMMANDS["bench"].make_context("bench", ["--shine", "1"])


@pytest.fixture(scope="module")
def made_pages() -> dict[str, Callable[[], str]]:
    with pytest.MonkeyPatch.context() as patch:
        # The tests have a module of the same name as one of these scripts.
        patch.delitem(sys.modules, "commands", raising=False)
        patch.syspath_prepend(DOCS)
        made = runpy.run_path(str(DOCS / "pages.py"))["PAGES"]
        sys.modules.pop("commands", None)
    return made


@pytest.mark.parametrize("name", ["attacks.md", "commands.md", "defenses.md", "options.md", "records.md"])
def test_the_pages_that_the_code_makes_are_up_to_date(
    made_pages: dict[str, Callable[[], str]], name: str
) -> None:
    assert (DOCS / "reference" / name).read_text(encoding="utf-8") == made_pages[name](), "run: make pages"


def test_the_readme_counts_what_is_registered() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    built_in = {
        name: [entry.name for entry in registry.entries() if entry.origin == "built-in"]
        for name, registry in (("attacks", attacks.registry), ("defenses", defenses.registry))
    }
    counted = {name: len(set(names) - {"none"}) for name, names in built_in.items()}
    assert f"{counted['defenses']} [defenses]" in text
    assert re.search(rf"\b{counted['attacks']}\s\[attacks\]", text)


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
    assert citation["title"].startswith("robust-tin")


def test_the_readme_is_short_and_shows_pictures() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 150
    for name in ("bench.svg", "accuracy.svg"):
        picture = (DOCS / "pictures" / name).read_text(encoding="utf-8")
        assert f"docs/pictures/{name}" in text
        assert "@import" not in picture
        assert "url(http" not in picture
