"""A wrong plug-in is refused when it registers, with one line that names the expected signature."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from robustbench_tin import attacks, defenses
from robustbench_tin.attacks import parse_attack
from robustbench_tin.attacks.plugin_check import problem_of as problem_of_attack
from robustbench_tin.defenses import parse_defense
from robustbench_tin.defenses.plugin_check import problem_of as problem_of_defense
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.registry import Registry, load_plugin

HEAD = """
from __future__ import annotations
import math
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from pathlib import Path
from typing import ClassVar, Literal
from torch.nn import functional
from robustbench_tin import attacks, defenses

"""
RUN = "run(self, attacked, labels, ball, generator)"


def attack(body: str, base: str = "attacks.Attack", decorator: str = "@dataclass(frozen=True)") -> str:
    return f'@attacks.register("mine")\n{decorator}\nclass Mine({base}):\n{textwrap.indent(body, "    ")}\n'


def moving(body: str) -> str:
    """An attack with a sound ``run``."""
    return attack(f"{body}\ndef {RUN}:\n    return ball.images")


def defense(body: str, base: str = "defenses.Defense") -> str:
    text = textwrap.indent(body, "    ")
    return f'@defenses.register("mine")\n@dataclass(frozen=True)\nclass Mine({base}):\n{text}\n'


def refused(write_plugin: Callable[..., Path], text: str) -> str:
    """The line that refuses a plug-in, without its start; nothing was registered."""
    path = write_plugin(HEAD + text)
    known = attacks.registry.names(), defenses.registry.names()
    with pytest.raises(InvalidSettingError) as caught:
        load_plugin(path)
    assert (attacks.registry.names(), defenses.registry.names()) == known
    start = re.match(
        rf"(attack|defense) 'mine' of {re.escape(str(path))} cannot be registered: ", str(caught.value)
    )
    assert start, caught.value
    assert "\n" not in str(caught.value)
    return str(caught.value)[start.end() :]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (
            "def run(self, model, images, labels, eps):\n    return images",
            f"class Mine defines run(self, model, images, labels, eps); expected {RUN}",
        ),
        (
            "def run(self, attacked, labels, ball):\n    return ball.images",
            f"run(self, attacked, labels, ball); expected {RUN}",
        ),
        ("def run(self, labels, attacked, ball, generator):\n    return ball.images", f"expected {RUN}"),
        (
            "def run(self, attacked, labels, ball, generator, extra):\n    return ball.images",
            f"expected {RUN}",
        ),
        ("def run(self, attacked, labels, ball, *, generator):\n    return ball.images", f"expected {RUN}"),
        ("def run(attacked, labels, ball, generator):\n    return ball.images", f"expected {RUN}"),
        ("def run(self, **named):\n    return named['ball'].images", f"run(self, **named); expected {RUN}"),
        ("steps: int = 3", f"class Mine does not define {RUN}; expected that method"),
        ("run = 3", f"class Mine sets run = 3; expected the method {RUN}"),
        (
            "@property\ndef run(self):\n    return None",
            f"class Mine defines run as a property; expected the method {RUN}",
        ),
        (
            "def runn(self):\n    pass",
            "class Mine defines runn, which robust-tin does not use; did you mean run?",
        ),
    ],
)
def test_a_method_that_the_engine_could_not_call(
    write_plugin: Callable[..., Path], body: str, problem: str
) -> None:
    assert problem in refused(write_plugin, attack(body))


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("steps: int", "setting steps: int has no default; expected steps: int = VALUE"),
        (
            "sizes: tuple[int, ...] = (1, 2)",
            "setting sizes: tuple[int, ...] cannot be read from a spec; expected int",
        ),
        ("sizes: list[int] | None = None", "setting sizes: list[int] | None cannot be read from a spec"),
        ("model: object = None", "setting model: object cannot be read from a spec"),
        ("level: Literal[1, 2] = 1", "setting level: Literal[1, 2] cannot be read from a spec"),
        ("steps: int = 'ten'", "setting steps: int has the default 'ten'; expected a value of its type"),
        ("steps: int = 2.5", "setting steps: int has the default 2.5; expected a value of its type"),
        ("alpha: float = None", "setting alpha: float has the default None; expected a value of its type"),
        ("mode: str = 'fast'", "setting mode hides Attack.mode; choose another name for it"),
        ("stages: int = 3", "setting stages hides the method Attack.stages; choose another name for it"),
        (
            "steps: Missing = 3",
            "the annotations of class Mine cannot be read: NameError: name 'Missing' is not defin",
        ),
        ("norms = 'linf'", "class Mine sets norms = 'linf'; expected a tuple of linf and l2"),
        ("norms = ('l1',)", "class Mine sets norms = ('l1',); expected a tuple of linf and l2"),
        ("lengths = ('alpha',)", "class Mine sets lengths = ('alpha',); expected some of its settings"),
        ("needs_gradients = 'no'", "class Mine sets needs_gradients = 'no'; expected True or False"),
        (
            "need_gradients = False",
            "class Mine defines need_gradients, which robust-tin does not use; did you mean n",
        ),
        (
            "name = 'other'",
            "its class sets name = 'other'; expected no name, or the name under which it register",
        ),
        (
            "def goal(self):\n    pass",
            "class Mine defines goal as a method; expected a property, put @property on it",
        ),
    ],
)
def test_settings_and_facts_that_a_spec_or_a_table_could_not_hold(
    write_plugin: Callable[..., Path], body: str, problem: str
) -> None:
    assert problem in refused(write_plugin, moving(body))


@pytest.mark.parametrize(
    ("base", "given", "expected"),
    [
        ("attacks.IterativeAttack", "begin(self)", "begin(self, inputs)"),
        ("attacks.IterativeAttack", "begin(self, attacked, labels)", "begin(self, inputs)"),
        (
            "attacks.Attack",
            "sweep(self, attacked, labels, ball)",
            "sweep(self, attacked, labels, balls, generators)",
        ),
        ("attacks.Attack", "stages(self)", "stages(self, classes)"),
        ("attacks.Attack", "gradients(self)", "gradients(self, budgets)"),
        (
            "defenses.AdversarialTraining",
            "perturb(self, classifier, images)",
            "perturb(self, classifier, images, labels, context)",
        ),
    ],
)
def test_the_other_methods_of_base_classes(
    write_plugin: Callable[..., Path], base: str, given: str, expected: str
) -> None:
    text = f"def {given}:\n    pass"
    found = refused(write_plugin, (attack if "attacks" in base else defense)(text, base))
    assert found == f"class Mine defines {given}; expected {expected}"


def test_a_class_that_is_no_frozen_dataclass(write_plugin: Callable[..., Path]) -> None:
    body = f"def {RUN}:\n    return ball.images"
    expected = (
        "class Mine is not a dataclass, so it has no settings; put @dataclass(frozen=True) between"
        " @attacks.register(...) and class Mine"
    )
    assert refused(write_plugin, attack(body, decorator="")) == expected
    above = "@dataclass(frozen=True)\n" + attack(body, decorator="")
    with pytest.raises(InvalidSettingError, match="put @dataclass"):
        load_plugin(write_plugin(HEAD + above, "above.py"))
    unequal = attack(body, decorator="@dataclass(frozen=True, eq=False)")
    with pytest.raises(InvalidSettingError, match="class Mine has eq=False; expected objects with the same"):
        load_plugin(write_plugin(HEAD + unequal, "unequal.py"))
    with pytest.raises(
        InvalidSettingError, match="TypeError: cannot inherit non-frozen dataclass from a frozen"
    ):
        load_plugin(write_plugin(HEAD + attack(body, decorator="@dataclass"), "thawed.py"))


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ('@attacks.register("mine")\ndef attack(model, images):\n    return images', "<function attack at"),
        (
            '@attacks.register("mine")\n@dataclass(frozen=True)\nclass Mine:\n    steps: int = 3',
            "<class 'robust",
        ),
        (
            '@attacks.register("mine")\n@dataclass(frozen=True)\nclass Mine(defenses.Defense):\n    pass',
            "<class '",
        ),
    ],
)
def test_what_is_no_attack(write_plugin: Callable[..., Path], text: str, got: str) -> None:
    found = refused(write_plugin, text)
    assert found.startswith(f"got {got}")
    assert found.endswith("; expected a class derived from Attack")


@pytest.mark.parametrize("name", ["", "my attack", "mine:steps=3", "a+b", "a,b", "a=b", "mine*"])
def test_a_name_that_no_spec_can_hold(name: str) -> None:
    with pytest.raises(InvalidSettingError, match=r'^attack got the name .*; expected @register\("NAME"\)'):
        attacks.register(name)


def test_the_decorator_without_a_name() -> None:
    with pytest.raises(
        InvalidSettingError, match=r'^defense got the name <class .*; expected @register\("NAME"\)'
    ):
        defenses.register(defenses.Defense)


AUGMENT = "augment(self, images, labels, context)"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (
            "def augment(self, images, labels):\n    return images, labels",
            f"class Mine defines augment(self, images, labels); expected {AUGMENT}",
        ),
        ("def augment(self, labels, images, context):\n    return images, labels", f"expected {AUGMENT}"),
        (
            "def augment(self, x, y, context):\n    return x, y",
            f"augment(self, x, y, context); expected {AUGMENT}",
        ),
        (
            "def wrap(self, classifier, images):\n    return classifier",
            "class Mine defines wrap(self, classifier, images); expected wrap(self, classifier)",
        ),
        (
            "def augmnt(self, images, labels, context):\n    return images, labels",
            "augmnt, which robust-tin does not use; did you mean augment?",
        ),
        ("def afterEpoch(self, classifier, context):\n    return False", "did you mean after_epoch?"),
        (
            "def losses(self):\n    return 0",
            "did you mean loss? (start the name of a helper with an underscore)",
        ),
        ("single_steps = True", "did you mean single_step?"),
        ("single_step = 1", "class Mine sets single_step = 1; expected True or False"),
        (
            "def wraps(self, classifier):\n    return classifier",
            "class Mine defines wraps as a method; expected a prop",
        ),
        ("def threat(self):\n    return None", "class Mine defines threat as a method; expected a property"),
        ("loss: str = 'dlr'", "setting loss hides the method Defense.loss; choose another name for it"),
        (
            "def loss(self, classifier, images, labels, context):\n    return 0\n"
            "def objective(self, classifier, images, labels, context):\n    return lambda: 0",
            "class Mine defines loss, but training uses Mine.objective instead; expected one of them",
        ),
    ],
)
def test_a_hook_that_training_could_not_call(
    write_plugin: Callable[..., Path], body: str, problem: str
) -> None:
    assert problem in refused(write_plugin, defense(body))


def test_what_adversarial_training_needs(write_plugin: Callable[..., Path]) -> None:
    base = "defenses.AdversarialTraining"
    perturb = "perturb(self, classifier, images, labels, context)"
    assert refused(write_plugin, defense("alpha: float = 0.1", base)) == (
        f"class Mine does not define {perturb}; expected that method"
    )
    loss = "loss(self, classifier, images, labels, context)"
    both = f"def {perturb}:\n    return images\ndef {loss}:\n    return 0"
    path = write_plugin(HEAD + defense(both, base), "both.py")
    with pytest.raises(
        InvalidSettingError,
        match=r"uses AdversarialTraining\.objective instead",
    ):
        load_plugin(path)


@pytest.mark.parametrize(
    "text",
    [
        moving("steps: int = 3\nalpha: float | None = None\nfast: bool = True\nfill: str = 'none'"),
        moving(
            "kind_of_step: Literal['short', 'long'] = 'short'\nsource: Path | None = None\nalpha: float = 1"
        ),
        moving("criterion: str | None = 'top1'\nlengths = ('alpha',)\nalpha: float = 0.1\nnorms = ('linf',)"),
        moving(
            "name: ClassVar[str] = 'mine'\ndef helper(self):\n    return 0\ndef _augmnt(self):\n    return 0"
        ),
        attack("def run(self, attacked, labels, ball, _generator, rounds=3):\n    return ball.images"),
        attack("@staticmethod\ndef run(attacked, labels, ball, generator):\n    return ball.images"),
        attack("def run(self, attacked, labels, *others):\n    return others[0].images"),
        attack(
            "def begin(self, inputs):\n    pass\ndef run(self, attacked, labels, ball, generator):\n    pass",
            "attacks.IterativeAttack",
        ),
        moving("MODE = 'fast'\ndef runs(self):\n    return 0"),
        defense("def augment(self, *arguments, **named):\n    return arguments[:2]"),
        defense("replays: int = 4\nsingle_step: ClassVar[bool] = True"),
        defense("@property\ndef threat(self):\n    return None"),
        defense("def loss(self, classifier, images, labels, context): ...\ndef losses(self): ..."),
    ],
)
def test_what_can_be_used_is_accepted(write_plugin: Callable[..., Path], text: str) -> None:
    load_plugin(write_plugin(HEAD + text))
    parse = parse_attack if "attacks.register" in text else parse_defense
    assert parse("mine").spec == "mine"


def test_a_child_may_replace_the_loss_of_its_parent(write_plugin: Callable[..., Path]) -> None:
    loss = "def loss(self, classifier, images, labels, context):\n    return 0"
    objective = "def objective(self, classifier, images, labels, context):\n    return lambda: 0"
    parent = defense(loss).replace("Mine", "Parent").replace("mine", "parent")
    load_plugin(write_plugin(HEAD + parent + defense(objective, "Parent")))
    assert parse_defense("mine").defines_loss


@pytest.mark.parametrize(
    ("registry", "problem_of"),
    [(attacks.registry, problem_of_attack), (defenses.registry, problem_of_defense)],
    ids=["attacks", "defenses"],
)
def test_the_built_in_ones_could_register_as_plug_ins(
    registry: Registry, problem_of: Callable[[object], str | None]
) -> None:
    assert {name: problem_of(registry.get(name)) for name in registry.names()} == dict.fromkeys(
        registry.names()
    )


def test_another_packages_entry_is_refused_when_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = attack("def run(self, model):\n    return model").replace('@attacks.register("mine")\n', "")
    (tmp_path / "attack_of_a_package.py").write_text(HEAD + text)
    monkeypatch.syspath_prepend(tmp_path)
    point = metadata.EntryPoint("theirs", "attack_of_a_package:Mine", "tests.attacks")
    monkeypatch.setattr(metadata, "entry_points", lambda group: [point])
    registry: Registry = Registry(
        "attack", group="tests.attacks", checked_by="robustbench_tin.attacks.plugin_check:problem_of"
    )
    with pytest.raises(InvalidSettingError) as caught:
        registry.get("theirs")
    assert str(caught.value) == (
        "attack 'theirs' of entry point attack_of_a_package:Mine cannot be used: class Mine defines"
        f" run(self, model); expected {RUN}"
    )
