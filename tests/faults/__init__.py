"""Faults that make a model look robust, or an attack look weak, planted on purpose.

To add one, write a class below :class:`Fault` in a module of this folder: it is found and checked by itself.
"""

import importlib
import pkgutil

from faults.base import FAULTS, AttackFault, Fault
from faults.host import Host, toy_host

# Each module registers its faults as it is imported; tests and the table are no such modules.
for _module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
    if not _module.startswith("test_") and _module != "table":
        importlib.import_module(f"{__name__}.{_module}")

__all__ = ["FAULTS", "AttackFault", "Fault", "Host", "toy_host"]
