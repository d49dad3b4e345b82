"""The command that repeats a run."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from robustbench_tin.benchmarks.planning.config import (
    BenchConfig,
    DataConfig,
    EvaluateConfig,
    MeasurementConfig,
)
from robustbench_tin.benchmarks.planning.given_models import GivenModel
from robustbench_tin.benchmarks.planning.plan import Plan
from robustbench_tin.benchmarks.runs.model_places import model_places
from robustbench_tin.benchmarks.runs.remembered import data_options
from robustbench_tin.benchmarks.runs.run_directory import RunDirectory
from robustbench_tin.data.class_order import IMAGENET, ORDERS
from robustbench_tin.options import Config, default_of, flag_of, options_of
from robustbench_tin.specs import number_text, short_numbers

FILE = "FILE"
"""Placeholder for a file that a run knows only by its digest."""


def repeat_command(run: RunDirectory) -> str:
    """The shell command of the run's plan; ``FILE`` stands for files that are known only by digest."""
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


def _values(run: RunDirectory, config: type[Config]) -> Iterator[tuple[str, Any]]:
    """The options that differ from their defaults, in the order of the help."""
    told = {**_of_data(run), **_of_plan(run.plan), **_of_models(run)}
    for name in options_of(config):
        default = default_of(config, name)
        if name in told and told[name] not in (None, (), []) and told[name] != default:
            yield name, told[name]


def _of_data(run: RunDirectory) -> dict[str, Any]:
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
    kept = (options_of(MeasurementConfig).keys() & values.keys()) | {"device", "plugins"}
    return {**{name: values[name] for name in kept}, "seed": plan.seeds[0]}


def _of_models(run: RunDirectory) -> dict[str, Any]:
    """The options of models that were given; one command gives all of them the same."""
    given = run.plan.given
    if not given:
        return {}
    first = given[0]
    return {
        "models": [model.spec for model in given],
        "names": [model.name for model in given],
        "weights": [FILE for model in given if model.weights_file],
        "pretrained": first.pretrained,
        "model_args": list(first.arguments),
        "class_order": _class_order(run),
        **_normalisation(given),
        "output": first.output or None,
        "batch_size": first.batch_size,
        "pad": first.pad,
        "grayscale": first.grayscale,
        "value_range": _numbers(first.value_range),
    }


def _class_order(run: RunDirectory) -> str | None:
    """The order of the models' classes by its name; ``FILE`` stands for one in a file."""
    order = next((place.class_order for place in model_places(run.path).values()), "")
    return (order if order in (*ORDERS, IMAGENET) else FILE) if order else None


def _normalisation(given: Sequence[GivenModel]) -> dict[str, str | None]:
    """Mean and std of all models; if each has its own, they are those of the models' settings."""
    first = given[0]
    if any((model.mean, model.std) != (first.mean, first.std) for model in given):
        return {"normalize": "auto"}
    return {"mean": _numbers(first.mean), "std": _numbers(first.std)}


def _numbers(values: Sequence[float]) -> str | None:
    return ",".join(map(repr, values)) or None
