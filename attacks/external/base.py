"""Bridges: attacks of other libraries, run on our models and verified like our own.

``art:CLASS``, ``foolbox:CLASS`` and ``torchattacks:CLASS`` each become an attack with the settings of the
library's class. Budget, norm, batch and seed come from the measurement. The result is projected onto the ball
and verified by the model itself. An attack that searches for the smallest change and takes no budget
(DeepFool, Carlini and Wagner's) runs once, unchanged, for all budgets, and its result is projected onto each
ball.
"""

from __future__ import annotations

import importlib
import random
import sys
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_tin.attacks.base import Attack, AttackedModel, AttackFailure
from robustbench_tin.errors import InvalidSettingError, RobustTinError, one_line
from robustbench_tin.metrics import in_top
from robustbench_tin.runtime import is_out_of_memory
from robustbench_tin.threat import Ball

# Names that libraries give to the number of steps, for time estimates.
_BUDGETS = ("max_iter", "max_iterations", "steps", "nb_iter", "n_queries", "num_iter_set", "nb_steps")
# Number of steps of an attack without such a setting, for time estimates.
_UNKNOWN_BUDGET = 10
# A budget that no step length exceeds, for checking an attack's settings.
_AMPLE_EPS = 100.0
_CLASSES = 10


class CountedModule(nn.Module):
    """A model as another library gets it: passes are counted, modes and parameters cannot be changed.

    It has no submodules, so a library cannot switch the model to train mode.

    Args:
        forward: maps float32 images on ``device`` to logits with their graph.
        device: the device of the model.

    Attributes:
        failure: the first error of a pass, even if the library continued as if nothing had happened.
    """

    def __init__(self, forward: Callable[[Tensor], Tensor], device: torch.device) -> None:
        super().__init__()
        self._logits = forward
        # Libraries find a model's device at its first parameter.
        self.place = nn.Parameter(torch.empty(0, device=device, dtype=torch.float32), requires_grad=False)
        self.failure: Exception | None = None
        self.eval()

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return self.place.device

    def forward(self, images: Tensor) -> Tensor:
        """Logits float32 ``(N, classes)`` of images of any float type, on any device."""
        try:
            images = images.to(self.device, torch.float32)
            if not bool(torch.isfinite(images).all()):
                raise AttackFailure("the attack queried the model at an image that is not finite")
            return self._logits(images)
        except Exception as error:
            self.failure = self.failure or error
            raise


@dataclass(frozen=True, kw_only=True)
class Bridge(Attack):
    """Base of other libraries' attacks; each class of a library gets one subclass, made once.

    Attributes:
        package: the name under which the library is installed.
        foreign_class: the library's class.
        set_by_us: arguments of its constructor that are not settings here.
        knows_eps: True if it takes eps.
        eps_name: the name of eps in its constructor; None if it has none.
        steps_of_eps: step lengths that are fractions of the budget by default, with the fractions in the
            library's own defaults.
        required: settings without a default.
        ignores_labels: True if it moves away from the model's prediction, right or wrong. It may then correct
            a misclassified image; such an image stays unchanged.
        single_step: True if it takes one gradient and one step; the trust checks use it.
    """

    package: ClassVar[str]
    foreign_class: ClassVar[type[Any]]
    set_by_us: ClassVar[frozenset[str]]
    knows_eps: ClassVar[bool]
    eps_name: ClassVar[str | None] = None
    steps_of_eps: ClassVar[Mapping[str, float]] = {}
    required: ClassVar[Sequence[str]] = ()
    settings: ClassVar[Sequence[str]] = ()
    ignores_labels: ClassVar[bool] = False
    single_step: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.required:
            self.require(getattr(self, name) is not None, name, "a value; it has no default")

    @classmethod
    def from_settings(cls, settings: Mapping[str, str]) -> Self:
        if "targeted" in settings:
            raise InvalidSettingError(
                f"attack '{cls.name}' got targeted={settings['targeted']}; only untargeted attacks are"
                " measured, leave it out"
            )
        for key in sorted(cls.set_by_us & settings.keys() - set(cls.settings)):
            raise InvalidSettingError(
                f"attack '{cls.name}' got {key}={settings[key]}, which the measurement sets; leave it out"
                " (--eps and --norm are the budget)"
            )
        return super().from_settings(settings)

    @classmethod
    def _convert(cls, key: str, text: str, hint: Any) -> Any:
        value = super()._convert(key, text, hint)
        # Without an annotation, a default of 1 may mean any number; counts must stay whole.
        if isinstance(value, float) and isinstance(getattr(cls, key), int) and value.is_integer():
            return int(value)
        return value

    @abstractmethod
    def build(self, seen: CountedModule, shape: Sequence[int], classes: int, norm: str, eps: float) -> Any:
        """The library's attack with these settings, on a model with this number of classes.

        Args:
            seen: the model.
            shape: shape of an image, ``(C, H, W)``.
            classes: number of classes of the model.
            norm: ``linf`` or ``l2``.
            eps: the budget, in units of the pixel range.
        """

    @abstractmethod
    def move(self, built: Any, seen: CountedModule, labels: Tensor, ball: Ball) -> Tensor:
        """The result of the library's attack on ``ball.images``, of any float type, on any device."""

    def gradients(self, budgets: int) -> int:
        steps = [value for name in _BUDGETS if isinstance(value := getattr(self, name, None), int)]
        each = max(1, *steps) if steps else 1 if self.single_step else _UNKNOWN_BUDGET
        return each * (budgets if self.knows_eps else 1)

    def remarks(self, classes: int) -> Sequence[str]:
        cut = "" if self.knows_eps else "; it takes no budget, so its result is projected onto the ball"
        library = sys.modules[self.foreign_class.__module__.partition(".")[0]]
        return (f"{self.name} of {self.package} {getattr(library, '__version__', '')}{cut}",)

    def check(self, norm: str) -> None:
        super().check(norm)
        try:
            self.build(CountedModule(_stand_in, torch.device("cpu")), (3, 32, 32), _CLASSES, norm, _AMPLE_EPS)
        except RobustTinError:
            raise
        except ImportError as error:
            raise InvalidSettingError(
                f"attack '{self.name}' needs the package {error.name}; pip install {error.name}"
            ) from error
        except Exception as error:
            raise InvalidSettingError(
                f"{self.package} refuses attack '{self.spec}': {one_line(error)}; change its settings"
            ) from error

    def sweep(
        self,
        attacked: AttackedModel,
        labels: Tensor,
        balls: Sequence[Ball],
        generators: Sequence[torch.Generator],
    ) -> list[Tensor]:
        if self.knows_eps:
            return super().sweep(attacked, labels, balls, generators)
        moved = self._moved(attacked, labels, balls[0], generators[0])
        return [self._without_mended(attacked, moved, labels, ball) for ball in balls]

    def run(self, attacked: AttackedModel, labels: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        moved = self._moved(attacked, labels, ball, generator)
        return self._without_mended(attacked, moved, labels, ball)

    def _moved(
        self, attacked: AttackedModel, labels: Tensor, ball: Ball, generator: torch.Generator
    ) -> Tensor:
        seed = int(torch.randint(2**31 - 1, (), generator=generator, device=generator.device))
        size = len(labels)
        while True:
            rows = torch.split(torch.arange(len(labels), device=labels.device), size)
            try:
                parts = [self._part(attacked, labels[part], ball.select(part), seed) for part in rows]
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if size <= 1:
                    raise AttackFailure("out of memory with a single image") from None
                size = (size + 1) // 2
                continue
            return torch.cat(parts)

    def _part(self, attacked: AttackedModel, labels: Tensor, ball: Ball, seed: int) -> Tensor:
        seen = CountedModule(attacked.tracked, ball.images.device)
        with torch.inference_mode(False), torch.enable_grad(), seeded_globally(seed, ball.images.device):
            with torch.no_grad():
                classes = seen(ball.images[:1]).shape[1]
            built = self.build(seen, ball.images.shape[1:], classes, ball.norm, ball.eps)
            moved = self.move(built, seen, labels.clone(), ball)
        if seen.failure is not None:
            raise seen.failure
        return moved.detach().to(ball.images)

    def _without_mended(self, attacked: AttackedModel, moved: Tensor, labels: Tensor, ball: Ball) -> Tensor:
        if not self.ignores_labels:
            return moved
        was_wrong = ~in_top(attacked.logits(ball.images), labels, 1)
        mended = was_wrong & in_top(attacked.logits(ball.project(moved)), labels, 1)
        return torch.where(mended.view(-1, 1, 1, 1), ball.images, moved)

    def arguments(self, eps: float) -> dict[str, Any]:
        """The arguments of the library's constructor: settings, eps, and step lengths that follow it."""
        given = {name: getattr(self, name) for name in self.settings}
        for name, part in self.steps_of_eps.items():
            if given[name] is None:
                given[name] = part * eps
        if self.eps_name is not None:
            given[self.eps_name] = eps
        return given


def require_package(name: str, package: str, install: str) -> ModuleType:
    """Import a library that only its own attacks need.

    Raises:
        InvalidSettingError: if it is not installed or cannot be imported; gives the command to install it.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        why = "" if error.name == package else f" ({one_line(error)})"
        raise InvalidSettingError(f"attack '{name}' needs the package {package}{why}; {install}") from error


@contextmanager
def seeded_globally(seed: int, device: torch.device) -> Iterator[None]:
    """Seed every global generator (Python's, NumPy's, torch's), and restore their states on exit."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - libraries draw from it
    devices = range(torch.cuda.device_count()) if device.type == "cuda" else ()
    with torch.random.fork_rng(devices=devices):
        try:
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            torch.default_generator.manual_seed(seed)
            for index in devices:
                torch.cuda.default_generators[index].manual_seed(seed)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


def _stand_in(images: Tensor) -> Tensor:
    """Logits of a substitute model, for libraries that query one before they accept their settings."""
    return images.flatten(1).mean(dim=1, keepdim=True) * torch.arange(1.0, _CLASSES + 1, dtype=torch.float32)
