"""Attacks that leave more images right than there are robust ones; the models are honest."""

from __future__ import annotations

from dataclasses import dataclass

from faults.base import AttackFault
from robustbench_tin import attacks


@attacks.register("returns-clean")
@dataclass(frozen=True, kw_only=True)
class _ReturnsClean(attacks.Attack):
    """Forgets to return the images that it found."""

    def run(self, attacked, labels, ball, generator):
        attacked.gradient(ball.images, labels)
        return ball.images


class ReturnsTheCleanImage(AttackFault):
    name = "returns the clean image"
    attacks = "returns-clean,fgsm"
    flagged = "returns-clean"
    says = "fgsm succeeds and this attack fails"


@attacks.register("does-nothing")
@dataclass(frozen=True, kw_only=True)
class _DoesNothing(attacks.Attack):
    """Does not even look at the model."""

    def run(self, attacked, labels, ball, generator):
        return ball.images


class DoesNothing(AttackFault):
    name = "does nothing"
    attacks = flagged = "does-nothing"
    says = "never queried"


@attacks.register("wrong-scale")
@dataclass(frozen=True, kw_only=True)
class _WrongScale(attacks.Attack):
    """Takes eps for a number of 255ths once more, as a bridge between two conventions may."""

    def run(self, attacked, labels, ball, generator):
        moved = ball.images
        for _ in range(10):
            step = ball.eps / 255 * ball.direction(attacked.gradient(moved, labels))
            moved = ball.project(moved + step)
        return moved


class WrongScale(AttackFault):
    name = "wrong scale"
    attacks = flagged = "wrong-scale"
    says = "check that it works"


@attacks.register("gives-up")
@dataclass(frozen=True, kw_only=True)
class _GivesUp(attacks.Attack):
    """Leaves its loop too early if the budget is large."""

    def run(self, attacked, labels, ball, generator):
        moved = ball.images
        for _ in range(8 if ball.eps < 0.025 else 1):
            moved = ball.project(moved + 0.005 * ball.direction(attacked.gradient(moved, labels)))
        return moved


class GivesUp(AttackFault):
    name = "gives up"
    attacks = flagged = "gives-up"
    says = "accuracy rises"
    eps = (0.0, 0.02, 0.03)


@attacks.register("downhill")
@dataclass(frozen=True, kw_only=True)
class _Downhill(attacks.Attack):
    """Makes the model surer of the truth."""

    def run(self, attacked, labels, ball, generator):
        moved = ball.images
        for _ in range(10):
            moved = ball.project(moved - ball.eps / 4 * ball.direction(attacked.gradient(moved, labels)))
        return moved


class Downhill(AttackFault):
    name = "downhill"
    attacks = flagged = "downhill"
    says = "check that it works"


class ShortSteps(AttackFault):
    name = "short steps"
    attacks = flagged = "pgd:alpha=0.0005"
    says = "more steps"


class FewSteps(AttackFault):
    name = "few steps"
    attacks = flagged = "pgd:alpha=0.003,steps=2"
    says = "more steps"


class EndsTooEarly(AttackFault):
    name = "ends too early"
    attacks = flagged = "pgd:alpha=0.002,criterion=top1,random_start=False,steps=20"
    says = "last tenth"
    eps = (0.0, 0.06)
