"""The command as a person meets it: its output and its exit status."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from commands import robust_tin, started
from PIL import Image
from typer.main import get_command

from robustbench_tin.cli import app as cli
from robustbench_tin.cli import panels

COMMAND = [sys.executable, "-m", "robustbench_tin"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two classes of coloured squares."""
    root = tmp_path_factory.mktemp("squares")
    random = np.random.default_rng(0)
    for part, count in (("train", 12), ("val", 10)):
        for name, colour in {"blue": (40, 60, 200), "red": (210, 50, 40)}.items():
            directory = root / part / name
            directory.mkdir(parents=True)
            for index in range(count):
                pixels = np.clip(np.array(colour) + random.integers(-30, 30, (16, 16, 3)), 0, 255)
                Image.fromarray(pixels.astype(np.uint8)).save(directory / f"{index}.png")
    return root


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    # One that is given for all tests has the demo set already; drawing it takes seconds.
    own = str(tmp_path_factory.getbasetemp() / "cli-cache")
    monkeypatch.setenv("ROBUST_TIN_CACHE", os.environ.get("ROBUST_TIN_CACHE", own))


@pytest.fixture
def small(folder: Path, tmp_path: Path) -> list:
    return [
        "bench",
        *("--data", folder),
        *("--models", "timm:test_resnet"),
        *("--epochs", 3),
        *("--device", "cpu"),
        *("--out", tmp_path / "run"),
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        *([command, "--help"] for command in ("bench", "show", "fool", "crop", "predict")),
        ["presets"],
        ["presets", "report"],
        ["--version"],
    ],
)
def test_help_imports_nothing_heavy(arguments):
    code = (
        "import sys\n"
        f"sys.argv = ['robust-tin', *{arguments}]\n"
        "from robustbench_tin.cli.app import main\n"
        "try:\n    main()\n"
        "except SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "heavy = {'torch', 'timm', 'numpy', 'pandas', 'scipy', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout


def test_a_trained_cell_predicts_and_fools_and_a_preset_s_flags_win(small, folder, tmp_path):
    preset = tmp_path / "mine.toml"
    preset.write_text('[bench]\nattacks = "fgsm"\neps = "0"\ntrust = false\nseeds = "5"\n')
    result = robust_tin(*small, "--preset", preset, "--seeds", "7")
    assert result.returncode == 0, result.stderr
    (cell,) = (tmp_path / "run" / "cells").iterdir()
    assert cell.name.endswith("--s7")
    out = tmp_path / "predictions.csv"
    options = ("--data", folder, "--device", "cpu")
    result = robust_tin("predict", cell, "--split", "val", "--out", out, *options)
    assert result.returncode == 0, result.stderr
    assert f"20 predictions of val: {out}" in result.stdout
    assert out.read_text().startswith(
        "file,class,class_name,confidence,class_2,confidence_2,true_class\nval/blue/0.png,"
    )
    # A layout in which these images cannot be written gives one line.
    result = robust_tin("fool", "--model", cell, "--out", tmp_path / "fooled", *options)
    assert result.returncode == 2
    assert "has images of 16 px; expected 64" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "fooled").exists()


def test_bench_prints_a_table_and_show_prints_it_again(small, tmp_path):
    result = robust_tin(*small)
    assert result.returncode == 0, result.stderr
    assert "Plan: 1 cell, 5 measurements, 3 epochs" in result.stdout
    assert "under fgsm, pgd (linf, fixed budget)" in result.stdout
    shown = robust_tin("show", tmp_path / "run")
    assert shown.returncode == 0
    assert shown.stdout in result.stdout
    rows = json.loads(robust_tin("show", tmp_path / "run", "--format", "json").stdout)
    assert [row["attack"] for row in rows] == ["clean", "fgsm", "fgsm", "pgd", "pgd"]
    wanted = {"model", "defense", "seed", "attack", "norm", "eps", "n", "top1", "top5", "status", "seconds"}
    assert wanted <= set(rows[0])
    csv = robust_tin("show", tmp_path / "run", "--format", "csv").stdout
    assert csv.splitlines()[0].startswith("model,defense,seed,attack,norm,eps,n,top1")
    markdown = robust_tin("show", tmp_path / "run", "--format", "markdown").stdout
    assert markdown == (tmp_path / "run" / "results.md").read_text()

    by_attack = robust_tin("show", tmp_path / "run", "--by", "attack", "--intervals", "--per-seed").stdout
    for attack in ("fgsm", "pgd"):
        assert f"under {attack} (linf, fixed budget)" in by_attack
    assert "[ ] 95 % interval" in by_attack
    for options, said in [
        (["--sort", "speed"], "sort got 'speed'; expected a column: clean, worst, top1, top5, model"),
        (["--cell", "vgg16/none/0"], "has no cell 'vgg16/none/0'; known: timm:test_resnet/none/0"),
        (["--by", "model"], "by got 'model'; expected run or attack"),
    ]:
        refused = robust_tin("show", tmp_path / "run", *options)
        assert refused.returncode == 2
        (line,) = refused.stderr.splitlines()
        assert said in line
    sorted_ = robust_tin("show", tmp_path / "run", "--sort", "worst", "--cell", "*/none/*")
    assert sorted_.stdout == shown.stdout

    listed = robust_tin("runs", tmp_path)
    assert listed.returncode == 0, listed.stderr
    assert re.search(r"^run +\d{4}-\d\d-\d\d \d\d:\d\d +done +(\d|–)", listed.stdout, flags=re.MULTILINE)


def test_the_demo_set_is_announced_on_the_first_line(tmp_path):
    result = robust_tin("bench", "--models", "mobilenet", "--dry-run", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[0].startswith("DEMO SET")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("models", ["vgg16", "nasnetlarge", "densenet201", "timm:NAME"]),
        ("attacks", ["fgsm", "pgd"]),
        ("defenses", ["none", "augment", "bbox-crop", "fgsm-at"]),
        ("datasets", ["demo", "tiny-imagenet", "folder"]),
    ],
)
def test_list_says_what_each_is_and_where_it_came_from(what, names):
    result = robust_tin("list", what)
    assert result.returncode == 0, result.stderr
    for name in names:
        assert re.search(rf"^{name} +\w.* built-in *$", result.stdout, flags=re.MULTILINE), name


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["attacks", "pgd*"], ["pgd"]),
        (["attack", "apgd-?e"], ["apgd-ce"]),
        (["defense", "none"], ["none"]),
        (["backbones", "vgg*"], ["vgg16", "vgg19"]),
        (["Model", "timm*"], ["timm:NAME"]),
    ],
)
def test_list_takes_patterns_and_singulars(arguments: list[str], names: list[str]):
    result = robust_tin("list", *arguments)
    assert result.returncode == 0, result.stderr
    assert re.findall(r"^(\S+)  ", result.stdout, flags=re.MULTILINE) == ["name", *names]


def test_list_shows_papers_and_defaults_as_fractions():
    result = robust_tin("list", "defenses", "pgd-at")
    assert "Madry et al., 2018, arXiv:1706.06083" in result.stdout
    assert "eps=8/255" in result.stdout


def test_list_shows_a_plugin_with_its_file(tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from dataclasses import dataclass\n"
        "from robustbench_tin import attacks\n\n"
        '@attacks.register("mine")\n'
        "@dataclass(frozen=True)\n"
        "class Mine(attacks.Attack):\n"
        '    """Does nothing."""\n\n'
        "    def run(self, attacked, labels, ball, generator):\n"
        "        return ball.images\n"
    )
    result = robust_tin("list", "attacks", "--plugin", plugin)
    assert "Does nothing." in result.stdout
    assert "`" not in result.stdout
    assert "mine.py" in "".join(result.stdout.split())  # a long path is folded, not cut


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bench", "--models", "densnet169"], "did you mean 'densenet169'"),
        (["bench", "--eps", "-0.1"], "expected 0 or more"),
        (["bench", "--eps", "lots"], "expected a number such as 0.03 or 8/255"),
        (["bench", "--data", "no/such/place"], "no/such/place"),
        (["bench", "--modles", "all"], "No such option"),
        (["bench", "--epochs", "few"], "--epochs"),
        (["show", "no/such/run"], "is not a run directory"),
        (["list", "things"], "list got 'things'; expected models, attacks, defenses or datasets"),
        (["list", "attacks", "pgdd"], "unknown attack 'pgdd'; did you mean 'pgd'"),
        (["bench", "--attacks", "fgsm,,pgd"], "'fgsm,,pgd' has an empty item"),
        (["bench", "--eps", "0,,0.01"], "'0,,0.01' has an empty item"),
        (["bench", "--models", "vgg16,"], "'vgg16,' has an empty item"),
        (["runs"], "no directory 'runs'"),
        (["walk"], "No such command 'walk' (see robust-tin --help)"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, message, tmp_path):
    result = robust_tin(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("robust-tin: ")
    assert message in line
    assert not list(tmp_path.iterdir())


def test_a_bench_with_failed_measures_prints_its_tables_and_ends_with_2(small):
    result = robust_tin(*small, "--lr", "1e20")
    assert result.returncode == 2
    assert "no longer finite" in result.stdout
    assert result.stderr.splitlines()[-1].endswith(
        "5 of 5 measurements failed; the tables give the reasons. Repeat the command to try them again"
    )


def test_an_unwritable_run_directory(small, tmp_path):
    (tmp_path / "run").write_text("a file")
    result = robust_tin(*small)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert (tmp_path / "run").read_text() == "a file"


def test_a_checkpoint_of_another_architecture(small, tmp_path):
    import torch
    from safetensors.torch import save_file

    save_file({"conv.weight": torch.zeros(4, 3, 3, 3)}, tmp_path / "other.safetensors")
    result = robust_tin(*small, "--weights", tmp_path / "other.safetensors")
    assert result.returncode == 2, result.stderr
    (line,) = result.stderr.splitlines()
    assert "other.safetensors" in line
    assert "timm:test_resnet" in line


def test_a_truncated_image_is_named_and_can_be_skipped(small, folder, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    broken = copy / "train" / "red" / "0.png"
    broken.write_bytes(broken.read_bytes()[:60])
    arguments = [copy if argument == folder else argument for argument in small]
    refused = robust_tin(*arguments)
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert "0.png" in line
    assert "--skip-broken" in line
    accepted = robust_tin(*arguments, "--skip-broken")
    assert accepted.returncode == 0, accepted.stderr
    assert "0.png" in accepted.stdout


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_a_killed_run_goes_on_to_the_same_tables(small, tmp_path):
    command = [*small, "--seeds", "0,1", "--attacks", "fgsm,pgd:steps=3", "--jobs", 1]
    undisturbed = robust_tin(*command)
    assert undisturbed.returncode == 0, undisturbed.stderr
    tables = (tmp_path / "run" / "results.md").read_text()
    killed = tmp_path / "killed"
    command[command.index(tmp_path / "run")] = killed
    # Kill when the first cell is trained, then when the second one's first measure is taken.
    for sign in ("cells/*/training.json", "cells/*s1/measures/*.json"):
        process = started(*command, place=tmp_path)
        while process.is_alive() and not list(killed.glob(sign)):
            time.sleep(0.005)
        process.kill()
        process.join()
        assert list(killed.glob(sign))
    first = next(killed.glob("cells/*s0/training.json"))
    stamp = first.stat().st_mtime_ns
    resumed = robust_tin(*command)
    assert resumed.returncode == 0, resumed.stderr
    assert (killed / "results.md").read_text() == tables
    assert first.stat().st_mtime_ns == stamp


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_ctrl_c_says_that_the_same_command_continues(small, tmp_path):
    command = [*COMMAND, *map(str, [*small, "--epochs", 10_000, "--checkpoint-minutes", 0])]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while process.poll() is None and not list(tmp_path.glob("run/cells/*/checkpoint.safetensors")):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate()
    assert process.returncode == 130
    assert told == "robust-tin: interrupted; the same command continues where it stopped\n"


def test_completion_ends_with_success_and_names_commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("_ROBUST_TIN_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "robust-tin pre")
    monkeypatch.setenv("COMP_CWORD", "1")
    # The program's name decides which variable asks for completion.
    code = "import sys; sys.argv = ['robust-tin']; from robustbench_tin.cli.app import main; main()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.split() == ["predict", "presets"]


@pytest.mark.parametrize(
    "command",
    ["bench", "evaluate", "show", "fool", "crop", "predict", "transfer", "baseline", "check", "init"],
)
def test_help_cuts_no_name_at_80_columns(command: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    result = robust_tin(command, "--help")
    assert result.returncode == 0
    assert "…" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) == 80


def test_a_defect_keeps_its_traceback_and_does_not_end_as_what_got_worse(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(**options: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(cli, "app", broken)
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert exit_.value.code == 2
    assert "ZeroDivisionError: a defect" in capsys.readouterr().err


def test_what_a_preset_switches_on_the_command_line_can_switch_off():
    command = get_command(cli.app).commands["bench"]
    switches = {
        option.name: option.secondary_opts for option in command.params if getattr(option, "is_flag", False)
    }
    assert {"worst_case", "pretrained"} <= set(switches)
    assert {name for name, off in switches.items() if not off} == {
        "dry_run",
        "print_plan",
        "estimate",
        "trust_plugins",
        "per_seed",
        "intervals",
    }


def test_every_command_is_in_a_group_and_the_help_fits_80_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    groups = [panels.MEASURE, panels.COMPARE, panels.IMAGES, panels.GATE, panels.NAMES]
    commands = get_command(cli.app).commands.values()
    assert {command.rich_help_panel for command in commands} == set(groups)
    lines = robust_tin("--help").stdout.splitlines()
    assert [line.strip("╭╮─ ") for line in lines if line.startswith("╭─")] == ["Options", *groups]
    assert max(map(len, lines)) <= 80
