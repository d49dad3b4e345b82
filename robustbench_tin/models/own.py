"""The former name of ``robustbench_tin.models.user_model``, kept for one version."""

from __future__ import annotations

import warnings

from robustbench_tin.models.user_model import UserModel as OwnModel
from robustbench_tin.models.user_model import load_user_model as load_own_model

__all__ = ["OwnModel", "load_own_model"]

warnings.warn(
    "robustbench_tin.models.own is now robustbench_tin.models.user_model", DeprecationWarning, stacklevel=2
)
