"""Verification: the one place that proves images of an attack to be inside the ball and the pixel box."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from robustbench_tin.attacks.engine.failure import AttackFailure
from robustbench_tin.threat import Ball

Finish = Callable[[Tensor, Ball], Tensor]


def verified(candidates: Tensor, ball: Ball, attack: str, finish: Finish | None = None) -> Tensor:
    """The candidates as float32 images, projected onto the ball and the box and proved inside both.

    Args:
        candidates: images from an attack, ``(N, C, H, W)``.
        ball: the ball around the clean images.
        attack: its name, for messages.
        finish: changes the projected images (rounds them to 8 bits, say); it may not take them out of the
            ball.

    Raises:
        AttackFailure: if their shape is wrong, or an image is not finite or outside.
    """
    if candidates.shape != ball.images.shape:
        raise AttackFailure(
            f"{attack} returned {tuple(candidates.shape)}; expected {tuple(ball.images.shape)}"
        )
    adversarial = ball.project(candidates.float())
    if finish is not None:
        adversarial = finish(adversarial, ball)
    if not bool(ball.contains(adversarial).all()):
        raise AttackFailure(f"{attack} returned an image that is not finite")
    return adversarial
