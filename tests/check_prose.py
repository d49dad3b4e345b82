"""Count the tics of prose in docs, docstrings, comments and messages; more than agreed fails.

    python tests/check_prose.py [--list] [PATH ...]

``--list`` prints each place. The rules: a noun instead of a clause with *what*; *if* instead of *where*; no
*go on*, *so many*, *to be believed*, *be had*; no sentence that begins with *Of*.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("robustbench_tin", "attacks", "defenses", "benchmarks", "tests", "perf", "docs", "ci")
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")

# Every "what" outside a question counts: a rule that is easy to keep.
TICS = {
    "what": re.compile(r"\bwhat(ever)?\b", re.IGNORECASE),
    # A place may be a "where": "the folder where", "shows where", "from where".
    "where": re.compile(
        r"(?<!folder )(?<!directory )(?<!place )(?<!places )(?<!says )(?<!say )(?<!shows )(?<!show )"
        r"(?<!know )(?<!knows )(?<!image )(?<!from )(?<!pixels )(?<!else)(?<!any)(?<!every)\bwhere\b",
        re.IGNORECASE,
    ),
    "verb": re.compile(
        r"\b(go(es|ing)? on|went on|gone on|so many|so much|(to )?be(en)? believed|(to )?be had|is had"
        r"|if there is none)\b",
        re.IGNORECASE,
    ),
    "Of": re.compile(r"(?:^|[.!?:] )Of\b"),
}
AGREED = {"what": 60, "where": 20, "verb": 0, "Of": 0}


@dataclass(frozen=True)
class Tic:
    """One place: which rule, in which file and line, and the sentence."""

    rule: str
    path: Path
    line: int
    sentence: str


def texts_of_python(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of each comment block, docstring and message of a Python file."""
    block: list[str] = []
    first = last = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if block and token.start[0] != last + 1:
                yield first, " ".join(block)
                block = []
            if not block:
                first = token.start[0]
            block.append(token.string.lstrip("# "))
            last = token.start[0]
    if block:
        yield first, " ".join(block)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "X" for part in node.values]
            yield node.lineno, "".join(str(part) for part in parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value  # a word alone is a name, not prose


def texts_of_page(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of each paragraph of a page, without code."""
    source = re.sub(r"^(```|~~~).*?^\1", lambda match: "\n" * match[0].count("\n"), source, flags=re.S | re.M)
    line = 1
    for paragraph in re.split(r"(\n\s*\n)", source):
        yield line, paragraph
        line += paragraph.count("\n")


def tics_of(path: Path) -> Iterator[Tic]:
    """Each tic of a file."""
    source = path.read_text(encoding="utf-8")
    texts = texts_of_page(source) if path.suffix == ".md" else texts_of_python(source)
    seen = set()
    for line, text in texts:
        plain = re.sub(r"``.*?``|`.*?`", "X", text)
        for sentence in re.split(r"(?<=[.!?:;])\s+", re.sub(r"\s+", " ", plain).strip()):
            if sentence.endswith("?"):
                continue
            for rule, pattern in TICS.items():
                if pattern.search(sentence) and (rule, line, sentence) not in seen:
                    seen.add((rule, line, sentence))
                    yield Tic(rule, path, line, sentence)


def files(paths: list[str]) -> list[Path]:
    """The files below these paths, or those of the repository; links to folders are not followed."""
    chosen = [Path(path) for path in paths] or [ROOT / name for name in (*FOLDERS, *PAGES)]
    found = []
    for path in chosen:
        every = sorted(path.rglob("*")) if path.is_dir() else [path]
        found += [each for each in every if each.is_file() and each.suffix in (".py", ".md")]
    # The package's folder has links to the domain folders.
    unique = {each.resolve(): each for each in reversed(found)}
    return sorted(path for path in unique if path != Path(__file__).resolve())


def main(arguments: list[str]) -> int:
    paths = [each for each in arguments if not each.startswith("--")]
    tics = [tic for path in files(paths) for tic in tics_of(path)]
    if "--list" in arguments:
        for tic in tics:
            print(
                f"{tic.path.relative_to(ROOT) if tic.path.is_relative_to(ROOT) else tic.path}:{tic.line}: "
                f"{tic.rule}: {tic.sentence[:160]}"
            )
    counts = Counter(tic.rule for tic in tics)
    over = [rule for rule, most in AGREED.items() if counts[rule] > most]
    print(", ".join(f"{rule} {counts[rule]} (at most {most})" for rule, most in AGREED.items()))
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
