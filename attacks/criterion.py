"""The criterion of success: the true label is not in the model's top k."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.metrics import in_top

CRITERIA = {"top1": 1, "top5": 5}


@dataclass(frozen=True)
class Criterion:
    """An image is adversarial if its true label is not among the ``k`` largest logits; a tie is a success.

    Attributes:
        k: 1 or more, below the number of classes.

    >>> Criterion(1).success(torch.tensor([[2.0, 1.0], [1.0, 2.0]]), torch.tensor([0, 0]))
    tensor([False,  True])
    """

    k: int

    @classmethod
    def named(cls, name: str) -> Criterion:
        """``top1`` or ``top5``.

        Raises:
            InvalidSettingError: for any other name.
        """
        if name not in CRITERIA:
            raise InvalidSettingError(f"criterion got '{name}'; expected {' or '.join(CRITERIA)}")
        return cls(CRITERIA[name])

    def __str__(self) -> str:
        return f"top-{self.k}"

    def check(self, classes: int) -> None:
        """Refuse a criterion that no image could ever fail.

        Raises:
            InvalidSettingError: if there are ``k`` classes or fewer.
        """
        if classes <= self.k:
            raise InvalidSettingError(
                f"criterion got top{self.k} with {classes} classes, so no attack can succeed;"
                f" expected more than {self.k} classes"
            )

    def success(self, logits: Tensor, labels: Tensor) -> Tensor:
        """True for each adversarial image, bool ``(N,)``, from logits ``(N, C)`` and labels ``(N,)``."""
        return ~in_top(logits, labels, self.k)

    def margin(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The k-th largest logit of the other classes minus the label's, ``(N,)``: 0 or more is a success."""
        others = logits.scatter(1, labels.view(-1, 1), -torch.inf)
        rival = others.amax(dim=1) if self.k == 1 else others.topk(self.k, dim=1).values[:, -1]
        return rival - logits.gather(1, labels.view(-1, 1)).squeeze(1)

    def targets(self, clean_logits: Tensor, labels: Tensor, rank: int) -> Tensor:
        """The classes that the ``rank``-th targeted search raises above the label, int64 ``(N, k)``.

        These are the class of clean rank ``rank`` (1 is the strongest wrong class) and the ``k - 1`` after
        it. If all of them are above the label, the image is adversarial.
        """
        others = clean_logits.scatter(1, labels.view(-1, 1), -torch.inf)
        return others.topk(rank + self.k - 1, dim=1).indices[:, rank - 1 :]

    def ranks(self, classes: int, at_most: int) -> range:
        """The valid ranks for :meth:`targets`, the strongest first."""
        return range(1, min(at_most, classes - self.k) + 1)
