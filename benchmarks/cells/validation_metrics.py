"""Validation after an epoch of training, on a few images: clean, under FGSM, under PGD-5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustbench_tin.attacks.engine.attacked_model import AttackedModel, AttackFailure
from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.attacks.engine.perturb import perturb_images
from robustbench_tin.attacks.fgsm import FGSM
from robustbench_tin.attacks.pgd import PGD
from robustbench_tin.benchmarks.measurement.protocol import evaluation_batch_size
from robustbench_tin.data.base import Split
from robustbench_tin.devices import images_device
from robustbench_tin.metrics import in_top
from robustbench_tin.runtime import as_tensor
from robustbench_tin.threat import ThreatModel
from robustbench_tin.training.monitor import Robustness
from robustbench_tin.training.objective import classification_loss

ATTACKS = (FGSM(), PGD(steps=5))


@dataclass(frozen=True)
class RobustnessMetrics:
    """Accuracies under FGSM and PGD-5; handed to the training loop, which cannot import attacks.

    Attributes:
        threat: norm and budget of both attacks.
        seed: seed of PGD's random start, the same after every epoch.
    """

    threat: ThreatModel
    seed: int

    def __call__(self, classifier: nn.Module, images: Tensor, labels: Tensor) -> Robustness:
        """Measure the bare classifier, in eval mode and float32.

        Raises:
            AttackFailure: if its logits are not finite.
        """
        batches = ImageBatches(images, labels, evaluation_batch_size(images.device.type), images.device)
        fgsm, pgd = self._right(classifier, batches)
        return Robustness(fgsm / len(batches), pgd / len(batches))

    def _right(self, classifier: nn.Module, batches: ImageBatches) -> Sequence[int]:
        """Number of images that are classified correctly under each of the attacks."""
        right = [0, 0]
        with AttackedModel(classifier, seed=self.seed) as attacked:
            for start in batches.starts():
                images, labels = batches.at(start)
                for index, attack in enumerate(ATTACKS):
                    (moved,) = perturb_images(
                        attack,
                        attacked,
                        images,
                        labels,
                        [self.threat.eps],
                        norm=self.threat.norm,
                        seed=self.seed + start,
                    )
                    right[index] += int(in_top(attacked.logits(moved), labels, 1).sum())
        return right


class ValidationMetrics:
    """The validation columns of the training curves, measured on the bare classifier like the monitor's.

    Args:
        split: the validation images.
        device: the classifier's device.
        probe: measures robustness, too; None: clean only.
    """

    def __init__(self, split: Split, device: str, probe: RobustnessMetrics | None) -> None:
        place = images_device(device)
        images, labels = as_tensor(split.images).to(place), as_tensor(split.labels).to(place)
        self._batches = ImageBatches(images, labels, evaluation_batch_size(images.device.type), images.device)
        self._probe = probe

    def __call__(self, classifier: nn.Module) -> dict[str, float]:
        """The ``val_`` columns of the curves; empty if the classifier gives no valid logits."""
        try:
            seen = self._clean(classifier)
            if self._probe is not None:
                robustness = self._probe(classifier, self._batches.images, self._batches.labels)
                seen |= {"val_fgsm": robustness.fgsm, "val_pgd5": robustness.pgd}
        except AttackFailure:
            return {}
        return seen

    def _clean(self, classifier: nn.Module) -> dict[str, float]:
        with AttackedModel(classifier) as attacked, torch.no_grad():
            logits = torch.cat(
                [attacked.logits(self._batches.at(start)[0]) for start in self._batches.starts()]
            )
            labels = self._batches.labels
            return {
                "val_loss": float(classification_loss(classifier, logits, labels)),
                "val_top1": float(in_top(logits, labels, 1).float().mean()),
                "val_top5": float(in_top(logits, labels, 5).float().mean()),
            }
