"""The reference pages of attacks and defenses, made from the registries and the docstrings.

``make pages`` writes them. The sentences that say when to use each one are here; all else comes from the code.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

from prose import cell

from robustbench_tin import attacks, defenses
from robustbench_tin.citations import paper_of

_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
_ITEM = re.compile(r"    (\w+): (.*)")

WHEN_TO_ATTACK = {
    "noise": "Always beside another attack: an attack that does no more harm than noise does not work.",
    "fgsm": "For a first look, and to compare with older papers. One gradient serves every eps.",
    "pgd": "As the standard attack with a fixed budget. Give more steps and restarts if accuracy still falls.",
    "mi-fgsm": "To make images for other models: its images transfer well. `robust-tin transfer` uses it.",
    "apgd-ce": "Instead of PGD if you do not want to tune a step size.",
    "apgd-dlr": "If the logits are large or scaled, so that the gradient of the cross-entropy vanishes.",
    "apgd-t": "For a number close to AutoAttack's in a fraction of its time. With fewer than four classes it uses cross-entropy.",
    "fab": "If you want small perturbations, with few classes: one gradient for each class and step.",
    "fab-t": "Instead of `fab` with many classes.",
    "square": "If the model gives no gradients, or if you do not trust them.",
    "autoattack": "For the number that you publish. It is the field's reference, and the slowest.",
    "fast": "While you develop, and in CI: it comes near to AutoAttack for a small part of its passes.",
}
WHEN_TO_DEFEND = {
    "none": "As the baseline of every comparison.",
    "augment": "Against overfitting on few images. It gives no robustness by itself.",
    "randaugment": "Instead of `augment` if you have many images and epochs.",
    "mixup": "To regularise long trainings.",
    "cutmix": "To regularise long trainings of convolutional networks.",
    "random-erasing": "To regularise, and against occlusion.",
    "bbox-crop": "If the data set has boxes and the object is small. It doubles the training set.",
    "fgsm-static": "To repeat the report. Its images do not follow the network, so they teach little robustness.",
    "fgsm-at": "As the cheapest adversarial training. robust-tin watches it for catastrophic overfitting.",
    "n-fgsm": "Instead of `fgsm-at` at a large eps: the wide noise helps against catastrophic overfitting.",
    "free-at": "If an epoch of adversarial training must cost no more than a plain one.",
    "pgd-at": "As the standard adversarial training, if you can pay eight passes an epoch.",
    "trades": "To choose the balance of clean and robust accuracy, by `beta`.",
    "mart": "If misclassified images are the weak point of `pgd-at`.",
    "awp": "On top of another adversarial training, against robust overfitting in long trainings.",
    "jpeg": "To measure a known defense. Attacks go through it with a substituted gradient.",
    "bit-depth": "To measure a known defense. Attacks go through it with a substituted gradient.",
    "blur": "To measure a known defense.",
    "random-resize": "To measure a known defense. It is random: attack it with `--eot 10` or more.",
    "smoothing": "If you need a guarantee: it gives a certified accuracy under l2.",
}
_ATTACKS = """# Attacks

`make pages` makes this page from the code. `robust-tin list attacks` prints the same list.

All attacks work in linf and l2, on any device, and with any model that maps pixels in [0, 1] to logits. Settings
follow a colon: `--attacks pgd:steps=20,restarts=2`. [How the engine works](../explanation/engine.md) explains budgets,
verification and the settings `criterion` and `eot`.
"""
_BRIDGES = """
## Attacks of other libraries

| name | library | install |
|---|---|---|
| `art:CLASS` | the Adversarial Robustness Toolbox: `art:DeepFool`, `art:SquareAttack:max_iter=500` | always there |
| `foolbox:CLASS` | foolbox: `foolbox:DDNAttack` | `pip install 'robustbench-tin[bridges]'` |
| `torchattacks:CLASS` | torchattacks | `pip install --no-deps torchattacks` |

`--no-deps` is needed because torchattacks pins a `requests` that is older than ours; none of its attacks uses that
package. [How they are run](../explanation/engine.md#attacks-of-other-libraries) says which settings robust-tin sets.
"""
_DEFENSES = """# Defenses

`make pages` makes this page from the code. `robust-tin list defenses` prints the same list.

Settings follow a colon, and `+` combines from left to right: `--defenses none,augment+pgd-at:eps=4/255`. At most one
defense of a combination may define the training loss. [How cells are trained](../explanation/training.md) explains
costs, modes and the training loop.
"""


def attacks_page() -> str:
    """The page of attacks."""
    return _page(_ATTACKS, attacks.registry.entries(), WHEN_TO_ATTACK) + _BRIDGES


def defenses_page() -> str:
    """The page of defenses."""
    return _page(_DEFENSES, defenses.registry.entries(), WHEN_TO_DEFEND)


def _page(head: str, entries: Any, when: dict[str, str]) -> str:
    built_in = [(entry.name, entry.load()) for entry in entries if entry.origin == "built-in"]
    rows = [f"| [`{name}`](#{name}) | {_summary(value)} |" for name, value in built_in]
    overview = "\n".join(["", "| name | purpose |", "|---|---|", *rows, ""])
    return head + overview + "".join(_section(name, value, when[name]) for name, value in built_in)


def _section(name: str, value: Any, when: str) -> str:
    paper = paper_of(value)
    lines = ["", f"## {name}", "", _summary(value), "", f"**Use it:** {when}"]
    if paper:
        lines += ["", "**Paper:** " + _ARXIV.sub(r"[arXiv:\1](https://arxiv.org/abs/\1)", paper)]
    fields = dataclasses.fields(value)
    if fields:
        told = _attributes(value)
        lines += ["", "| setting | default | meaning |", "|---|---|---|"]
        lines += [
            f"| `{each.name}` | `{_shown(value, each)}` | {told.get(each.name, '')} |" for each in fields
        ]
    return "\n".join([*lines, ""])


def _shown(value: Any, field: dataclasses.Field[Any]) -> str:
    """A default as it is written in a spec."""
    settings = dict(item.split("=", 1) for item in value.describe_settings().split(", ") if "=" in item)
    return settings.get(field.name, str(field.default)).lower()


def _summary(value: Any) -> str:
    return cell((inspect.getdoc(value) or "").splitlines()[0])


def _attributes(value: Any) -> dict[str, str]:
    """The meaning of each setting: the section ``Attributes`` of the class and of its bases."""
    told: dict[str, str] = {}
    for base in reversed(value.__mro__):
        _, _, section = inspect.cleandoc(base.__dict__.get("__doc__") or "").partition("Attributes:\n")
        name = ""
        for line in section.splitlines():
            item = _ITEM.fullmatch(line)
            if item:
                name = item[1]
                told[name] = item[2]
            elif line.startswith("     ") and name:
                told[name] += f" {line.strip()}"
            else:
                break
    return {name: cell(text) for name, text in told.items()}
