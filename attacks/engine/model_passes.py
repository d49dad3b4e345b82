"""Forward and backward passes through a variant of a model: counted, checked, and split to fit memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robustbench_tin.attacks.acceleration.variants import ModelVariant
from robustbench_tin.attacks.engine.failure import AttackFailure
from robustbench_tin.attacks.engine.finite_check import Checked, FiniteCheck
from robustbench_tin.attacks.engine.memory_split import MemorySplit
from robustbench_tin.attacks.engine.pass_counts import PassCounts
from robustbench_tin.attacks.engine.state import ModelOutput
from robustbench_tin.runtime import is_out_of_memory

RowLoss = Callable[[Tensor, slice], Tensor]
Length = Callable[[Tensor], Tensor]
Choose = Callable[[Tensor, Tensor], Tensor]


class ModelPasses:
    """Passes through variants of one model.

    Args:
        thaw: lets frozen parameters learn again; returns False if none was frozen.

    Attributes:
        counts: passes so far.
        finite: the check of logits and gradients.
        split: splits batches if memory runs out.
    """

    def __init__(self, thaw: Callable[[], bool]) -> None:
        self.counts = PassCounts()
        self.finite = FiniteCheck()
        self.split = MemorySplit()
        self._thaw = thaw

    def uncounted(self) -> ModelPasses:
        """Passes through the same variants with counts of their own, for passes that belong to no attack."""
        passes = ModelPasses(self._thaw)
        passes.split = self.split
        return passes

    def raw_output(self, variant: ModelVariant, images: Tensor) -> object:
        """A variant's output, unchecked; a model that adapts itself in a pass gets trainable parameters."""
        try:
            output = variant.logits(images)
        except RuntimeError as error:
            adapts = variant.is_model and not torch.is_grad_enabled() and not is_out_of_memory(error)
            if not (adapts and self._thaw()):
                raise
            output = variant.logits(images)
        self.counts.add_forward(variant, images)
        return output

    def forward(self, variant: ModelVariant, images: Tensor) -> Tensor:
        """A variant's logits, float32 ``(N, C)``, with a graph if gradients are enabled.

        Raises:
            AttackFailure: if the output is no ``(N, C)`` tensor, or not finite.
        """
        logits = self.raw_output(variant, images)
        if not isinstance(logits, Tensor):
            raise AttackFailure(f"the model returned {type(logits).__name__}; expected logits (N, classes)")
        if logits.ndim != 2 or len(logits) != len(images):
            raise AttackFailure(f"the model returned {tuple(logits.shape)}; expected logits (N, classes)")
        self.finite.add(logits, Checked.LOGITS)
        # Not the model's own memory, which its next pass may overwrite.
        return logits.float() if logits.dtype != torch.float32 else logits.clone()

    def logits(self, variant: ModelVariant, images: Tensor) -> Tensor:
        """A variant's logits, float32 ``(N, C)``, without a graph."""

        def part(rows: slice) -> ModelOutput:
            # No inference mode: tensors that the model keeps from its first pass must allow gradients later.
            with variant.arithmetic(), torch.inference_mode(False), torch.no_grad():
                return ModelOutput(self.forward(variant, images[rows]))

        return self.split.run(len(images), part).logits

    def tracked(self, variant: ModelVariant, images: Tensor, eot: int) -> Tensor:
        """Mean logits of ``eot`` passes, with a graph whose backward pass is counted and checked.

        Args:
            variant: a variant in float32.
            images: float32 ``(N, C, H, W)``.
            eot: number of passes; 1 if no gradient is wanted.
        """
        wanted = torch.is_grad_enabled() and images.requires_grad
        passes = eot if wanted else 1

        def add_backward(gradient: Tensor) -> None:
            self.counts.add_backward(variant, len(gradient) * passes)
            self.finite.add(gradient, Checked.GRADIENT)

        if wanted:
            # A view, since a hook on a caller's own tensor would outlive this pass.
            images = images.view_as(images)
            images.register_hook(add_backward)  # type: ignore[no-untyped-call]
        mean = self._mean_logits(variant, images, passes)
        if wanted:
            _require_graph(mean)
        return mean

    def gradient(self, variant: ModelVariant, images: Tensor, loss: RowLoss, eot: int) -> ModelOutput:
        """Logits, losses and gradients, each the mean of ``eot`` forward and backward passes.

        Args:
            variant: the variant.
            images: float32 ``(N, C, H, W)``.
            loss: from logits ``(n, C)`` and the slice of their rows to a loss per row ``(n,)``.
            eot: number of passes.
        """
        output = self.split.run(
            len(images), lambda rows: self._gradient(variant, images[rows], loss, rows, eot)
        )
        return self._checked(output)

    def chosen_gradient(
        self, variant: ModelVariant, images: Tensor, losses: RowLoss, length: Length, choose: Choose, eot: int
    ) -> ModelOutput:
        """Like :meth:`gradient` with several losses a row, of which each row chooses one.

        The losses are of the mean logits. The gradients are computed one after the other for their lengths,
        and the chosen one once more, so that only one a row is kept: a row of 200 classes would need 200.

        Args:
            variant: the variant.
            images: float32 ``(N, C, H, W)``.
            losses: from logits ``(n, C)`` and the slice of their rows to losses ``(n, L)``.
            length: from gradients ``(n, ...)`` to their lengths ``(n,)``.
            choose: from losses ``(n, L)`` and lengths of their gradients ``(n, L)`` to one loss each, int64
                ``(n,)``.
            eot: number of passes.
        """

        def part(rows: slice) -> ModelOutput:
            with variant.arithmetic(), torch.inference_mode(False), torch.enable_grad():
                variable = leaf(images[rows])
                logits = self._mean_logits(variant, variable, eot)
                values = losses(logits, rows)
                _require_graph(values)

                def gradient(of: Tensor) -> Tensor:
                    self.counts.add_backward(variant, len(variable) * eot)
                    return torch.autograd.grad(of.sum(), variable, retain_graph=True)[0]

                lengths = [length(gradient(values[:, column])) for column in range(values.shape[1])]
                chosen = choose(values.detach(), torch.stack(lengths, dim=1)).view(-1, 1)
                chosen_values = values.gather(1, chosen).squeeze(1)
                return ModelOutput(logits.detach(), chosen_values.detach(), gradient(chosen_values))

        return self._checked(self.split.run(len(images), part))

    def _gradient(
        self, variant: ModelVariant, images: Tensor, loss: RowLoss, rows: slice, passes: int
    ) -> ModelOutput:
        logits_sum = losses_sum = gradient_sum = torch.zeros((), device=images.device, dtype=torch.float32)
        for _ in range(passes):
            with variant.arithmetic(), torch.inference_mode(False), torch.enable_grad():
                variable = leaf(images)
                logits = self.forward(variant, variable)
                losses = loss(logits, rows)
                _require_graph(losses)
                (gradient,) = torch.autograd.grad(losses.sum(), variable)
            self.counts.add_backward(variant, len(images))
            if passes == 1:
                return ModelOutput(logits.detach(), losses.detach(), gradient)
            logits_sum = logits_sum + logits.detach()
            losses_sum = losses_sum + losses.detach()
            gradient_sum = gradient_sum + gradient
        return ModelOutput(logits_sum / passes, losses_sum / passes, gradient_sum / passes)

    def _mean_logits(self, variant: ModelVariant, images: Tensor, passes: int) -> Tensor:
        logits = [self.forward(variant, images) for _ in range(passes)]
        return logits[0] if passes == 1 else torch.stack(logits).mean(dim=0)

    def _checked(self, output: ModelOutput) -> ModelOutput:
        assert output.gradient is not None
        self.finite.add(output.gradient, Checked.GRADIENT)
        return output


def leaf(images: Tensor) -> Tensor:
    """The images as a leaf that gradients are computed for, without a copy if possible."""
    images = images.clone() if images.is_inference() else images.detach()
    return images.requires_grad_()


def _require_graph(losses: Tensor) -> None:
    if not losses.requires_grad:
        raise AttackFailure("the model's logits have no gradient with respect to its pixels")
