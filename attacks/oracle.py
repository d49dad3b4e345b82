"""The oracle: a model as an attack sees it, every pass counted."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn

from robustbench_tin.attacks.forms import Form, Forms
from robustbench_tin.attacks.losses import cross_entropy
from robustbench_tin.attacks.search import Answer
from robustbench_tin.exact import exact_float32

Loss = Callable[[Tensor, Tensor], Tensor]
RowLoss = Callable[[Tensor, slice], Tensor]


class AttackFailure(RuntimeError):  # noqa: N818 - a measure's "failed", in the project's words
    """An attack went wrong: the measure has failed, and no image of it counts as robust."""


class Oracle:
    """A model as an attack sees it: logits and gradients, each pass counted.

    A context manager. Inside, the model is in eval mode and its parameters are frozen, so that no
    attack spends time on their gradients; on leaving, every mode and flag is as it was. Where memory
    runs out, passes are made with half as many images from then on.

    Args:
        model: float32 pixels in [0, 1] to logits.
        eot: passes averaged for one gradient, for models that are random at test time (expectation over
            transformations; Athalye, Engstrom, Ilyas and Kwok, 2018, arXiv 1707.07397).
        surrogate: another model to search with in its place, for attacks that do not know the model
            (oblivious ones); verdicts stay the model's.
        forms: where the forms to search with are remembered; None: chosen anew.

    Attributes:
        forward_passes: forward passes so far, summed over the images.
        backward_passes: the same for backward passes.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        eot: int = 1,
        surrogate: nn.Module | None = None,
        forms: Forms | None = None,
    ) -> None:
        self.model = model
        self._forms = forms or Forms()
        self._searched = model if surrogate is None else surrogate
        self.eot = eot
        self.forward_passes = 0
        self.backward_passes = 0
        self._form = self._precise_form = Form(self._searched)
        self._most_rows: int | None = None

    def __enter__(self) -> Self:
        models = {id(model): model for model in (self.model, self._searched)}.values()
        self._modes = [(module, module.training) for model in models for module in model.modules()]
        # A dict: the two may share parameters.
        self._frozen = list(
            {id(p): p for model in models for p in model.parameters() if p.requires_grad}.values()
        )
        self._restore = ExitStack()
        self._restore.callback(self._put_back)
        self._restore.enter_context(exact_float32())
        self._restore.enter_context(torch.inference_mode(False))
        for kind in ("cpu", "cuda"):  # a caller's autocast would lower what is verified
            self._restore.enter_context(torch.autocast(kind, enabled=False))
        for model in models:
            model.eval()
        for parameter in self._frozen:
            parameter.requires_grad_(False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore.close()

    def _put_back(self) -> None:
        for module, training in self._modes:
            module.training = training
        for parameter in self._frozen:
            parameter.requires_grad_(True)

    def prepare(self, images: Tensor, search: str) -> None:
        """Choose the form of the model to search with; without it, searches use the model itself.

        Args:
            images: the first images, float32 ``(N, C, H, W)``.
            search: one of :data:`robustbench_tin.attacks.forms.SEARCHES`.

        Raises:
            InvalidSettingError: for another word.
        """
        self._form, self._precise_form = self._forms.choose(search, self._searched, images)

    @property
    def form(self) -> Form:
        """What searches use."""
        return self._form

    def logits(self, images: Tensor) -> Tensor:
        """The model's own logits, float32 ``(N, C)``, without a graph: what every verdict rests on.

        Raises:
            AttackFailure: where a logit is not finite.
        """
        return self._without_graph(Form(self.model), images)

    def search_logits(self, images: Tensor, *, precise: bool = False) -> Tensor:
        """Logits for a search that takes no gradients, ``(N, C)``, of the form that searches use.

        Args:
            images: float32 ``(N, C, H, W)``.
            precise: never of a lower precision than float32.

        Raises:
            AttackFailure: where a logit is not finite.
        """
        return self._without_graph(self._precise_form if precise else self._form, images)

    def gradient(self, images: Tensor, labels: Tensor, loss: Loss | None = None) -> Tensor:
        """Gradient of each image's own loss with respect to its pixels, ``(N, C, H, W)``.

        Args:
            images: float32 ``(N, C, H, W)``.
            labels: int64 ``(N,)``.
            loss: from logits and labels to a loss per image ``(N,)``; cross-entropy if None.

        Raises:
            AttackFailure: where a logit or a gradient is not finite, or the model cuts the graph.
        """
        # A copy: labels made in inference mode may not be saved for the way back.
        labels = labels.clone()
        gradient = self.ask(
            images, lambda logits, rows: (loss or cross_entropy)(logits, labels[rows])
        ).gradient
        assert gradient is not None
        return gradient

    def ask(self, images: Tensor, loss: RowLoss, *, precise: bool = False) -> Answer:
        """Logits, losses and their gradients at some points, from one forward and backward pass each.

        Args:
            images: float32 ``(N, C, H, W)``.
            loss: from logits ``(n, C)`` and the slice of the rows they belong to, to a loss each ``(n,)``.
            precise: never of a lower precision than float32.

        Raises:
            AttackFailure: where a logit or a gradient is not finite, or the model cuts the graph.
        """
        form = self._precise_form if precise else self._form
        answer = self._in_parts(len(images), lambda rows: self._ask(form, images[rows], loss, rows))
        assert answer.gradient is not None
        if not bool(torch.isfinite(answer.gradient).all()):
            raise AttackFailure("the model's gradient is not finite")
        return answer

    def class_gradients(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``(N, C)`` and the gradient of each with respect to the pixels, ``(N, C, *image)``.

        Raises:
            AttackFailure: as :meth:`ask`.
        """
        with torch.inference_mode(False), torch.enable_grad():
            variable = images.clone().requires_grad_()
            logits = self._forward(self._precise_form, variable)
            self._require_graph(logits)
            columns = [
                torch.autograd.grad(logits[:, column].sum(), variable, retain_graph=True)[0]
                for column in range(logits.shape[1])
            ]
        self.backward_passes += len(images) * len(columns)
        gradients = torch.stack(columns, dim=1)
        if not bool(torch.isfinite(gradients).all()):
            raise AttackFailure("the model's gradient is not finite")
        return logits.detach(), gradients

    def _ask(self, form: Form, images: Tensor, loss: RowLoss, rows: slice) -> Answer:
        logits_sum = losses_sum = gradient_sum = torch.zeros((), device=images.device)
        for _ in range(self.eot):
            with torch.inference_mode(False), torch.enable_grad():
                variable = images.clone().requires_grad_()
                logits = self._forward(form, variable)
                losses = loss(logits, rows)
                self._require_graph(losses)
                (gradient,) = torch.autograd.grad(losses.sum(), variable)
            self.backward_passes += len(images)
            if self.eot == 1:
                return Answer(logits.detach(), losses.detach(), gradient)
            logits_sum = logits_sum + logits.detach()
            losses_sum = losses_sum + losses.detach()
            gradient_sum = gradient_sum + gradient
        return Answer(logits_sum / self.eot, losses_sum / self.eot, gradient_sum / self.eot)

    def _without_graph(self, form: Form, images: Tensor) -> Tensor:
        def part(rows: slice) -> Answer:
            with torch.inference_mode():
                logits = self._forward(form, images[rows])
            return Answer(logits.clone())

        return self._in_parts(len(images), part).logits

    def _in_parts(self, count: int, part: Callable[[slice], Answer]) -> Answer:
        """The answers of all rows, asked in as many parts as memory needs."""
        answers: list[Answer] = []
        start = 0
        while start < count or not answers:
            stop = min(count, start + (self._most_rows or count))
            try:
                answers.append(part(slice(start, stop)))
            except torch.OutOfMemoryError:
                if stop - start <= 1:
                    raise AttackFailure("out of memory with a single image") from None
                self._most_rows = (stop - start) // 2
                continue
            start = stop
        whole = answers[0]
        for answer in answers[1:]:
            whole.extend(answer)
        return whole

    def _forward(self, form: Form, images: Tensor) -> Tensor:
        logits: object = form.logits(images)
        self.forward_passes += len(images)
        if not isinstance(logits, Tensor):
            raise AttackFailure(f"the model returned {type(logits).__name__}; expected logits (N, classes)")
        if logits.ndim != 2 or len(logits) != len(images):
            raise AttackFailure(f"the model returned {tuple(logits.shape)}; expected logits (N, classes)")
        if not bool(torch.isfinite(logits).all()):
            raise AttackFailure("the model's logits are not finite")
        return logits.float()

    @staticmethod
    def _require_graph(losses: Tensor) -> None:
        if not losses.requires_grad:
            raise AttackFailure("the model's logits have no gradient with respect to its pixels")
