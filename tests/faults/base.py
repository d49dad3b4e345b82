"""The base class of faults, and the list of all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import nn

from faults.host import Host
from faults.parts import Averaged, Before, Change, straight_through

FAULTS: dict[str, Fault] = {}
"""Every fault by its name, in the order in which their modules are imported."""


class Fault(ABC):
    """A model whose robust accuracy is unreliable, and the reason that the trust checks must give.

    A subclass with a name registers itself.

    Attributes:
        name: of the fault, once in the registry.
        paper: authors, year, arXiv number; None: the fault is nobody's defense.
        attacks: that the model is measured under.
        flagged: the attack whose figures must not be trusted.
        eps: budgets, linf; the largest must be flagged.
        eot: passes averaged for one gradient when it is measured.
        kinds: codes of the reasons, any of which must be given; empty: any reason will do.
        says: a part of the reason's text; empty: any.
        clean: whether the clean figure is not to be trusted either, for the same reason.
        adaptive: the attack on the truth that finds adversarial images of the faulty model.
        hides: whether the flagged attack leaves more images right than the adaptive one; otherwise its figure
            depends on chance, on other images or on earlier calls.
    """

    name: ClassVar[str]
    paper: ClassVar[str | None] = None
    attacks: ClassVar[str] = "fgsm,pgd"
    flagged: ClassVar[str] = "pgd"
    eps: ClassVar[tuple[float, ...]] = (0.0, 0.01, 0.03)
    eot: ClassVar[int] = 1
    kinds: ClassVar[frozenset[str]] = frozenset()
    says: ClassVar[str] = ""
    clean: ClassVar[bool] = False
    adaptive: ClassVar[str] = "pgd"
    hides: ClassVar[bool] = True

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "name" not in cls.__dict__:
            return
        # Abstract methods are not known of a class that is still being made.
        if getattr(cls.plant, "__isabstractmethod__", False):
            raise TypeError(f"{cls.__name__} has a name and no method plant; expected both")
        if cls.name in FAULTS:
            raise TypeError(f"{cls.__name__} and {type(FAULTS[cls.name]).__name__} are both '{cls.name}'")
        FAULTS[cls.name] = cls()

    @abstractmethod
    def plant(self, host: Host) -> nn.Module:
        """The faulty model: float32 pixels in [0, 1] to logits; it is measured in eval mode.

        Args:
            host: an honest network and its training images; it is left as it was.
        """

    def truth(self, host: Host) -> nn.Module | None:
        """A model with true gradients that answers as the faulty one does: it makes adversarial images.

        The network behind the false gradient, or a differentiable stand-in. None: no such model is known, or
        none is needed, for the figure is wrong in another way.
        """
        return None

    def __str__(self) -> str:
        return self.name


class DetachedChange(Fault):
    """The images are changed out of autograd's sight: purified, rounded, projected.

    Gradients cannot be followed, so a black-box attack is measured. The truth takes the gradient of the
    change for the identity's (BPDA).
    """

    attacks = flagged = "square:queries=60"
    eps = (0.0, 0.03)

    copies: ClassVar[int] = 1
    """Passes that the truth averages; more than one if the change is random."""

    @abstractmethod
    def change(self, host: Host) -> Change:
        """From images to images, float32 ``(N, 3, H, W)``."""

    def plant(self, host: Host) -> nn.Module:
        change = self.change(host)
        return Before(host.network, lambda images: change(images.detach()))

    def truth(self, host: Host) -> nn.Module:
        model = Before(host.network, straight_through(self.change(host)))
        return model if self.copies == 1 else Averaged(model, self.copies)


class AttackFault(Fault):
    """The attack is at fault, and the model is honest."""

    def plant(self, host: Host) -> nn.Module:
        return host.network

    def truth(self, host: Host) -> nn.Module:
        return host.network
