"""Ensembles: several attacks one after the other, each on the images that survived those before."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_tin.attacks.base import Attack
from robustbench_tin.attacks.criterion import CRITERIA
from robustbench_tin.attacks.engine.attacked_model import AttackedModel
from robustbench_tin.threat import Ball


@dataclass(frozen=True, kw_only=True)
class Ensemble(Attack):
    """An attack that consists of its stages; it always stops on success, so its criterion is never None."""

    criterion: str | None = "top1"

    def __post_init__(self) -> None:
        self.require(self.criterion in CRITERIA, "criterion", " or ".join(CRITERIA))

    @abstractmethod
    def stages(self, classes: int) -> Sequence[Attack]:
        """The attacks, in order, each on the images that survived those before."""

    def run(self, attacked: AttackedModel, labels: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        raise NotImplementedError("an ensemble has no run(); the runner runs it stage by stage")
