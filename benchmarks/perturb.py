"""``perturb``: the adversarial images of the caller's own model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robustbench_tin.attacks import AttackedModel
from robustbench_tin.attacks.as_attacks import as_attacks
from robustbench_tin.attacks.base import Attack, AttackFailure
from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.attacks.engine.spot_checks import SpotChecks, with_right_variant
from robustbench_tin.benchmarks.measurement.clean import measure_clean
from robustbench_tin.benchmarks.measurement.fixed_budget import (
    FixedBudget,
)
from robustbench_tin.benchmarks.measurement.inputs import (
    Images,
    Labels,
)
from robustbench_tin.benchmarks.measurement.preparation import (
    Model,
    as_batches,
    protocol_of,
    require_possible,
    tell_of_normalisation,
    warn,
)
from robustbench_tin.benchmarks.measurement.protocol import AttackProtocol
from robustbench_tin.benchmarks.measurement.until_success import attack_until_success
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.models.adapters import Adaptation, adapted
from robustbench_tin.models.as_module import as_module
from robustbench_tin.models.normalisation import Values
from robustbench_tin.threat import Budgets, is_one_budget, parse_eps_list


def perturb(
    model: Model,
    images: Images,
    labels: Labels | None = None,
    attack: str | Attack = "pgd",
    eps: Budgets = (0.01, 0.03),
    norm: str = "linf",
    *,
    seed: int = 0,
    search: str = "fixed",
    eot: int = 1,
    eight_bit: bool = False,
    batch_size: int | None = None,
    mean: Values | None = None,
    std: Values | None = None,
    output: str | int | None = None,
    pad: bool = False,
    grayscale: bool = False,
    value_range: tuple[float, float] | None = None,
) -> Tensor:
    """The adversarial images, each inside its ball and the pixel box in float32.

    Args:
        model: maps float32 ``(N, C, H, W)`` in [0, 1] to logits; its state is restored.
        images: see :func:`evaluate`, also for ``labels``.
        attack: a spec or an attack.
        eps: one budget, or K budgets in the order of the result; for 0 the images are unchanged.
        norm: ``linf`` or ``l2``.
        seed: seed of the attack's random numbers.
        search: see :func:`evaluate`.
        eot: see :func:`evaluate`.
        eight_bit: see :func:`evaluate`.
        batch_size: number of images per batch; None: the device's default.
        mean: see :func:`evaluate`, also for ``std``, ``output``, ``pad``, ``grayscale`` and
            ``value_range``.

    Returns:
        float32 on the CPU: ``(N, C, H, W)`` for one budget (a number, or a text such as ``8/255``), and
        ``(K, N, C, H, W)`` for a sequence of K, which may be 1. An attack that stops on success returns the
        adversarial image that it found, or the clean image if it found none. With the same seed and batch
        size, these images give exactly the results that :func:`evaluate` reports.

    Raises:
        RobustTinError: see :func:`evaluate`.
        AttackFailure: if the attack or the model fails.

    >>> from torch import nn
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 10))
    >>> images, labels = torch.rand(4, 3, 8, 8), torch.arange(4)
    >>> perturb(model, images, labels, "fgsm", eps=8 / 255).shape
    torch.Size([4, 3, 8, 8])
    >>> perturb(model, images, labels, "fgsm", eps=[0.01, 0.03]).shape
    torch.Size([2, 4, 3, 8, 8])
    """
    budgets = parse_eps_list(eps, norm)
    (chosen, *more) = as_attacks(attack)
    if more:
        raise InvalidSettingError(f"attack got {len(more) + 1} attacks; expected 1")
    protocol = protocol_of(norm, seed, search, eot, eight_bit)
    adaptation = Adaptation(output, batch_size if pad else None, pad, grayscale, value_range)
    model = adapted(as_module(model), mean, std, adaptation)
    batches, classes = as_batches(model, images, labels, batch_size)
    tell_of_normalisation(model, batches, warn)
    require_possible(chosen, protocol, classes)
    moved = _moved(model, batches, chosen, budgets, protocol)
    return moved[0] if is_one_budget(eps) else moved


def _moved(
    model: nn.Module,
    batches: ImageBatches,
    attack: Attack,
    budgets: Sequence[float],
    protocol: AttackProtocol,
) -> Tensor:
    """Adversarial images ``(K, N, C, H, W)``, one set per budget."""
    if attack.criterion is not None:
        outcomes, clean_logits = measure_clean(model, batches, seed=protocol.seed)
        if clean_logits is None:
            raise AttackFailure(str(outcomes.status))
        return torch.stack(
            [_stop_on_success(model, batches, attack, value, protocol, clean_logits) for value in budgets]
        )
    with protocol.attacked(model) as attacked:
        work = FixedBudget(batches, attack, budgets, protocol)
        work.prepare(attacked)
        return with_right_variant(attacked, lambda: _fixed_budget(attacked, work))


def _fixed_budget(attacked: AttackedModel, work: FixedBudget) -> Tensor:
    """The adversarial images of a fixed budget, in the form that :func:`perturb` returns.

    Raises:
        WrongVariantError: if the searched variant turns out to be wrong.
    """
    checks = SpotChecks(attacked)
    positive = [index for index, eps in enumerate(work.eps) if eps > 0]
    parts = []
    for start in work.batches.starts():
        moved = work.perturbed(attacked, *work.batches.at(start), start)
        checks.offer(moved[positive].flatten(0, 1))
        checks.look()
        parts.append(moved.cpu())
    checks.settle()
    return torch.cat(parts, dim=1)


def _stop_on_success(
    model: nn.Module,
    batches: ImageBatches,
    attack: Attack,
    eps: float,
    protocol: AttackProtocol,
    clean_logits: Tensor,
) -> Tensor:
    if eps == 0:
        return batches.all_images().cpu()
    found = attack_until_success(model, batches, attack, eps, protocol, clean_logits, keep_images=True)
    assert found.images is not None
    return found.images
