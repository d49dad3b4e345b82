"""Every registered attack at a budget that a test can spend."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from robustbench_tin.attacks import parse_attack, registry

# Replacements for attacks whose own budget is too large for a test.
LIGHT = {
    "apgd-ce": "apgd-ce:steps=5",
    "apgd-dlr": "apgd-dlr:steps=5",
    "apgd-t": "apgd-t:steps=5,targets=2",
    "autoattack": "autoattack:queries=10,steps=3,targets=2",
    "fab": "fab:steps=3",
    "fab-t": "fab-t:steps=5,targets=2",
    "fast": "fast:most_stages=4",
    "square": "square:queries=20",
}
SPECS = [LIGHT.get(name, name) for name in registry.names()]
SPENT = [spec for spec in SPECS if parse_attack(spec).criterion is None]
"""Those that spend their whole budget on every image."""
UNTIL_BROKEN = [spec for spec in SPECS if spec not in SPENT]

# One attack of each other library, random if possible.
BRIDGES = {
    "art": "art:FastGradientMethod:num_random_init=1",
    "foolbox": "foolbox:L2DeepFoolAttack:steps=3",
    "torchattacks": "torchattacks:APGD:steps=3",
}
BRIDGED = [
    pytest.param(
        spec, marks=pytest.mark.skipif(find_spec(library) is None, reason=f"{library} is not installed")
    )
    for library, spec in BRIDGES.items()
]

EVERY_ATTACK = pytest.mark.parametrize("name", [*SPECS, *BRIDGED])
