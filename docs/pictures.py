"""Draw the pictures of the README and the docs' first page, from the demo set: ``make pictures``.

    python docs/pictures.py [--run RUN] [--out DIR]

Without ``--run`` it measures first, for a few minutes; the run's command is the one that the terminal picture shows.
"""

from __future__ import annotations

import argparse
import io
import re
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

from robustbench_tin import bench
from robustbench_tin.benchmarks.charts.plot import plot
from robustbench_tin.benchmarks.evidence.choose import choose_gallery
from robustbench_tin.benchmarks.reporting.terminal import TerminalTable
from robustbench_tin.benchmarks.run import Run

OPTIONS = {"models": "timm:test_resnet", "defenses": "none,fgsm-at:eps=4/255", "eps": "0,2/255,4/255"}
PICTURES = Path(__file__).parent / "pictures"
WIDTH = 86
_SCALE = 2
_FONT = re.compile(r"\s*@font-face \{.*?\}", flags=re.DOTALL)
"""rich's fonts of another host: a picture must load nothing."""


def draw_all(run: str | Path, out: Path) -> list[Path]:
    """Write the terminal capture, the gallery and the chart of a run.

    Args:
        run: a finished run directory of :data:`OPTIONS`.
        out: directory to write into.
    """
    out.mkdir(parents=True, exist_ok=True)
    plot(run, kind="eps", out=out / "accuracy.svg")
    return [
        _terminal(Run.load(Path(run)), out / "bench.svg"),
        _gallery(run, out / "attacked.png"),
        out / "accuracy.svg",
    ]


def _terminal(run: Run, file: Path) -> Path:
    """The run's command and table, as a terminal shows them."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, highlight=False)
    options = "".join(f" --{name} {value}" for name, value in OPTIONS.items())
    console.print(f"$ robust-tin bench{options}\n", style="bold green", soft_wrap=False)
    for table in run.tables:
        console.print(TerminalTable(table))
    picture = console.export_svg(title="robust-tin", unique_id="bench")
    file.write_text(_FONT.sub("", picture), encoding="utf-8")
    return file


def _gallery(run: str | Path, file: Path) -> Path:
    """Clean image, perturbation and adversarial image of a few successes, one above the other."""
    gallery = choose_gallery(run, cells="*/none/*", attacks="pgd", rule="confident", count=6)
    columns = [np.concatenate([each.clean, each.perturbation, each.adversarial]) for each in gallery.images]
    picture = Image.fromarray(np.concatenate(columns, axis=1))
    picture.resize((picture.width * _SCALE, picture.height * _SCALE), Image.Resampling.NEAREST).save(
        file, optimize=True
    )
    return file


def main() -> None:
    """Parse the command line, measure if need be, and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", help="a finished run; none: measure one")
    parser.add_argument("--out", type=Path, default=PICTURES, help="directory of the pictures")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run = given.run or bench(**OPTIONS, out=f"{scratch}/demo").path
        for file in draw_all(run, given.out):
            print(file)


if __name__ == "__main__":
    main()
