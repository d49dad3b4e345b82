"""The shortest way to a hyperplane inside the pixel box, the problem of each step of FAB."""

from __future__ import annotations

from itertools import count

import torch
from torch import Tensor

from robustbench_tin.runtime import is_asynchronous

# Newton's steps without a look, on devices that the host would wait for. Few rows of random images and
# gradients of 64 px take more; such a row ends a little short of the hyperplane, and FAB's next step starts
# there.
_UNSEEN_STEPS = 12


def length(change: Tensor, norm: str) -> Tensor:
    """The length of a change ``(N, ...)`` in a norm, ``(N,)``."""
    flat = change.flatten(1)
    return flat.abs().amax(dim=1) if norm == "linf" else flat.norm(dim=1)


def dual_length(gradient: Tensor, norm: str) -> Tensor:
    """The growth of a linear function with this gradient ``(N, ...)`` over a change of length 1, ``(N,)``."""
    flat = gradient.flatten(1)
    return flat.abs().sum(dim=1) if norm == "linf" else flat.norm(dim=1)


def change_by(points: Tensor, gradient: Tensor, amount: Tensor, norm: str) -> Tensor:
    """The shortest change inside the pixel box that raises a linear function by an amount.

    The optimum changes every value by ``min(t * u, room)``. ``room`` is the distance to the box, ``u`` is 1
    (linf) or the size of the gradient (l2), and ``t`` is the first number at which the concave, piecewise
    linear gain equals the amount. Newton's steps from 0 never pass that ``t``, and reach it exactly on its
    piece; no values have to be sorted. Croce and Hein, 2020, arXiv 1907.02044, section 2, pose the problem.

    Args:
        points: ``(N, ...)`` in [0, 1].
        gradient: gradient of the linear function, ``(N, ...)``.
        amount: the gain, of either sign, ``(N,)``.
        norm: ``linf`` or ``l2``.

    Returns:
        Changes ``(N, ...)``. If no point gains enough, the change leads to the box's corner with the largest
        gain. If several linf changes are shortest, it is the one that moves every value with a gradient.
    """
    flat = points.flatten(1)
    upward = gradient.flatten(1) * amount.sign().unsqueeze(1)
    size = upward.abs()
    # Relative to the largest, so that the squares of tiny gradients do not vanish.
    largest = size.amax(dim=1, keepdim=True)
    largest = torch.where(largest > 0, largest, 1.0)
    size = size / largest
    wanted = amount.abs().double() / largest.squeeze(1)
    speed = (size > 0).to(flat.dtype) if norm == "linf" else size
    room = torch.where(upward > 0, 1 - flat, flat)
    most = size * room
    time = torch.zeros_like(wanted)
    may_look = not is_asynchronous(points.device)
    for step in count():
        stopped = _at(time, flat) * speed >= room
        gained = torch.where(stopped, most, 0).sum(dim=1, dtype=torch.float64)
        rate = torch.where(stopped, 0, size * speed).sum(dim=1, dtype=torch.float64)
        reached = torch.where(rate > 0, (wanted - gained) / rate, time)
        if not bool((reached > time).any()) if may_look else step == _UNSEEN_STEPS:
            break
        time = torch.maximum(time, reached)
    moved = torch.minimum(_at(time, flat) * speed, room)
    corner = torch.where(speed > 0, room, 0)
    enough = most.sum(dim=1, dtype=torch.float64) >= wanted
    return (torch.where(enough.unsqueeze(1), moved, corner) * upward.sign()).view_as(points)


def between(near: Tensor, far: Tensor, at_most: float, norm: str) -> Tensor:
    """The part of a step to take from the far start, from the lengths of both changes, ``(N, 1, 1, 1)``."""
    near_length, far_length = (length(change, norm).clamp(min=1e-8) for change in (near, far))
    return (near_length / (near_length + far_length)).clamp(max=at_most).view(-1, 1, 1, 1)


def _at(time: Tensor, like: Tensor) -> Tensor:
    return time.to(like.dtype).unsqueeze(1)
