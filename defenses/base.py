"""The base class of defenses: optional hooks; each does nothing until it is overridden."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from robustbench_tin.data.base import Split
from robustbench_tin.specs import Configurable
from robustbench_tin.threat import ThreatModel
from robustbench_tin.training.context import Context, Gradients, Objective
from robustbench_tin.training.objective import classification_loss


@dataclass(frozen=True)
class NoiseVote:
    """A majority vote of a classifier under Gaussian noise, which allows a robustness certificate.

    Attributes:
        base: the classifier that votes; its input is pixels with noise, also outside [0, 1].
        sigma: standard deviation of the noise, in units of the pixel range.
        n0: number of votes that choose the class.
        n: number of further votes that certify it.
        alpha: probability that a certificate is wrong.
    """

    base: nn.Module
    sigma: float
    n0: int
    n: int
    alpha: float


@dataclass(frozen=True)
class Defense(Configurable):
    """A way of training and running a classifier; its fields are its settings.

    Override the hooks that you need. Use only ``context.generator`` for randomness, so that a run can be
    repeated.

    >>> from robustbench_tin import defenses
    >>> defenses.parse_defense("fgsm-at").threat
    ThreatModel(norm='linf', eps=0.03137254901960784)
    """

    kind: ClassVar[str] = "defense"
    relative_cost: ClassVar[float] = 1.0
    """Time of an epoch relative to plain training; used only for time estimates."""
    single_step: ClassVar[bool] = False
    """True if it trains on images made in one step against its :attr:`threat`.

    Training then watches for catastrophic overfitting, and the trust checks use a stricter bound for FGSM.
    """
    mixes_labels: ClassVar[bool] = False
    """True if its :meth:`augment` may return labels as probabilities."""
    one_label: ClassVar[bool] = False
    """True if its loss needs one class for each image and does not accept probabilities."""
    softmax_only: ClassVar[bool] = False
    """True if its loss does not accept a classifier with a sigmoid for each class."""

    @property
    def replays(self) -> int:
        """Number of times that each batch is trained on; it divides the number of passes over the data."""
        return 1

    @property
    def threat(self) -> ThreatModel | None:
        """The threat model that it trains against; None for no particular one."""
        return None

    def check(self, train: Split) -> None:
        """Refuse a training set that this defense cannot use; called before any training.

        Raises:
            DataError: names the missing part.
        """

    @property
    def sources(self) -> tuple[str, ...]:
        """Other trained models that :meth:`prepare` gets from ``context.trained``.

        Each is a backbone's name (its cell with the defense ``none`` and the same seed, which a run trains
        first), a run's cell or a weights file.
        """
        return ()

    def prepare(self, train: Split, context: Context) -> Split:
        """Change the training set, once, before the first epoch; the validation images do not change."""
        return train

    def augment(self, images: Tensor, labels: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Change a batch: float32 ``(N, 3, H, W)`` in [0, 1], labels int64 ``(N,)``, on the device.

        It may return labels as probabilities, float32 ``(N, C)``. In a combination with a defense that mixes
        images, it also receives such labels.
        """
        return images, labels

    def loss(self, classifier: nn.Module, images: Tensor, labels: Tensor, context: Context) -> Tensor:
        """The training loss, a scalar: the classification loss, unless overridden.

        Labels are int64 ``(N,)`` or probabilities float32 ``(N, C)``. If your loss is a classification loss
        on changed images, use :func:`robustbench_tin.defenses.classification_loss`, which accepts both.
        """
        return classification_loss(classifier, classifier(images), labels, context.label_smoothing)

    def objective(self, classifier: nn.Module, images: Tensor, labels: Tensor, context: Context) -> Objective:
        """:meth:`loss` as a function that can be evaluated again at other weights.

        A defense that makes adversarial images overrides this method instead: it makes them here, once, so
        that another evaluation costs only the passes of the loss.
        """
        return lambda: self.loss(classifier, images, labels, context)

    def around_step(self, classifier: nn.Module, gradients: Gradients, context: Context) -> Tensor:
        """Compute the gradients of one optimiser step; returns the loss that belongs to them.

        An override that moves the weights must restore them, bit for bit, before it returns.

        Args:
            classifier: the classifier in training.
            gradients: computes the gradients at the current weights into ``.grad``; may be called more than
                once, and the last call counts.
            context: the state of training.
        """
        return gradients()

    def after_epoch(self, classifier: nn.Module, context: Context) -> bool:
        """Inspect training at the end of an epoch; True ends it."""
        return False

    def wrap(self, classifier: nn.Module) -> nn.Module:
        """The model that runs, and is attacked, at test time; it maps pixels in [0, 1] to logits."""
        return classifier

    def noise_vote(self, classifier: nn.Module) -> NoiseVote | None:
        """The vote in :meth:`wrap`, if its robustness can be certified; otherwise None."""
        return None

    @property
    def certifies(self) -> bool:
        """True if there is a :meth:`noise_vote`."""
        return type(self).noise_vote is not Defense.noise_vote

    @property
    def wraps(self) -> bool:
        """True if :meth:`wrap` adds to the classifier at test time."""
        return type(self).wrap is not Defense.wrap

    @property
    def defines_loss(self) -> bool:
        """True if this defense has its own loss; only one part of a combination may."""
        return type(self).loss is not Defense.loss or type(self).objective is not Defense.objective
