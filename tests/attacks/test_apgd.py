"""Auto-PGD: against the paper's algorithm, against two other implementations, and where the answer is known.

Oracles, and where they are wrong:

- The paper's algorithm 1, written down a second time for a single image. Rows may part where a gradient's
  sign is that of rounding noise, or a loss rose by less than rounding.
- torchattacks 3.5.1, which is the authors' code reworked. Both compare the loss after the first step with 0, not
  with that of the start, when they count rises; corrected here, iterates are equal. In its targeted l2 attack
  every image takes the steps of the batch's first (``step_size[0]``), so images are given to it one by one.
- ART 1.20.1: it counts steps that beat the best loss instead of the last one, does not halve a window as
  published, starts inside the ball and returns the last point instead of the best, so no iterate is equal; its
  robust accuracy is.
- A linear model, whose robust accuracy is a sum.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toys import TOY_CLASSES, Toy

from robustbench_tin import evaluate, perturb
from robustbench_tin.attacks import Oracle, parse_attack
from robustbench_tin.attacks.apgd import APGD
from robustbench_tin.attacks.ascent import Ascent, on_the_rim
from robustbench_tin.attacks.search import Task
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.metrics import in_top
from robustbench_tin.threat import ThreatModel

NAMES = ("apgd-ce", "apgd-dlr", "apgd-t:target=1")
EVERY_NAME = pytest.mark.parametrize("name", NAMES)
EVERY_THREAT = pytest.mark.parametrize(("norm", "eps"), [("linf", 0.012), ("l2", 0.3)])


def with_settings(name: str, settings: str) -> str:
    return f"{name}{',' if ':' in name else ':'}{settings}"


def inner(toy: Toy) -> Toy:
    """The images pulled away from 0 and 1, so that only the ball bounds them."""
    return Toy(toy.model, 0.5 * toy.images + 0.25, toy.labels)


def draw_starts(toy: Toy, norm: str, eps: float, seed: int = 0) -> Tensor:
    """On the rim, drawn as torchattacks draws them."""
    torch.manual_seed(seed)
    if norm == "linf":
        noise = 2 * torch.rand(toy.images.shape) - 1
        return toy.images + eps * noise / noise.abs().amax(dim=(1, 2, 3), keepdim=True)
    noise = torch.randn(toy.images.shape)
    return toy.images + eps * noise / noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def ascent(attack: APGD, oracle: Oracle, toy: Toy, norm: str, eps: float, start: Tensor) -> Ascent:
    ball = ThreatModel(norm, eps).ball(toy.images)
    task = Task(toy.labels, ball, oracle.logits(toy.images), attack.goal, torch.Generator())
    return Ascent.start(task, start, attack.objective, attack.aims(task), attack.steps, attack.eot)


def climb(oracle: Oracle, search: Ascent, questions: int = 10_000) -> Ascent:
    for _ in range(questions):
        if not bool((search.left > 0).any()):
            break
        search.move(search.ask(oracle))
    return search


def climbed(spec: str, toy: Toy, norm: str, eps: float, start: Tensor) -> Ascent:
    attack = parse_attack(spec)
    assert isinstance(attack, APGD)
    with Oracle(toy.model) as oracle:
        return climb(oracle, ascent(attack, oracle, toy, norm, eps, start))


def rows_apart(ours: Tensor, theirs: Tensor, within: float = 1e-4) -> int:
    return int(((ours - theirs).abs().flatten(1).amax(dim=1) > within).sum())


def published(search: Ascent, toy: Toy, row: int, norm: str, eps: float, start: Tensor) -> Tensor:
    """The best point of algorithm 1 for one image that only the ball bounds; the loss is the search's."""
    image, steps = toy.images[row], search.steps

    def ask(point: Tensor) -> tuple[float, Tensor]:
        variable = point[None].clone().requires_grad_()
        loss = search.loss(toy.model(variable), slice(row, row + 1)).squeeze()
        return float(loss), torch.autograd.grad(loss, variable)[0][0]

    def project(point: Tensor) -> Tensor:
        if norm == "linf":
            return image + (point - image).clamp(-eps, eps)
        return image + (point - image) * min(1.0, eps / float((point - image).norm()))

    def direction(gradient: Tensor) -> Tensor:
        return gradient.sign() if norm == "linf" else gradient / gradient.norm()

    checkpoints, length = [0, max(int(0.22 * steps), 1)], max(int(0.22 * steps), 1)
    while checkpoints[-1] <= steps:
        length = max(length - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))
        checkpoints.append(checkpoints[-1] + length)

    eta, points = 2 * eps, [start]
    loss, gradient = ask(start)
    losses, best, seen = [loss], (loss, start, gradient), []
    for step in range(steps):
        here, weight = points[-1], 1.0 if step == 0 else 0.75
        aim = project(here + eta * direction(gradient))
        before = here if step == 0 else points[-2]
        moved = project(here + weight * (aim - here) + (1 - weight) * (here - before))
        loss, gradient = ask(moved)
        points[-1:] = [here, moved]
        losses.append(loss)
        if loss > best[0]:
            best = (loss, moved, gradient)
        if step + 1 in checkpoints:
            first = checkpoints[checkpoints.index(step + 1) - 1]
            rises = sum(losses[i + 1] > losses[i] for i in range(first, step + 1))
            same = bool(seen) and seen[-1] == (eta, best[0])
            seen.append((eta, best[0]))
            if rises <= 0.75 * (step + 1 - first) or same:
                eta, points[-1], gradient = eta / 2, best[1], best[2]
    return best[1]


@EVERY_NAME
@EVERY_THREAT
@pytest.mark.parametrize("steps", [1, 7, 50])
def test_it_is_the_published_algorithm(toy: Toy, name: str, norm: str, eps: float, steps: int) -> None:
    toy = inner(Toy(toy.model, toy.images[:12], toy.labels[:12]))
    start = draw_starts(toy, norm, eps)
    search = climbed(with_settings(name, f"steps={steps}"), toy, norm, eps, start)
    expected = torch.stack([published(search, toy, row, norm, eps, start[row]) for row in range(12)])
    print("APART", rows_apart(search.best_points, expected))
    assert rows_apart(search.best_points, expected) <= 2
