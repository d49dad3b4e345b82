"""The contract of defenses finds each kind of wrong defense, and says which rule it breaks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.nn import functional

from robustbench_tin import defenses
from robustbench_tin.errors import DataError
from robustbench_tin.testing import DefenseContract, check_defense


@dataclass(frozen=True)
class Sound(defenses.Defense):
    """Gaussian noise on each batch."""

    sigma: float = 0.05

    def augment(self, images, labels, context):
        noise = torch.randn(images.shape, generator=context.generator)
        return (images + self.sigma * noise).clamp(0, 1), labels


@dataclass(frozen=True)
class OutOfTheBox(defenses.Defense):
    def augment(self, images, labels, context):
        return images + 0.1, labels


@dataclass(frozen=True)
class LabelsInFloat(defenses.Defense):
    def augment(self, images, labels, context):
        return images, labels.float()


@dataclass(frozen=True)
class MixesInSecret(defenses.Defense):
    def augment(self, images, labels, context):
        return images, defenses.soft_labels(labels, context.num_classes)


@dataclass(frozen=True)
class LossOfEachImage(defenses.Defense):
    def loss(self, classifier, images, labels, context):
        return functional.cross_entropy(classifier(images), labels, reduction="none")


@dataclass(frozen=True)
class LossWithoutGraph(defenses.Defense):
    def loss(self, classifier, images, labels, context):
        return 0 * super().loss(classifier, images, labels, context)


@dataclass(frozen=True)
class OneClassEach(defenses.Defense):
    def loss(self, classifier, images, labels, context):
        return -classifier(images).gather(1, labels.view(-1, 1)).mean()


@dataclass(frozen=True)
class LeavesEvalMode(defenses.Defense):
    def objective(self, classifier, images, labels, context):
        classifier.eval()
        return super().objective(classifier, images, labels, context)


@dataclass(frozen=True)
class Freezes(defenses.Defense):
    def objective(self, classifier, images, labels, context):
        next(classifier.parameters()).requires_grad_(False)
        return super().objective(classifier, images, labels, context)


@dataclass(frozen=True)
class MovesWeights(defenses.Defense):
    def around_step(self, classifier, gradients, context):
        with torch.no_grad():
            next(classifier.parameters()).add_(0.01)
        return gradients()


@dataclass(frozen=True)
class NoGradients(defenses.Defense):
    def around_step(self, classifier, gradients, context):
        return torch.zeros(())


@dataclass(frozen=True)
class OwnRandomness(defenses.Defense):
    def augment(self, images, labels, context):
        return (images + 0.1 * torch.randn(images.shape)).clamp(0, 1), labels


@dataclass(frozen=True)
class WritesIntoTheSet(defenses.Defense):
    def prepare(self, train, context):
        train.images[0] = 0
        return train


@dataclass(frozen=True)
class NeedsMore(defenses.Defense):
    def check(self, train):
        raise defenses.DataError("expected a larger set")


@dataclass(frozen=True)
class EndsWithNone(defenses.Defense):
    def after_epoch(self, classifier, context):
        pass


class _Closure(nn.Module):
    def __init__(self, classifier):
        super().__init__()
        self.call = lambda images: classifier(images)

    def forward(self, images):
        return self.call(images)


@dataclass(frozen=True)
class HidesTheClassifier(defenses.Defense):
    def wrap(self, classifier):
        return _Closure(classifier)


@dataclass(frozen=True)
class Cheap(defenses.Defense):
    relative_cost: ClassVar[float] = 0.5


@dataclass(frozen=True)
class PrintsAnotherSpec(Sound):
    @property
    def spec(self):
        return "augment:sigma=0.1"


@dataclass(frozen=True)
class Forgetful(defenses.Defense):
    """A loss that no weight is left in."""

    def loss(self, classifier, images, labels, context):
        return classifier(images).detach().sum()


@pytest.mark.parametrize(
    ("defense", "rule", "found"),
    [
        (PrintsAnotherSpec(), "have a spec that builds the same defense again", "which builds"),
        (Cheap(), "have facts of the right types", "relative_cost is 0.5; expected 1 or more"),
        (WritesIntoTheSet(), "prepare a training set", "it wrote into the images of the given set"),
        (NeedsMore(), "prepare a training set", "DataError: expected a larger set"),
        (OutOfTheBox(), "augment a batch to a batch", "its images leave [0, 1]"),
        (LabelsInFloat(), "augment a batch to a batch", "its labels are torch.float32; expected torch.int64"),
        (MixesInSecret(), "mark labels that leave augment as probabilities", "has mixes_labels = False"),
        (
            LossOfEachImage(),
            "have a loss that is one finite number",
            "has the shape (24,); expected a scalar",
        ),
        (LossWithoutGraph(), "have a loss that is one finite number", "is 0 everywhere"),
        (Forgetful(), "have a loss that is one finite number", "does not require grad"),
        (OneClassEach(), "accept labels as probabilities, or have one_label = True", "RuntimeError"),
        (LeavesEvalMode(), "leave the classifier in its mode", "it left a module in eval mode"),
        (Freezes(), "leave the classifier in its mode", "it left a weight with requires_grad = False"),
        (MovesWeights(), "restore the weights around a step", "left other weights than it found"),
        (NoGradients(), "restore the weights around a step", "around_step gives the weights no gradient"),
        (OwnRandomness(), "draw at random from context.generator only", "gave two results: other images"),
        (
            EndsWithNone(),
            "return True or False from after_epoch",
            "after_epoch returned None; expected True or False",
        ),
        (HidesTheClassifier(), "map images to logits at test time", "make the classifier a submodule"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, defenses.Defense) else "",
)
def test_a_wrong_defense_is_told_the_rule_that_it_breaks(
    defense: defenses.Defense, rule: str, found: str
) -> None:
    with pytest.raises(AssertionError) as caught:
        check_defense(defense)
    text = str(caught.value)
    assert text.startswith(f"defense '{type(defense).__name__}' must {rule}")
    assert found in text
    assert "\n" not in text


def test_a_sound_one_passes_as_an_object_and_by_its_spec() -> None:
    check_defense(Sound(sigma=0.1))

    @defenses.register("sound")
    @dataclass(frozen=True)
    class Registered(Sound):
        """As its parent."""

    check_defense("sound:sigma=0.1")
    check_defense("augment+sound+fgsm-at")


def test_the_exports_are_those_that_are_raised() -> None:
    assert defenses.DataError is DataError


class TestContractClass(DefenseContract):
    spec = Sound()
