"""Early stopping and catastrophic overfitting, on accuracies that are written down."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from loop_toys import assert_same_weights, build_full_model, split_of, trained_full
from toys import build_toy_model

from robustbench_tin.defenses.fgsm_at import FGSMAdversarialTraining
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.training.loop import Recipe
from robustbench_tin.training.monitor import Monitor, Robustness, hold_out, some


class Told:
    """A probe that answers from a list, and keeps the weights that it was shown."""

    def __init__(self, *answers: tuple[float, float]) -> None:
        self.answers = [Robustness(fgsm, pgd) for fgsm, pgd in answers]
        self.shown: list[dict[str, torch.Tensor]] = []
        self.images: list[int] = []

    def __call__(self, classifier, images, labels) -> Robustness:
        assert images.dtype == torch.uint8
        self.shown.append(copy.deepcopy(classifier.state_dict()))
        self.images.append(len(images))
        return self.answers[len(self.shown) - 1]


def monitor_of(probe: Told, count: int = 200, **settings) -> Monitor:
    images = torch.zeros(count, 3, 2, 2, dtype=torch.uint8)
    return Monitor(images, torch.arange(count) % 10, probe, **settings)


@pytest.mark.parametrize(
    ("answers", "count", "seen_in", "kept"),
    [
        ([(0.3, 0.2), (0.5, 0.4), (0.8, 0.1)], 200, 2, 2),
        ([(0.3, 0.2), (0.5, 0.4), (0.5, 0.2)], 200, 2, 2),
        ([(0.5, 0.4), (0.4, 0.0), (0.9, 0.05)], 200, 2, 1),
        ([(0.4, 0.35), (0.5, 0.4), (0.6, 0.37), (0.7, 0.3), (0.8, 0.22), (0.9, 0.1)], 200, 5, 3),  # slowly
        ([(0.5, 0.4), (0.4, 0.1), (0.45, 0.1)], 200, None, None),  # both fell: no overfitting to FGSM
        ([(0.5, 0.4), (0.8, 0.25), (0.9, 0.21)], 200, None, None),  # not to half
        ([(0.05, 0.04), (0.08, 0.01), (0.08, 0.02)], 200, None, None),  # chance does that
        ([(0.5, 0.4), (0.8, 0.1)], 10, None, None),  # so does chance on few images
        ([(0.17, 0.12), (0.17, 0.02)], 64, None, None),  # the first epoch gave most images the same label
        ([(0.12, 0.12), (0.3, 0.2), (0.4, 0.05)], 200, 2, 2),
    ],
)
def test_what_counts_as_catastrophic_overfitting(
    answers, count: int, seen_in: int | None, kept: int | None
) -> None:
    probe = Told(*answers)
    monitor = monitor_of(probe, count, patience=None, single_step=True)
    model = build_toy_model()
    reasons = [monitor.look(model, epoch) for epoch in range(len(answers))]
    found = [epoch for epoch, reason in enumerate(reasons) if reason is not None]
    assert found == ([] if seen_in is None else [seen_in])
    assert monitor.overfitted == monitor.decides == (seen_in is not None)
    if seen_in is not None:
        assert f"catastrophic overfitting in epoch {seen_in + 1}" in reasons[seen_in]
        assert f"the weights of epoch {kept}" in reasons[seen_in]
    unwatched = monitor_of(Told(*answers), count, patience=None, single_step=False)
    assert not any(unwatched.look(model, epoch) for epoch in range(len(answers)))


def test_overfitting_ends_the_training_with_the_last_good_weights() -> None:
    probe = Told((0.3, 0.2), (0.5, 0.4), (0.6, 0.35), (0.9, 0.0), (0.9, 0.9))
    model, record = trained_full(Recipe(5, 16, 1e-2), "fgsm-at", probe=probe)
    assert len(probe.shown) == 4
    assert record.steps == 16
    good = build_full_model()
    good.load_state_dict(probe.shown[2])
    assert_same_weights(model, good)
    (note,) = record.notes
    assert "FGSM accuracy went from 0.50 to 0.90, PGD-5 accuracy from 0.40 to 0.00" in note
    assert not model.training


@pytest.mark.parametrize("average", ["none", "ema"])
def test_early_stopping_ends_with_the_most_robust_weights(average: str) -> None:
    probe = Told((0.3, 0.2), (0.5, 0.4), (0.6, 0.4), (0.6, 0.35), (0.9, 0.9))
    recipe = Recipe(5, 16, 1e-2, early_stop=2, average=average)
    model, record = trained_full(recipe, "pgd-at:steps=1", probe=probe, images=100)
    assert len(probe.shown) == 4
    assert set(probe.images) == {50}
    assert record.images == 50
    best = build_full_model()
    best.load_state_dict(probe.shown[1])
    assert_same_weights(model, best)
    (note,) = record.notes
    assert "stopped after epoch 4" in note
    assert "0.40, after epoch 2" in note


def test_patience_does_not_wait_for_a_classifier_that_gives_all_images_one_label() -> None:
    probe = Told((0.1, 0.1), (0.2, 0.05), (0.3, 0.08), (0.5, 0.3), (0.5, 0.2), (0.5, 0.2))
    monitor = monitor_of(probe, patience=2, single_step=False)
    reasons = [monitor.look(build_toy_model(), epoch) for epoch in range(6)]
    assert [epoch for epoch, reason in enumerate(reasons) if reason is not None] == [5]
    assert monitor.kept_epoch == 3


def test_trained_to_the_end_it_still_keeps_the_most_robust_weights() -> None:
    probe = Told((0.3, 0.2), (0.5, 0.4), (0.6, 0.3))
    model, record = trained_full(Recipe(3, 16, 1e-2, early_stop=2), "none", probe=probe, images=100)
    best = build_full_model()
    best.load_state_dict(probe.shown[1])
    assert_same_weights(model, best)
    assert record.notes == ()


def test_clean_epochs_do_not_try_the_patience() -> None:
    probe = Told((0.3, 0.2), (0.5, 0.4))
    recipe = Recipe(4, 16, 1e-2, early_stop=1, clean_epochs=2)
    _, record = trained_full(recipe, "pgd-at:steps=1", probe=probe, images=100)
    assert len(probe.shown) == 2
    assert record.steps == 4 * 3


@pytest.mark.parametrize(
    ("defense", "looks"), [("none", 0), ("pgd-at:steps=1", 0), ("fgsm-at", 2), ("n-fgsm", 2)]
)
def test_only_single_step_training_is_watched_without_being_asked(defense: str, looks: int) -> None:
    probe = Told((0.3, 0.2), (0.5, 0.4))
    watched, _ = trained_full(Recipe(2, 16, 1e-2), defense, probe=probe)
    assert len(probe.shown) == looks
    alone, _ = trained_full(Recipe(2, 16, 1e-2), defense)
    assert_same_weights(watched, alone)


def test_early_stopping_without_a_probe_is_refused() -> None:
    with pytest.raises(InvalidSettingError, match="early_stop needs robust accuracies"):
        trained_full(Recipe(2, 16, 1e-2, early_stop=1))


@pytest.mark.parametrize(("images", "held"), [(100, 50), (1000, 64), (4000, 200), (40_000, 1000)])
def test_what_is_held_out_is_a_part_that_training_does_not_see(images: int, held: int) -> None:
    split = split_of(10).take(np.arange(images) % 10)
    split.labels[:] = np.arange(images)
    rest, part = hold_out(split, seed=3)
    assert len(part) == held
    assert sorted([*rest.labels, *part.labels]) == list(range(images))
    again = hold_out(split, seed=3)[1]
    assert np.array_equal(part.labels, again.labels)
    assert not np.array_equal(part.labels, hold_out(split, seed=4)[1].labels)


def test_what_is_looked_at_is_a_part_of_the_training_images() -> None:
    split = split_of(10).take(np.arange(5000) % 10)
    split.labels[:] = np.arange(5000)
    seen = some(split, seed=0).labels
    assert len(set(seen.tolist())) == 125


def test_single_step_defenses_say_so() -> None:
    assert FGSMAdversarialTraining().single_step
