"""The figures of a fault: accuracy as the flagged attack finds it, the verdict on it, and the true one."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from faults.base import Fault
from faults.host import Host
from robustbench_tin import evaluate, perturb


@dataclass(frozen=True)
class Figures:
    """Of one fault, on one set of images; accuracies from 0 to 1.

    Attributes:
        clean: on the images themselves.
        attacked: under the flagged attack, at the largest budget.
        verdict: of the trust checks on that figure: ``ok`` or reasons; None without checks.
        clean_verdict: the reasons against the clean figure; None if there are none, or without checks.
    """

    clean: float
    attacked: float
    verdict: str | None
    clean_verdict: str | None

    @property
    def flagged(self) -> bool:
        """Whether the attacked figure must not be believed."""
        return self.verdict not in (None, "ok")


def measure(fault: Fault, model: nn.Module, images: Tensor, labels: Tensor, *, trust: bool) -> Figures:
    """Measure a planted model under the attacks of its fault.

    Raises:
        AssertionError: if a measure failed.
    """
    frame = evaluate(model, images, labels, fault.attacks, fault.eps, eot=fault.eot, trust=trust)
    assert (frame["status"] == "ok").all(), frame["status"].tolist()
    (row,) = frame.index[(frame["attack"] == fault.flagged) & (frame["eps"] == fault.eps[-1])]
    top1, verdicts = frame["top1"], frame["trust"].astype(object).where(frame["trust"].notna(), None)
    return Figures(top1[0], top1[row], verdicts[row], verdicts[0])


def true_accuracy(fault: Fault, model: nn.Module, host: Host, images: Tensor, labels: Tensor) -> float | None:
    """What an adaptive attack leaves: accuracy on images that are made with the fault's truth.

    Args:
        fault: that was planted.
        model: the planted one, which classifies these images.
        host: it was planted in.
        images: float32 ``(N, 3, H, W)``.
        labels: of them.

    Returns:
        From 0 to 1; None for a fault without a truth.
    """
    truth = fault.truth(host)
    if truth is None:
        return None
    adversarial = perturb(truth, images, labels, fault.adaptive, fault.eps[-1])[0]
    return float(evaluate(model, adversarial, labels, eps=0)["top1"][0])
