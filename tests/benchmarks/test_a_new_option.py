"""An option is one field: it is then in the help, in presets, in the plan, in hashes and in the docs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from robustbench_tin.benchmarks.planning import config
from robustbench_tin.benchmarks.planning.config import BenchConfig
from robustbench_tin.benchmarks.planning.resolve import resolve
from robustbench_tin.benchmarks.runs.trained_model import find_trained
from robustbench_tin.progress import Reporter

ROOT = Path(__file__).resolve().parents[2]
BEFORE = '''    norm: str = option("linf"'''
ADDED = """    shine: float = option(0.5, "How much images shine.", at_least=0)\n"""

PROGRAM = """
import importlib.util, json, runpy, sys
from pathlib import Path

changed, data, script, good, wrong = sys.argv[1:]
spec = importlib.util.spec_from_file_location("robustbench_tin.benchmarks.planning.config", changed)
config = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(config)

from typer.testing import CliRunner
from robustbench_tin import bench
from robustbench_tin.cli import app as cli
from robustbench_tin.benchmarks.planning.resolve import resolve
from robustbench_tin.benchmarks.runs.trained_model import find_trained
from robustbench_tin.progress import Reporter
from robustbench_tin.errors import RobustTinError
from robustbench_tin.presets import with_preset

def plan(**options):
    asked = config.BenchConfig(data=data, models="timm:test_resnet", device="cpu", **options)
    return resolve(asked, Reporter(), find_trained)[0]

def refused(call, *arguments, **options):
    try:
        call(*arguments, **options)
    except RobustTinError as error:
        return str(error)

usual, bright = plan(), plan(shine=0.7)
print(json.dumps({
    "help": CliRunner().invoke(cli.app, ["bench", "--help"]).output,
    "docs": runpy.run_path(script)["page"](),
    "preset": with_preset(good, {}, config.BenchConfig),
    "wrong type": refused(with_preset, wrong, {}, config.BenchConfig),
    "out of bounds": refused(config.BenchConfig, shine=-1.0),
    "hashes": [[some.fingerprint, some.digest] for some in (usual, bright)],
    "printed": bright.describe(),
    "difference": bright.differences(usual),
}))
"""


def test_a_field_is_all_that_a_new_option_takes(small_folder: Path, tmp_path: Path) -> None:
    source = Path(config.__file__).read_text(encoding="utf-8")
    assert source.count(BEFORE) == 2  # of an attack, and of a model of one's own
    changed, good, wrong = (tmp_path / name for name in ("config.py", "good.toml", "wrong.toml"))
    changed.write_text(source.replace(BEFORE, ADDED + BEFORE, 1), encoding="utf-8")
    good.write_text("[bench]\nshine = 0.7\n")
    wrong.write_text("[bench]\nshine = 'much'\n")
    script = ROOT / "docs" / "options.py"
    command = [sys.executable, "-c", PROGRAM, *map(str, (changed, small_folder, script, good, wrong))]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    assert "--shine" in told["help"]
    assert "How much images shine." in told["help"]
    assert "| `--shine` | a number: 0 or more | `0.5` | How much images shine. |" in told["docs"]
    assert told["preset"] == {"shine": 0.7}
    assert told["wrong type"].endswith("shine = 'much'; expected a number")
    assert told["out of bounds"] == "shine got -1.0; expected 0 or more"
    assert "shine = 0.7" in told["printed"]
    assert told["difference"] == ["shine: 0.5 there, 0.7 here"]
    asked = BenchConfig(data=str(small_folder), models="timm:test_resnet", device="cpu")
    today = resolve(asked, Reporter(), find_trained)[0]
    # Runs from before the option continue, and a value of it makes another run.
    assert told["hashes"][0] == [today.fingerprint, today.digest]
    assert all(new != old for new, old in zip(*told["hashes"], strict=True))
