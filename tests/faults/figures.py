"""The figures of a fault: accuracy as the flagged attack finds it, the verdict on it, and the true one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from faults.base import Fault
from faults.host import Host
from robustbench_tin import evaluate, perturb


@dataclass(frozen=True)
class Figures:
    """The figures of one fault on one set of images; accuracies from 0 to 1.

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
        """Whether the trust checks call the attacked figure unreliable."""
        return self.verdict not in (None, "ok")


def measure(
    fault: Fault, model: nn.Module, images: Tensor, labels: Tensor, *, trust: bool, scale: float = 1.0
) -> Figures:
    """Measure a planted model under the attacks of its fault; without checks, under the flagged one only.

    Args:
        fault: that was planted.
        model: the planted one.
        images: float32 ``(N, 3, H, W)``.
        labels: of them.
        trust: check the figures.
        scale: of the budgets.

    Raises:
        AssertionError: if the flagged attack was not measured.
    """
    eps = [value * scale for value in fault.eps]
    attacks, budgets = (fault.attacks, eps) if trust else (fault.flagged, eps[-1:])
    frame = evaluate(model, images, labels, attacks, budgets, eot=fault.eot, trust=trust).records
    (row,) = frame.index[(frame["attack"] == fault.flagged) & (frame["eps"] == eps[-1])]
    status = frame["status"][row]
    assert status == "ok", f"{fault}: {status}"
    top1, verdicts = frame["top1"], frame["trust"].astype(object).where(frame["trust"].notna(), None)
    return Figures(float(top1[0]), float(top1[row]), verdicts[row], verdicts[0])


def true_accuracy(
    fault: Fault, model: nn.Module, host: Host, images: Tensor, labels: Tensor, *, scale: float = 1.0
) -> float | None:
    """Accuracy under an adaptive attack, on images that are made with the fault's truth.

    Args:
        fault: that was planted.
        model: the planted one, which classifies these images.
        host: it was planted in.
        images: float32 ``(N, 3, H, W)``.
        labels: of them.
        scale: of the budget.

    Returns:
        From 0 to 1; None for a fault without a truth.
    """
    truth = fault.truth(host)
    if truth is None:
        return None
    adversarial = perturb(truth, images, labels, fault.adaptive, fault.eps[-1] * scale)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        logits = torch.cat([model.eval()(batch) for batch in adversarial.split(128)])
    return float((logits.argmax(dim=1) == labels).float().mean())
