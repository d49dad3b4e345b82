"""The base class of defenses: optional hooks, each doing nothing until overridden."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from robustbench_tin.data.base import Split
from robustbench_tin.specs import Configurable
from robustbench_tin.training.context import Context
from robustbench_tin.training.objective import classification_loss


@dataclass(frozen=True)
class NoiseVote:
    """A majority vote of a classifier under Gaussian noise, from which robustness can be proved.

    Attributes:
        base: the classifier that votes; it is shown pixels with noise on them, also outside [0, 1].
        sigma: standard deviation of the noise, in units of the pixel range.
        n0: votes that choose the class.
        n: votes, others than those, that prove it.
        alpha: probability that a proof is wrong.
    """

    base: nn.Module
    sigma: float
    n0: int
    n: int
    alpha: float


@dataclass(frozen=True)
class Defense(Configurable):
    """A way of training and running a classifier; its fields are its settings.

    Override the hooks that you need. All randomness comes from ``context.generator``, so that a run
    can be repeated.
    """

    kind: ClassVar[str] = "defense"
    relative_cost: ClassVar[float] = 1.0
    """How many times longer than plain training an epoch takes; for time estimates only."""

    def check(self, train: Split) -> None:
        """Refuse a training set that this defense cannot work with; called before anything is trained.

        Raises:
            DataError: saying what is missing.
        """

    @property
    def sources(self) -> tuple[str, ...]:
        """Other trained models that :meth:`prepare` asks ``context.trained`` for.

        Each a backbone's name (its cell with the defense ``none`` and the same seed, which a run trains
        before), a run's cell or a weights file.
        """
        return ()

    def prepare(self, train: Split, context: Context) -> Split:
        """Change the training set, once, before the first epoch; the validation images stay as they are."""
        return train

    def augment(self, images: Tensor, labels: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Change a batch: float32 ``(N, 3, H, W)`` in [0, 1], labels int64 ``(N,)``, on the device.

        Labels may leave as probabilities, float32 ``(N, C)``, and come so from a part of a combination that
        mixes images.
        """
        return images, labels

    def loss(self, classifier: nn.Module, images: Tensor, labels: Tensor, context: Context) -> Tensor:
        """The scalar that training minimises: the mean cross-entropy, unless overridden.

        Labels are int64 ``(N,)`` or probabilities float32 ``(N, C)``, which cross-entropy takes as they are.
        A classifier with an output a class under a sigmoid is trained one class against the rest, see
        :func:`robustbench_tin.training.objective.classification_loss`.
        """
        return classification_loss(classifier, classifier(images), labels)

    def wrap(self, classifier: nn.Module) -> nn.Module:
        """What runs, and is attacked, at test time: still pixels in [0, 1] to logits."""
        return classifier

    def noise_vote(self, classifier: nn.Module) -> NoiseVote | None:
        """What :meth:`wrap` votes with, where its robustness can be certified; None: it cannot."""
        return None

    @property
    def certifies(self) -> bool:
        """Whether there is a :meth:`noise_vote`."""
        return type(self).noise_vote is not Defense.noise_vote

    @property
    def wraps(self) -> bool:
        """Whether something runs around the classifier at test time."""
        return type(self).wrap is not Defense.wrap

    @property
    def defines_loss(self) -> bool:
        """Whether this defense has a loss of its own; of a combination only one may."""
        return type(self).loss is not Defense.loss
