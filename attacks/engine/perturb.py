"""Running an attack on images, and the proof that its results lie inside the ball and the box."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from robustbench_tin.attacks.base import Attack
from robustbench_tin.attacks.engine.attacked_model import AttackedModel, AttackFailure
from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.attacks.engine.stop_on_success import EarlyStopRunner, untouched
from robustbench_tin.attacks.engine.verify import verified
from robustbench_tin.errors import InvalidSettingError, RobustTinError, one_line
from robustbench_tin.threat import ThreatModel, check_eps


def perturb_images(
    attack: Attack,
    attacked: AttackedModel,
    images: Tensor,
    labels: Tensor,
    eps: Sequence[float],
    *,
    norm: str = "linf",
    seed: int = 0,
) -> Tensor:
    """The results of an attack, proved inside the ball and the box in float32.

    With a fixed budget these are the final images. If the attack stops on success, they are the adversarial
    images, and the clean images if the attack failed.

    Args:
        attack: the attack.
        attacked: the attacked model, entered.
        images: clean images, float32 ``(N, C, H, W)`` in [0, 1].
        labels: true labels, int64 ``(N,)``.
        eps: K budgets, in units of the pixel range.
        norm: ``linf`` or ``l2``.
        seed: seed of the attack's randomness; each budget starts from it again.

    Returns:
        float32 ``(K, N, C, H, W)``; for eps 0 the images themselves.

    Raises:
        InvalidSettingError: if an eps, the norm or the images are invalid.
        AttackFailure: if the model or the attack raised an error, or the attack returned no image.
    """
    # Copies, because autograd refuses to save tensors that were made in inference mode.
    images = images.clone() if images.is_inference() else images.detach()
    labels = labels.clone() if labels.is_inference() else labels
    positive = [value for value in eps if check_eps(value) > 0]
    if images.dtype != torch.float32 or images.ndim != 4:
        raise InvalidSettingError(
            f"images got {images.dtype} {tuple(images.shape)}; expected float32 (N, C, H, W)"
        )
    attack.check(norm)
    if attack.criterion is not None:
        with _blamed(attack):
            return _stop_on_success(attack, attacked, images, labels, eps, norm, seed)
    balls = [ThreatModel(norm, value).ball(images) for value in positive]
    generators = [torch.Generator(images.device).manual_seed(seed) for _ in positive]
    attacked.reseed("search", seed)
    with _blamed(attack), untouched(images, attack.name):
        moved = attack.sweep(attacked, labels, balls, generators) if balls and len(images) else []
        attacked.require_finite()
    by_eps = {ball.eps: verified(image, ball, attack.name) for ball, image in zip(balls, moved, strict=False)}
    return torch.stack([by_eps.get(value, images) for value in eps])


def _stop_on_success(
    attack: Attack,
    attacked: AttackedModel,
    images: Tensor,
    labels: Tensor,
    eps: Sequence[float],
    norm: str,
    seed: int,
) -> Tensor:
    if len(images) == 0:
        return torch.stack([images for _ in eps])
    batches = ImageBatches(images, labels, len(images), images.device)
    attacked.reseed("verdict", seed)
    clean_logits = attacked.logits(images)
    results = []
    for value in eps:
        runner = EarlyStopRunner(
            attacked, batches, ThreatModel(norm, value), attack.goal, clean_logits, seed=seed
        )
        found = runner.attack(attack, keep_images=True) if value > 0 else None
        results.append(images if found is None or found.images is None else found.images)
    return torch.stack([result.to(images.device) for result in results])


@contextmanager
def _blamed(attack: Attack) -> Iterator[None]:
    """Turn errors of the model or the attack into an :class:`AttackFailure` that names the attack."""
    try:
        yield
    except (AttackFailure, RobustTinError):
        raise
    except Exception as error:
        raise AttackFailure(f"{attack.name} raised {one_line(error)}") from error
