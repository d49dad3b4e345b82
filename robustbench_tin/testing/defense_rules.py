"""The rules for every defense, in the training loop and under attack; one function per rule."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from robustbench_tin.defenses import parse_defense
from robustbench_tin.specs import parse_spec
from robustbench_tin.testing.defense_case import DefenseCase, context_of, flat_weights
from robustbench_tin.testing.rules import Rules, is_registered, require
from robustbench_tin.testing.toy import TOY_CLASSES, build_toy_model, draw_toy_images
from robustbench_tin.threat import ThreatModel

DEFENSE_RULES: Rules[DefenseCase] = Rules()
rule = DEFENSE_RULES.rule


@rule("have a spec that builds the same defense again")
def spec_builds_the_same_defense(case: DefenseCase) -> None:
    """The spec is label, cache key and test id."""
    defense = case.defense
    if is_registered(defense):
        built = parse_defense(defense.spec)
    else:
        spec = parse_spec(defense.spec if defense.name else f"unregistered{defense.spec}")
        built = type(defense).from_settings(spec.settings)
    require(built == defense, f"it prints as {defense.spec!r}, which builds {built!r:.120}")
    require(
        built.spec == defense.spec == str(defense),
        f"its spec is {defense.spec!r}; str() gives {str(defense)!r}, and the spec builds {built.spec!r}",
    )


@rule("have facts of the right types")
def facts_have_their_types(case: DefenseCase) -> None:
    """Cost, replays, threat model and sources, which plans and tables read."""
    defense = case.defense
    require(defense.relative_cost >= 1, f"relative_cost is {defense.relative_cost}; expected 1 or more")
    require(
        isinstance(defense.replays, int) and defense.replays >= 1,
        f"replays is {defense.replays!r}; expected an int of 1 or more",
    )
    require(
        defense.threat is None or isinstance(defense.threat, ThreatModel),
        f"threat is {defense.threat!r}; expected a ThreatModel or None",
    )
    require(
        isinstance(defense.sources, tuple) and all(isinstance(source, str) for source in defense.sources),
        f"sources is {defense.sources!r}; expected a tuple of str",
    )


@rule("prepare a training set from a training set, and leave the given one as it is")
def prepared_set_is_a_training_set(case: DefenseCase) -> None:
    """uint8 images in one contiguous array, int64 labels of existing classes."""
    split, images, labels = case.split, case.split.images.copy(), case.split.labels.copy()
    case.defense.check(split)
    prepared = case.defense.prepare(split, context_of(0))
    require(prepared.images.dtype == np.uint8, f"its images are {prepared.images.dtype}; expected uint8")
    require(
        prepared.images.shape[1:] == split.images.shape[1:],
        f"its images are {prepared.images.shape[1:]}; expected {split.images.shape[1:]}",
    )
    require(prepared.images.flags.c_contiguous, "its images are not contiguous; expected one array in order")
    require(prepared.labels.dtype == np.int64, f"its labels are {prepared.labels.dtype}; expected int64")
    require(
        prepared.labels.shape == (len(prepared.images),),
        f"there are {len(prepared.images)} images and labels {prepared.labels.shape}; expected one each",
    )
    require(set(prepared.labels) <= set(range(TOY_CLASSES)), "its labels hold a class that does not exist")
    require(np.array_equal(split.images, images), "it wrote into the images of the given set")
    require(np.array_equal(split.labels, labels), "it wrote into the labels of the given set")


@rule("augment a batch to a batch")
def augmented_batch_is_a_batch(case: DefenseCase) -> None:
    """Images of the same shape in [0, 1]; labels as classes, or as probabilities of each class."""
    images, labels = case.batch()
    moved, theirs = case.defense.augment(images.clone(), labels.clone(), context_of(0))
    require(
        moved.shape == images.shape, f"its images are {tuple(moved.shape)}; expected {tuple(images.shape)}"
    )
    require(moved.dtype == torch.float32, f"its images are {moved.dtype}; expected torch.float32")
    require(((moved >= 0) & (moved <= 1)).all(), "its images leave [0, 1]; expected values inside")
    _require_labels(theirs, labels)
    if not case.defense.one_label:
        soft = functional.one_hot(labels, TOY_CLASSES).float()
        _, theirs = case.defense.augment(images.clone(), soft, context_of(0))
        require(theirs.ndim == 2, "given labels as probabilities, it returned another form")
        _require_labels(theirs, labels)


def _require_labels(theirs: Tensor, given: Tensor) -> None:
    if theirs.ndim == 1:
        require(theirs.shape == given.shape, f"its labels are {tuple(theirs.shape)}; expected {len(given)}")
        require(theirs.dtype == torch.int64, f"its labels are {theirs.dtype}; expected torch.int64")
        return
    shape = (len(given), TOY_CLASSES)
    require(theirs.shape == shape, f"its labels are {tuple(theirs.shape)}; expected {shape}")
    require(theirs.dtype == torch.float32, f"its labels are {theirs.dtype}; expected torch.float32")
    sums = theirs.sum(dim=1)
    require(torch.allclose(sums, torch.ones(len(given))), "its labels' probabilities do not add up to 1")
    require((theirs >= 0).all(), "its labels hold a probability below 0")


@rule("mark labels that leave augment as probabilities with mixes_labels = True")
def mixed_labels_are_declared(case: DefenseCase) -> None:
    """A combination with a defense whose loss needs one class per image is then refused."""
    images, labels = case.batch()
    soft = any(
        case.defense.augment(images.clone(), labels.clone(), context_of(seed))[1].ndim == 2
        for seed in range(4)
    )
    require(case.defense.mixes_labels or not soft, "it has mixes_labels = False and returned probabilities")


@rule("have a loss that is one finite number with a gradient")
def loss_is_one_finite_number_with_a_gradient(case: DefenseCase) -> None:
    """The objective, which training minimises, and the loss, with labels as classes."""
    images, labels = case.batch()
    for hook in ("objective", "loss"):
        model = build_toy_model()
        value = getattr(case.defense, hook)(model, images.clone(), labels.clone(), context_of(0))
        loss = value() if hook == "objective" else value
        _require_loss(f"its {hook}", loss)
        loss.backward()
        _require_gradients(f"its {hook}", [weight.grad for weight in model.parameters()])


def _require_loss(what: str, loss: Tensor) -> None:
    require(loss.shape == (), f"{what} has the shape {tuple(loss.shape)}; expected a scalar")
    require(torch.isfinite(loss), f"{what} is {loss.item()}; expected a finite number")


def _require_gradients(what: str, gradients: list[Tensor | None]) -> None:
    taken = [gradient for gradient in gradients if gradient is not None]
    require(taken, f"{what} gives the weights no gradient")
    finite = all(bool(torch.isfinite(gradient).all()) for gradient in taken)
    require(finite, f"the gradient of {what} is not finite")
    require(any(bool(gradient.any()) for gradient in taken), f"the gradient of {what} is 0 everywhere")


@rule("accept labels as probabilities, or have one_label = True")
def loss_takes_probabilities(case: DefenseCase) -> None:
    """A combination with ``mixup`` gives it such labels."""
    if case.defense.one_label:
        return
    images, labels = case.batch()
    mixed = functional.one_hot(labels, TOY_CLASSES).float().lerp(torch.tensor(1 / TOY_CLASSES), 0.4)
    _require_loss("its objective", case.defense.objective(build_toy_model(), images, mixed, context_of(0))())


@rule("leave the classifier in its mode, and its weights trainable")
def classifier_keeps_its_mode(case: DefenseCase) -> None:
    """After the objective is made and evaluated, and after the gradients of a step."""
    images, labels = case.batch()
    model, context = build_toy_model().train(), context_of(0)
    case.defense.objective(model, images, labels, context)()
    require(all(module.training for module in model.modules()), "it left a module in eval mode")
    trainable = all(weight.requires_grad for weight in model.parameters())
    require(trainable, "it left a weight with requires_grad = False")


@rule("restore the weights around a step, and leave their gradients")
def weights_are_put_back_around_a_step(case: DefenseCase) -> None:
    """Bit for bit: only the optimiser moves the weights."""
    images, labels = case.batch()
    model, context = build_toy_model(), context_of(0)
    objective = case.defense.objective(model, images, labels, context)

    def gradients() -> Tensor:
        model.zero_grad()
        loss = objective()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    before = flat_weights(model)
    value = case.defense.around_step(model, gradients, context)
    require(torch.equal(flat_weights(model), before), "around_step left other weights than it found")
    _require_loss("the value that around_step returned", value)
    _require_gradients("around_step", [weight.grad for weight in model.parameters()])


@rule("draw at random from context.generator only")
def context_decides_all_randomness(case: DefenseCase) -> None:
    """Torch's own random state differs between the two runs, the context's does not."""
    images, labels = case.batch()
    results = []
    for other in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(other)
            moved, theirs = case.defense.augment(images.clone(), labels.clone(), context_of(3))
            loss = case.defense.objective(build_toy_model(), images.clone(), labels, context_of(3))()
        results.append((moved, theirs, loss.detach()))
    for name, one, two in zip(("images", "labels", "objective"), *results, strict=True):
        require(torch.equal(one, two), f"the same context gave two results: other {name}")


@rule("move the weights in training, and repeat itself for the same seed")
def training_repeats_itself(case: DefenseCase) -> None:
    """Another seed gives other weights."""
    start = flat_weights(build_toy_model())
    one, steps = case.weights_after_training(seed=1)
    require(steps >= 2, f"training took {steps} steps; expected 2 or more")
    require(torch.isfinite(one).all(), "training left a weight that is not finite")
    require(not torch.equal(one, start), "training moved no weight")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        again, _ = case.weights_after_training(seed=1)
    require(torch.equal(again, one), "the same seed trained other weights")
    other, _ = case.weights_after_training(seed=2)
    require(not torch.equal(other, one), "another seed trained the same weights")


@rule("return True or False from after_epoch")
def after_epoch_answers(case: DefenseCase) -> None:
    """True ends the training; any other true value would end it too."""
    ends = case.defense.after_epoch(build_toy_model(), context_of(0))
    require(isinstance(ends, bool), f"after_epoch returned {ends!r:.60}; expected True or False")


@rule("map images to logits at test time, with the classifier's weights inside")
def wrapped_classifier_maps_images_to_logits(case: DefenseCase) -> None:
    """The wrapped module is moved to a device and set to eval mode as one module."""
    images, _ = draw_toy_images(5, seed=0)
    classifier = build_toy_model()
    wrapped = case.defense.wrap(classifier)
    require(isinstance(wrapped, torch.nn.Module), f"wrap returned {wrapped!r:.60}; expected an nn.Module")
    shape = tuple(wrapped(images.clone()).shape)
    require(shape == (5, TOY_CLASSES), f"5 images give logits {shape}; expected {(5, TOY_CLASSES)}")
    inside = {id(weight) for weight in wrapped.parameters()}
    require(
        all(id(weight) in inside for weight in classifier.parameters()),
        "the wrapped module does not hold the classifier's weights; make the classifier a submodule",
    )
