"""The base class of defenses: optional hooks, each doing nothing until overridden."""

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
    single_step: ClassVar[bool] = False
    """Whether it trains on images made in one step against its :attr:`threat`.

    Training then watches for catastrophic overfitting, and the trust checks hold FGSM to a stricter bound.
    """
    mixes_labels: ClassVar[bool] = False
    """Whether labels may leave its :meth:`augment` as probabilities."""
    one_label: ClassVar[bool] = False
    """Whether its loss needs one class for each image, and cannot do with probabilities."""
    softmax_only: ClassVar[bool] = False
    """Whether its loss cannot do with a classifier that has a sigmoid for each class."""

    @property
    def replays(self) -> int:
        """How often each batch is trained on before the next; so many epochs are then one over the data."""
        return 1

    @property
    def threat(self) -> ThreatModel | None:
        """What it trains against; None: nothing in particular."""
        return None

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
        """The scalar that training minimises: the classification loss, unless overridden.

        Labels are int64 ``(N,)`` or probabilities float32 ``(N, C)``; a loss of one's own that is a
        classification loss of some images is best
        :func:`robustbench_tin.defenses.classification_loss`, which takes both.
        """
        return classification_loss(classifier, classifier(images), labels, context.label_smoothing)

    def objective(self, classifier: nn.Module, images: Tensor, labels: Tensor, context: Context) -> Objective:
        """:meth:`loss` as a function that may be asked again at other weights.

        A defense that makes adversarial images overrides this instead: it makes them here, once, so that
        asking again costs no more than the passes of the loss.
        """
        return lambda: self.loss(classifier, images, labels, context)

    def around_step(self, classifier: nn.Module, gradients: Gradients, context: Context) -> Tensor:
        """Get the gradients of one optimiser step, and return the value that comes with them.

        Whoever moves the weights puts them back, bit for bit, before returning.

        Args:
            classifier: what is trained.
            gradients: leaves the gradients at the weights as they are when it is called; may be called more
                than once, the last call counts.
            context: where training stands.
        """
        return gradients()

    def after_epoch(self, classifier: nn.Module, context: Context) -> bool:
        """Look at where training stands at the end of an epoch; True ends it."""
        return False

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
        return type(self).loss is not Defense.loss or type(self).objective is not Defense.objective
