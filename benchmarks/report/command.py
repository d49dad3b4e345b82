"""The command that repeats a run."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from robustbench_tin.benchmarks.planning.config import BenchConfig, DataConfig, EvaluateConfig
from robustbench_tin.benchmarks.planning.plan import Plan
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.benchmarks.runs.remembered import data_options
from robustbench_tin.options import Config, default_of, flag_of, options_of
from robustbench_tin.specs import number_text, short_numbers

FILE = "FILE"
"""Placeholder for a file that a run knows only by its digest."""


def repeat_command(run: Run) -> str:
    """The shell command of the run's plan; ``FILE`` stands for files that are known only by digest.

    A given model may need options that are not in the command, such as those of its normalisation.
    """
    config = EvaluateConfig if run.plan.given else BenchConfig
    words = ["robust-tin", "evaluate" if run.plan.given else "bench"]
    for name, value in _values(run, config):
        flag = flag_of(name, options_of(config)[name])
        if value is True:
            words.append(flag)
        elif value is False:
            words.append(f"--no-{flag[2:]}")
        elif isinstance(value, list):
            words += [word for each in value for word in (flag, each)]
        else:
            words += [flag, str(value)]
    return shlex.join(words)


def _values(run: Run, config: type[Config]) -> Iterator[tuple[str, Any]]:
    """The options that differ from their defaults, in the order of the help."""
    told = {**_of_data(run), **_of_plan(run.plan)}
    for name in options_of(config):
        default = default_of(config, name)
        if name in told and told[name] not in (None, (), []) and told[name] != default:
            yield name, told[name]


def _of_data(run: Run) -> dict[str, Any]:
    kept = data_options(run.path, {})
    classes = kept.get("classes")
    if isinstance(classes, list):
        kept["classes"] = ",".join(classes)
    return {name: kept.get(name) for name in options_of(DataConfig)}


def _of_plan(plan: Plan) -> dict[str, Any]:
    """Options in the form of the command line: lists with commas, budgets as the user types them."""
    names = options_of(BenchConfig).keys() - options_of(DataConfig).keys()
    values = {name: value for name, value in plan.model_dump().items() if name in names}
    listed = {name: ",".join(map(str, getattr(plan, name))) for name in ("defenses", "seeds", "attacks")}
    values |= {name: short_numbers(text) for name, text in listed.items()}
    values["eps"] = ",".join(map(number_text, plan.eps))
    values["plugins"] = [FILE] * len(plan.plugins)
    values["weights"] = FILE if plan.weights else None
    # Epochs that differ between backbones are the defaults of the data set.
    values["epochs"] = plan.epochs[0] if len(set(plan.epochs)) == 1 else None
    values["search"] = None if plan.search == "auto" else plan.search
    if not plan.given:
        return {**values, "models": ",".join(plan.models)}
    return {
        **{name: values[name] for name in ("attacks", "eps", "norm", "worst_case", "eot", "eight_bit")},
        **{name: values[name] for name in ("search", "trust", "device", "plugins")},
        "models": [model.spec for model in plan.given],
        "names": [model.name for model in plan.given],
        "weights": [FILE for model in plan.given if model.weights_file],
        "seed": plan.seeds[0],
    }
