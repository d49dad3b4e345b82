"""The text of the report's file, read without a browser."""

from __future__ import annotations

import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import pytest

from robustbench_tin import bench
from robustbench_tin.benchmarks.charts.shown_run import open_runs
from robustbench_tin.benchmarks.planning.plan import Plan
from robustbench_tin.benchmarks.report.command import repeat_command
from robustbench_tin.benchmarks.report.page import script_json
from robustbench_tin.benchmarks.report.report import report
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.benchmarks.runs.model_places import ModelPlace, remember_models
from robustbench_tin.benchmarks.runs.run_directory import RunDirectory
from robustbench_tin.cli.app import app
from robustbench_tin.errors import RunError

pytest.importorskip("altair")
pytest.importorskip("vl_convert")


class Tables(HTMLParser):
    """The texts of each table's cells, row by row, and the names of all elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.elements: list[tuple[str, dict]] = []
        self._rows: list[list[str]] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag == "table":
            self._rows = self.tables[dict(attributes)["id"]] = []
        elif tag == "tr" and self._rows is not None:
            self._rows.append([])
        elif tag in ("td", "th") and self._rows:
            self._rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "table" and self._rows is not None:
            self._rows[:] = [[" ".join(cell.split()) for cell in row] for row in self._rows]
            self._rows = None

    def handle_data(self, data: str) -> None:
        if self._rows and self._rows[-1]:
            self._rows[-1][-1] += data


@pytest.fixture(scope="module")
def text(page_file: Path) -> str:
    return page_file.read_text()


@pytest.fixture(scope="module")
def parsed(text: str) -> Tables:
    return Tables(text)


def test_the_leaderboard_has_the_figures_of_the_records(made: Run, parsed: Tables) -> None:
    head, *rows = parsed.tables["leaderboard-table"]
    assert head[0] == "run"
    assert len(rows) == 6 + 2
    (row,) = (row for row in rows if row[:3] == ["trained", "mobilenet", "fgsm-at"])
    own = made.records.query("model == 'mobilenet' and defense == 'fgsm-at'")
    clean = own[own["attack"] == "clean"].iloc[0]
    assert " ".join(row[3].split()) == (
        f"{100 * clean.top1:.1f} [{100 * clean.top1_low:.1f}, {100 * clean.top1_high:.1f}]"
    )
    lowest = own[own["eps"] == 4 / 255]["top1"].min()
    assert row[head.index("lowest top-1 at 4/255, %")].startswith(f"{100 * lowest:.1f}")
    assert "unreliable" in row[-1]
    (seen,) = (row for row in rows if row[:3] == ["trained", "resnet50", "none"])
    assert "52.0 [47.0, 57.0] grad-cam" in " ".join(seen[head.index("attribution in box, %")].split())


def test_every_measurement_has_a_row(made: Run, hostile: Run, parsed: Tables) -> None:
    _, *rows = parsed.tables["measurements-table"]
    assert len(rows) == len(made.records) + len(hostile.records)
    _, *reasons = parsed.tables["reasons-table"]
    assert reasons
    assert all("still succeeded on 7 of 100 images" in row[2] for row in reasons)
    assert {row[3] for row in reasons} == {"fgsm at 8/255", "fgsm at 0.01"}


def test_classes_and_confusions_are_there(parsed: Tables) -> None:
    _, *rows = parsed.tables["worst-classes-table"]
    assert next(row[1] for row in rows if row[0].strip() == "trained: resnet50 + none").startswith("thing")
    _, *confusions = parsed.tables["confusions-table"]
    assert {row[1] for row in confusions} == {"clean", "pgd at 8/255", "pgd at 0.01"}


def test_plan_versions_fingerprint_and_command_are_there(made: Run, text: str) -> None:
    for expected in (made.plan.fingerprint, made.plan.data_fingerprint, "torch ", repeat_command(made)):
        assert expected in text


def test_names_are_text_and_never_markup(hostile: Run, text: str, parsed: Tables) -> None:
    name = hostile.plan.models[0]
    assert any(row[1] == name for row in parsed.tables["leaderboard-table"])
    kinds = [attributes.get("type") for tag, attributes in parsed.elements if tag == "script"]
    assert [kind for kind in kinds if kind != "application/json"] == [None, None]
    assert not any(tag == "b" for tag, _ in parsed.elements)
    assert name not in text
    # Names reach charts as data.
    blocks = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text, flags=re.DOTALL)
    assert len(blocks) == kinds.count("application/json")
    assert any(name in json.dumps(json.loads(block)) for block in blocks)


def test_json_in_a_script_cannot_end_it() -> None:
    made = script_json({"name": "</script><!-- & \u2028"})
    assert not set("<>&\u2028") & set(made)
    assert json.loads(made) == {"name": "</script><!-- & \u2028"}


def test_pictures_and_scripts_are_inside(text: str, parsed: Tables) -> None:
    sources = [
        attributes[name]
        for _, attributes in parsed.elements
        for name in ("src", "href")
        if name in attributes and not attributes[name].startswith("#")
    ]
    assert len(sources) == 2 * 3 + 2
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "magnified" not in text or "×" in text
    assert len(text.encode()) < 2_000_000


def test_only_the_cells_asked_for_are_shown(made: Run, tmp_path: Path) -> None:
    text = report(made.path, cell="mobilenet/*", out=tmp_path / "part.html").read_text()
    parsed = Tables(text)
    assert {row[0] for row in parsed.tables["leaderboard-table"][1:]} == {"mobilenet"}
    assert not any(tag == "image" for tag, _ in parsed.elements), "the pictures are of another cell"


def test_a_run_without_attacks_or_labels_has_a_report_too(tmp_path: Path, run: Run) -> None:
    """Clean figures alone, and curves."""
    parsed = Tables(report(run.path, out=tmp_path / "clean.html").read_text())
    assert {"leaderboard-table", "measurements-table", "cost-table"} <= set(parsed.tables)
    assert "reasons-table" not in parsed.tables
    sections = [attributes.get("id") for tag, attributes in parsed.elements if tag == "section"]
    assert sections == [
        "leaderboard",
        "trust",
        "curves",
        "classes",
        "confusion",
        "measurements",
        "cost",
        "runs",
    ]


def test_a_run_with_nothing_measured_is_one_line(made: Run, tmp_path: Path) -> None:
    plan = Plan.model_validate({**made.plan.model_dump(), "eval_images": 7})
    with Run.begun(tmp_path / "empty", plan):
        pass
    with pytest.raises(RunError, match="has no measurements yet"):
        report(tmp_path / "empty")


def test_the_command_repeats_the_run(small: dict, capsys: pytest.CaptureFixture[str]) -> None:
    run = bench(**{**small, "eps": "0,2.5/255", "attacks": "fgsm", "seeds": "0,1", "label_smoothing": 0.1})
    program, *words = shlex.split(repeat_command(run))
    assert program == "robust-tin"
    app([*words, "--out", str(run.path)], standalone_mode=False)
    assert "is complete already: nothing to do" in capsys.readouterr().out


def test_the_command_of_a_run_of_given_models_names_them(hostile: Run) -> None:
    words = shlex.split(repeat_command(hostile))
    assert words[:2] == ["robust-tin", "evaluate"]
    assert [words[place + 1] for place, word in enumerate(words) if word == "--name"] == list(
        open_runs([hostile.path])[0].run.plan.models
    )


def given_run(path: Path, hostile: Run, *models: dict) -> RunDirectory:
    """A run of models that were given with these options; it is never read."""
    facts = {"outputs": 3, "image_size": 16}
    named = [{"name": f"m{number}", **facts, **model} for number, model in enumerate(models)]
    names = [model["name"] for model in named]
    changed = {
        "given": named,
        "models": names,
        "epochs": [0] * len(named),
        "curve": True,
        "keep_adversarial": 4,
    }
    plan = Plan.model_validate({**hostile.plan.model_dump(), **changed})
    places = {name: ModelPlace(spec=name, class_order="wnids") for name in names}
    remember_models(path, places)
    return RunDirectory(path, plan)


def test_the_command_has_every_option_of_given_models(hostile: Run, tmp_path: Path) -> None:
    half = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
    adapted = {
        "output": "logits",
        "batch_size": 8,
        "pad": True,
        "grayscale": True,
        "value_range": (-1.0, 1.0),
        "arguments": ("classes=3",),
        "weights_file": "net.pt 0123",
    }
    command = repeat_command(given_run(tmp_path, hostile, {"spec": "mine.py:net", **half, **adapted}))
    for words in (
        "--model mine.py:net",
        "--weights FILE",
        "--model-arg classes=3",
        "--class-order wnids",
        "--mean 0.5,0.5,0.5 --std 0.25,0.25,0.25",
        "--output logits --batch-size 8 --pad --grayscale --range -1.0,1.0",
        "--curve",
        "--keep-adversarial 4",
    ):
        assert f" {words}" in command, words
    both = repeat_command(given_run(tmp_path, hostile, {"spec": "timm:a", **half}, {"spec": "timm:b"}))
    assert " --normalize auto" in both
    assert " --mean" not in both
