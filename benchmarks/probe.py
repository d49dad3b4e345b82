"""The look at robustness that training takes after an epoch: FGSM and PGD-5 on a few images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from robustbench_tin.attacks import parse_attack
from robustbench_tin.attacks.oracle import Oracle
from robustbench_tin.attacks.pool import Pool
from robustbench_tin.benchmarks.measure import evaluation_batch_size
from robustbench_tin.metrics import in_top
from robustbench_tin.threat import ThreatModel
from robustbench_tin.training.monitor import Robustness

ATTACKS = ("fgsm", "pgd:steps=5")


@dataclass(frozen=True)
class AttackProbe:
    """Accuracies under FGSM and PGD-5; what training is handed, since it knows no attacks.

    Attributes:
        threat: norm and budget of both.
        seed: of PGD's random start, the same after every epoch.
    """

    threat: ThreatModel
    seed: int

    def __call__(self, classifier: nn.Module, images: Tensor, labels: Tensor) -> Robustness:
        """Measure the bare classifier, in eval mode and float32.

        Raises:
            AttackFailure: where it gives no finite logits.
        """
        pool = Pool(images, labels, evaluation_batch_size(images.device.type), images.device)
        fgsm, pgd = self._right(classifier, pool)
        return Robustness(fgsm / len(pool), pgd / len(pool))

    def _right(self, classifier: nn.Module, pool: Pool) -> Sequence[int]:
        """Images that stay right under each of the attacks."""
        right = [0, 0]
        attacks = [parse_attack(text) for text in ATTACKS]
        with Oracle(classifier, seed=self.seed) as oracle:
            for start in pool.starts():
                images, labels = pool.at(start)
                for index, attack in enumerate(attacks):
                    (moved,) = attack.perturb(
                        oracle,
                        images,
                        labels,
                        [self.threat.eps],
                        norm=self.threat.norm,
                        seed=self.seed + start,
                    )
                    right[index] += int(in_top(oracle.logits(moved), labels, 1).sum())
        return right
