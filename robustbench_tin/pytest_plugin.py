"""The pytest plug-in: a fixture that measures a model once per test run, and assertions about it.

::

    def test_robustness(robustness):
        measured = robustness(model, images, labels)
        measured.at_least(pgd=0.30, eps=0.01)
        measured.not_worse_than("robustness-baseline.json")

It imports nothing heavy before a test uses the fixture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_tin.benchmarks.gate.candidate import Candidate
    from robustbench_tin.benchmarks.gate.result import CheckReport
    from robustbench_tin.benchmarks.gate.rules import Rules
    from robustbench_tin.benchmarks.gate.user_model import UserModelSettings
    from robustbench_tin.benchmarks.measurement.inputs import Images, Labels
    from robustbench_tin.benchmarks.measurement.preparation import Model
    from robustbench_tin.models.normalisation import Values
    from robustbench_tin.models.user_model import UserModel
    from robustbench_tin.threat import Number


class Robustness:
    """Assertions about a model's robustness; made by the fixture ``robustness``.

    Each measurement runs once, when an assertion first needs it.
    """

    def __init__(self, own: UserModel, images: Tensor, labels: Tensor, facts: dict[str, str]) -> None:
        self._own = own
        self._images = images
        self._labels = labels
        self._facts = facts
        self._measured: dict[UserModelSettings, Candidate] = {}

    def at_least(self, *, eps: str | Number = 0.0, norm: str = "linf", **floors: float) -> Robustness:
        """Require accuracies: ``at_least(clean=0.9)``, ``at_least(fgsm=0.5, pgd=0.3, eps=0.01)``.

        Args:
            eps: budget in units of the pixel range [0, 1]; 0 for ``clean`` alone.
            norm: ``linf`` or ``l2``.
            **floors: smallest accuracy, 0 to 1, by attack; attacks have their default settings, and ``_`` in
                place of ``-``: ``apgd_ce=0.2``.

        Returns:
            This object, for the next requirement.
        """
        from robustbench_tin.benchmarks.gate.check import check
        from robustbench_tin.benchmarks.gate.rules import Rules
        from robustbench_tin.benchmarks.gate.rules_file import find_rules
        from robustbench_tin.benchmarks.gate.user_model import UserModelSettings
        from robustbench_tin.threat import parse_eps

        with _mistakes_told():
            budget = parse_eps(eps, norm)
        named = {name.replace("_", "-"): floor for name, floor in floors.items()}
        attacks = [name for name in named if name != "clean"]
        if attacks and budget <= 0:
            pytest.fail(f"at_least({', '.join(floors)}) got eps {eps}; expected more than 0", pytrace=False)
        asked = UserModelSettings(",".join(attacks) or "fgsm", str(budget), norm)
        texts = [f"{name}{'' if name == 'clean' else f'@{budget}'}={floor}" for name, floor in named.items()]
        with _mistakes_told():
            rules = Rules().then((), texts, allow_untrained=find_rules().allow_untrained)
            _require(check(self._candidate(asked), None, rules))
        return self

    def not_worse_than(
        self, baseline: str | Path, *, max_drop: float | None = None, retrained: bool | None = None
    ) -> Robustness:
        """Require that no measure is worse than in a baseline file, under its attacks and budgets.

        Args:
            baseline: baseline of one model, made with ``robust-tin baseline``.
            max_drop: largest drop allowed for a measure, as a fraction; None for the value in
                ``pyproject.toml``, or else 0.01.
            retrained: True if the weights were trained again, False if only the code around them changed;
                None to decide by their digest.

        Returns:
            This object, for the next requirement.
        """
        from robustbench_tin.benchmarks.gate.baseline_io import read_baseline
        from robustbench_tin.benchmarks.gate.check import check
        from robustbench_tin.benchmarks.gate.comparison_mode import ComparisonMode
        from robustbench_tin.benchmarks.gate.rules_file import find_rules
        from robustbench_tin.benchmarks.gate.user_model import asked_by

        forced_mode = (
            None
            if retrained is None
            else ComparisonMode.retrained
            if retrained
            else ComparisonMode.same_weights
        )
        with _mistakes_told():
            rules: Rules = find_rules().then([] if max_drop is None else [str(max_drop)], (), None)
            candidate = self._candidate(asked_by(read_baseline(baseline)))
            # A project's rules apply to all of its models, and this is one of them.
            _require(check(candidate, baseline, rules, forced_mode=forced_mode, part=True))
        return self

    def save_baseline(self, path: str | Path, *, attacks: str, eps: str, norm: str = "linf") -> None:
        """Write a baseline file for :meth:`not_worse_than`, at first or after an improvement."""
        from robustbench_tin.benchmarks.gate.baseline import make_baseline
        from robustbench_tin.benchmarks.gate.user_model import UserModelSettings

        with _mistakes_told():
            make_baseline([self._candidate(UserModelSettings(attacks, eps, norm))]).write(Path(path))

    def _candidate(self, asked: UserModelSettings) -> Candidate:
        from robustbench_tin.benchmarks.gate.user_model import measure

        if asked not in self._measured:
            self._measured[asked] = measure(self._own, self._images, self._labels, asked, self._facts)
        return self._measured[asked]


@pytest.fixture(scope="session")
def robustness() -> Callable[..., Robustness]:
    """``robustness(model, images, labels)``: assertions on a model; a repeated call does not measure again.

    It accepts the images, labels, ``mean`` and ``std`` of :func:`robustbench_tin.evaluate`.
    """
    known: dict[tuple[str, str], Robustness] = {}

    def measured(
        model: Model,
        images: Images,
        labels: Labels | None = None,
        *,
        name: str | None = None,
        mean: Values | None = None,
        std: Values | None = None,
    ) -> Robustness:
        from robustbench_tin.benchmarks.measurement.inputs import as_images_and_labels, require_values
        from robustbench_tin.data.base import Split
        from robustbench_tin.models.as_module import as_module, name_of
        from robustbench_tin.models.normalisation import normalized
        from robustbench_tin.models.user_model import UserModel, weights_digest

        with _mistakes_told():
            module = as_module(model)
            require_values(module)
            shown, true = as_images_and_labels(images, labels)
            own = UserModel(normalized(module, mean, std), name or name_of(module), weights_digest(module))
        digest = Split(shown.cpu().numpy(), true.cpu().numpy()).fingerprint
        # Two models with the same tensors may still give different outputs.
        key = (f"{id(model)} {own.name} {own.weights} {mean} {std}", digest)
        if key not in known:
            facts = {"data": "images", "data_fingerprint": digest, "measured_on": digest}
            known[key] = Robustness(own, shown, true, facts)
        return known[key]

    return measured


@contextmanager
def _mistakes_told() -> Iterator[None]:
    """Turn a user's mistake into a failure with one line, without a traceback through this package."""
    from robustbench_tin.errors import RobustTinError

    try:
        yield
    except RobustTinError as error:
        # pytest.fail would show this error as its context.
        raise pytest.fail.Exception(str(error), pytrace=False) from None


def _require(report: CheckReport) -> None:
    if report.exit_code != 0:
        _fail(report)


def _fail(report: CheckReport) -> NoReturn:
    """Fail with the table as the message, without a traceback through this file."""
    from robustbench_tin.benchmarks.gate.text_report import plain

    pytest.fail(plain(report), pytrace=False)
