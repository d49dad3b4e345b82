"""``robust-tin gallery``: write a run's images before and after its attacks, as a directory of pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robustbench_tin.benchmarks.evidence.choices import Rule
from robustbench_tin.benchmarks.evidence.choose import choose_gallery
from robustbench_tin.benchmarks.evidence.contact_sheet import gallery_html, write_contact_sheet
from robustbench_tin.benchmarks.evidence.gallery import Gallery
from robustbench_tin.benchmarks.evidence.gallery_files import FACTS, FOLDER, write_gallery
from robustbench_tin.benchmarks.evidence.pictures import inline
from robustbench_tin.benchmarks.runs.resumable_output import holds_something
from robustbench_tin.errors import RunError
from robustbench_tin.threat import Budgets


@dataclass(frozen=True)
class WrittenGallery:
    """The result of ``gallery``; a notebook shows it.

    Attributes:
        path: its directory.
        sheet: the HTML page that shows it.
        gallery: its content.
    """

    path: Path
    sheet: Path
    gallery: Gallery = field(repr=False)

    def _repr_html_(self) -> str:
        return gallery_html(self.gallery, inline, heading="h4")


def gallery(
    run: str | Path,
    *,
    out: str | Path | None = None,
    cells: str | None = None,
    attacks: str | None = None,
    eps: Budgets | None = None,
    rule: str = Rule.random,
    count: int = 8,
    seed: int = 0,
    **opening: Any,
) -> WrittenGallery:
    """Write images of a run before and after its attacks, chosen by a rule.

    Adversarial images that the run does not keep are made again from the plan. Each image reproduces its
    stored result. An earlier gallery is replaced.

    Args:
        run: a run directory.
        out: output directory; None: ``gallery`` in the run directory.
        cells: see :func:`robustbench_tin.benchmarks.evidence.choose.choose_gallery`, also for the other
            arguments.

    Raises:
        RobustTinError: see :func:`~robustbench_tin.benchmarks.evidence.choose.choose_gallery`; or if ``out``
            contains anything but a gallery.
    """
    folder = Path(run) / FOLDER if out is None else Path(out)
    if holds_something(folder) and not (folder / FACTS).is_file():
        raise RunError(f"'{folder}' is not empty and is not a gallery; choose another --out")
    chosen = choose_gallery(
        run, cells=cells, attacks=attacks, eps=eps, rule=rule, count=count, seed=seed, **opening
    )
    write_gallery(chosen, folder)
    return WrittenGallery(folder, write_contact_sheet(chosen, folder), chosen)
