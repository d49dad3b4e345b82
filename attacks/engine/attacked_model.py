"""The attacked model: a model as an attack sees it, every pass counted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn

from robustbench_tin.attacks.acceleration.agreement import distance
from robustbench_tin.attacks.acceleration.variants import ModelVariant, SelectedVariants, VariantCache
from robustbench_tin.attacks.engine.restoring import Kept
from robustbench_tin.attacks.engine.rng import own_randomness, seed_randomness
from robustbench_tin.attacks.engine.spot_checks import WrongVariantError
from robustbench_tin.attacks.engine.state import ModelOutput
from robustbench_tin.attacks.losses import cross_entropy
from robustbench_tin.errors import one_line
from robustbench_tin.runtime import is_asynchronous, is_out_of_memory
from robustbench_tin.strict_float32 import exact_float32

Loss = Callable[[Tensor, Tensor], Tensor]
RowLoss = Callable[[Tensor, slice], Tensor]
Length = Callable[[Tensor], Tensor]
Choose = Callable[[Tensor, Tensor], Tensor]

_LOGITS, _GRADIENT = 1, 2
_NOT_FINITE = {
    _LOGITS: "the model's logits are not finite",
    _GRADIENT: "the model's gradient is not finite",
}
# Random state and float precision are the whole process's, modes and buffers the model's: one at a time.
_TURN = threading.RLock()


class AttackFailure(RuntimeError):  # noqa: N818 - a measure's "failed", in the project's words
    """An attack went wrong: the measure has failed, and no image of it counts as robust."""


class AttackedModel:
    """A model as an attack sees it: logits and gradients, each pass counted.

    A context manager. Inside, the model is in eval mode and its parameters are frozen, so that no
    attack spends time on their gradients; on leaving, every mode, flag, weight and buffer is as it was. Where
    memory runs out, passes are made with half as many images from then on. What the model draws from the
    random states of torch, NumPy and Python (a defense that is random at test time) follows from the seed
    alone, and these states too are as they were on leaving.

    Only one thread is inside an attacked model at a time, whatever its model; others wait for their turn.

    A logit or a gradient that is not finite is an :class:`AttackFailure`: at once on a CPU. On other devices
    the host would have to wait for each pass, so it is only noted there, and raised by the next
    :meth:`require_finite`, by the next :meth:`logits`, or on leaving.

    Args:
        model: float32 pixels in [0, 1] to logits.
        eot: passes averaged for one gradient, for models that are random at test time (expectation over
            transformations; Athalye, Engstrom, Ilyas and Kwok, 2018, arXiv 1707.07397).
        surrogate: another model to search with in its place, for attacks that do not know the model
            (oblivious ones); verdicts stay the model's.
        variants: where the variants to search with are remembered; None: chosen anew.
        seed: of the model's own randomness.

    Passes by which a variant is chosen and checked are not counted: they are no attack's.

    Attributes:
        forward_passes: forward passes so far, summed over the images.
        backward_passes: the same for backward passes.
        variant_passes: passes of both kinds of them that another variant than the model made.
        on_variant: given the images, float32 ``(N, C, H, W)``, that another variant than the model was asked
            about.
        used_variants: variants other than the model that were searched with, by the identity of their
            modules.
        wrong_variant: how one of them was found to be wrong; None: none was.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        eot: int = 1,
        surrogate: nn.Module | None = None,
        variants: VariantCache | None = None,
        seed: int = 0,
    ) -> None:
        self.model = model
        self._variants = variants or VariantCache()
        self._searched = model if surrogate is None else surrogate
        self.eot = eot
        self._seed = seed
        self._device = next((p.device for p in (*model.parameters(), *model.buffers())), torch.device("cpu"))
        self.forward_passes = 0
        self.backward_passes = 0
        self.variant_passes = 0
        self.on_variant: Callable[[Tensor], None] | None = None
        self.used_variants: dict[int, ModelVariant] = {}
        self.wrong_variant: WrongVariantError | None = None
        self._chosen: SelectedVariants | None = None
        self._most_rows: int | None = None
        self._noted_images: Tensor | None = None
        self._noted_logits: Tensor | None = None
        # The first thing that was not finite since the last look, 0 for none; on the device.
        self._fault: Tensor | None = None

    def __enter__(self) -> Self:
        with ExitStack() as entered:
            entered.enter_context(_TURN)
            entered.enter_context(own_randomness(self._device))
            entered.enter_context(exact_float32())
            entered.enter_context(torch.inference_mode(False))
            for kind in ("cpu", "cuda"):  # a caller's autocast would lower what is verified
                entered.enter_context(torch.autocast(kind, enabled=False))
            models = {id(model): model for model in (self.model, self._searched)}.values()
            self._kept = entered.enter_context(Kept(list(models)))
            self.reseed(self._seed)
            self._restore = entered.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.require_finite()
        finally:
            self._fault = None
            self._restore.close()

    def reseed(self, *key: int | str) -> None:
        """Start the model's own randomness anew; only inside, where the random states are lent.

        Args:
            key: what it follows from; other keys give independent draws, also of those of an attack's
                generator.
        """
        seed_randomness(self._device, *key)

    def prepare(self, images: Tensor, search: str) -> None:
        """Choose the variant of the model to search with; without it, searches use the model itself.

        Args:
            images: some that stand for those to be attacked, float32 ``(N, C, H, W)``.
            search: one of :data:`robustbench_tin.attacks.acceleration.variants.SEARCHES`.

        Raises:
            InvalidSettingError: for another word.
        """
        self._chosen = self._variants.choose(search, self._searched, images)
        self.used_variants = {}

    def refute_variant(self, error: WrongVariantError) -> None:
        """Search with the model itself from now on.

        Args:
            error: how the variant was found to be wrong.
        """
        self.wrong_variant = error
        self._variants.refute(error.label)
        self.used_variants = {}

    def apart(self, images: Tensor, logits: Tensor | None = None) -> list[tuple[ModelVariant, int]]:
        """How often each variant that was searched with answers otherwise than the model that it is of.

        No random number of an attack is drawn, and a random model draws the same for both. This waits for the
        device.

        Args:
            images: float32 ``(N, C, H, W)``.
            logits: the model's own at the first of them, ``(n, C)``, in whatever company; at the others it is
                asked. None: at all.

        Returns:
            The variants, and the number of images whose answers lie further apart than rounding explains.
        """
        model = ModelVariant(self._searched)
        known = len(logits) if logits is not None and self._searched is self.model else 0
        before = self.forward_passes, self.variant_passes, self.on_variant
        self.on_variant = None
        found = []
        with own_randomness(self._device):
            others = [self._alike(model, images[known:])] if known < len(images) else []
            ours = torch.cat([logits, *others]) if known and logits is not None else others[0]
            for variant in self.used_variants.values():
                theirs = self._alike(variant, images)
                apart = int((distance(theirs, ours) > variant.limit).sum())
                if apart and known:
                    # An answer may follow from the images beside it, or from what was drawn.
                    apart = int((distance(theirs, self._alike(model, images)) > variant.limit).sum())
                found.append((variant, apart))
        self.forward_passes, self.variant_passes, self.on_variant = before
        return found

    def _alike(self, variant: ModelVariant, images: Tensor) -> Tensor:
        """Logits of a variant, with the same draws each time; some may be no numbers."""
        self.reseed("agreement")

        def part(rows: slice) -> ModelOutput:
            with variant.arithmetic(), torch.inference_mode(False), torch.no_grad():
                logits = self._called(variant, images[rows])
            assert isinstance(logits, Tensor)
            return ModelOutput(logits.float().clone())

        return self._in_parts(len(images), part).logits

    @property
    def search_label(self) -> str:
        """Precision and variant of the model that searches use, as the records say it."""
        return ModelVariant(self._searched).label if self._chosen is None else self._chosen.labels[0]

    def _variant(self, *, precise: bool = False) -> ModelVariant:
        return self._asked(
            ModelVariant(self._searched) if self._chosen is None else self._chosen.variant(precise=precise)
        )

    def _asked(self, variant: ModelVariant) -> ModelVariant:
        if not variant.is_model:
            self.used_variants[id(variant.module)] = variant
        return variant

    def searches_model(self, *, precise: bool = False) -> bool:
        """Whether what a search is told is, to the last bit, what a verdict would be.

        Args:
            precise: as the search asks.
        """
        label = ModelVariant(self.model).label
        searched = label if self._chosen is None else self._chosen.labels[precise]
        return self._searched is self.model and searched == label

    def _is_model(self, variant: ModelVariant) -> bool:
        return variant.module is self.model and variant.precision == "float32"

    def note(self, images: Tensor) -> None:
        """Keep the logits of exactly these images if an attack happens to ask for a gradient there.

        An attack that starts at the clean images makes the clean measure's passes too.
        """
        self._noted_images, self._noted_logits = images, None

    @property
    def noted(self) -> Tensor | None:
        """The model's own logits of the images last given to :meth:`note`; None: it was not asked there."""
        return self._noted_logits

    def logits(self, images: Tensor) -> Tensor:
        """The model's own logits, float32 ``(N, C)``, without a graph: what every verdict rests on.

        Raises:
            AttackFailure: where a logit is not finite.
        """
        logits = self._without_graph(ModelVariant(self.model), images)
        self.require_finite()
        return logits

    def require_finite(self) -> None:
        """Fail if an answer since the last call was not finite; this waits for the device.

        Raises:
            AttackFailure: says whether a logit or a gradient was the first.
        """
        fault, self._fault = self._fault, None
        if fault is not None and (code := int(fault)):
            raise AttackFailure(_NOT_FINITE[code])

    def _note_if_not_finite(self, values: Tensor, code: int) -> None:
        fault = torch.isfinite(values.detach()).all().logical_not() * code
        self._fault = fault if self._fault is None else torch.where(self._fault > 0, self._fault, fault)
        if not is_asynchronous(values.device):
            self.require_finite()

    def search_logits(self, images: Tensor, *, precise: bool = False) -> Tensor:
        """Logits for a search that takes no gradients, ``(N, C)``, of the variant that searches use.

        Args:
            images: float32 ``(N, C, H, W)``.
            precise: never of a lower precision than float32.

        Raises:
            AttackFailure: where a logit is not finite.
        """
        if precise and self._chosen is not None:
            return self._without_graph(self._asked(self._chosen.answering()), images)
        return self._without_graph(self._variant(), images)

    def tracked(self, images: Tensor) -> Tensor:
        """Logits with their graph, float32 ``(N, C)``, for other libraries, which take gradients themselves.

        Where a gradient is wanted of a model that is random at test time, the mean of as many passes as the
        attacked model was told to average.

        Args:
            images: float32 ``(N, C, H, W)``.

        Raises:
            AttackFailure: as :meth:`ask`; for a gradient that is not finite, once it is taken.
        """
        wanted = torch.is_grad_enabled() and images.requires_grad
        passes = self.eot if wanted else 1
        variant = self._variant(precise=True)
        if wanted:
            # A view, since a hook on a caller's own tensor would outlive this pass.
            images = images.view_as(images)
            images.register_hook(lambda gradient: self._note_gradient(variant, gradient, passes))  # type: ignore[no-untyped-call]
        logits = [self._forward(variant, images) for _ in range(passes)]
        mean = logits[0] if passes == 1 else torch.stack(logits).mean(dim=0)
        if wanted:
            self._require_graph(mean)
        return mean

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

    def ask(
        self, images: Tensor, loss: RowLoss, *, precise: bool = False, eot: int | None = None
    ) -> ModelOutput:
        """Logits, losses and their gradients at some points, from one forward and backward pass each.

        Args:
            images: float32 ``(N, C, H, W)``.
            loss: from logits ``(n, C)`` and the slice of the rows they belong to, to a loss each ``(n,)``.
            precise: never of a lower precision than float32.
            eot: passes averaged for the gradient; None: as the attacked model was made.

        Raises:
            AttackFailure: where a logit or a gradient is not finite, or the model cuts the graph.
        """
        variant = self._variant(precise=precise)
        passes = self.eot if eot is None else eot
        answer = self._finite(
            self._in_parts(len(images), lambda rows: self._ask(variant, images[rows], loss, rows, passes))
        )
        if self._is_model(variant) and _are_same(images, self._noted_images):
            self._noted_logits = answer.logits
        return answer

    def ask_chosen(
        self, images: Tensor, losses: RowLoss, length: Length, choose: Choose, *, precise: bool = False
    ) -> ModelOutput:
        """Like :meth:`ask` with several losses a row, of which each row chooses one.

        All gradients are taken, one after the other, for their lengths; the chosen one is then taken again,
        so that no more than one a row is ever kept (a row of 200 classes would need 200).

        Args:
            images: float32 ``(N, C, H, W)``.
            losses: from logits ``(n, C)`` and the slice of the rows they belong to, to losses ``(n, L)``.
            length: of gradients ``(n, ...)``, ``(n,)``.
            choose: from losses ``(n, L)`` and lengths of their gradients ``(n, L)`` to one loss each, int64
                ``(n,)``.
            precise: never of a lower precision than float32.

        Raises:
            AttackFailure: as :meth:`ask`.
        """
        variant = self._variant(precise=precise)

        def part(rows: slice) -> ModelOutput:
            with variant.arithmetic(), torch.inference_mode(False), torch.enable_grad():
                variable = _variable(images[rows])
                passes = [self._forward(variant, variable) for _ in range(self.eot)]
                logits = passes[0] if self.eot == 1 else torch.stack(passes).mean(dim=0)
                values = losses(logits, rows)
                self._require_graph(values)

                def gradient(of: Tensor) -> Tensor:
                    self._count_backward(variant, len(variable) * self.eot)
                    return torch.autograd.grad(of.sum(), variable, retain_graph=True)[0]

                lengths = [length(gradient(values[:, column])) for column in range(values.shape[1])]
                chosen = choose(values.detach(), torch.stack(lengths, dim=1)).view(-1, 1)
                chosen_values = values.gather(1, chosen).squeeze(1)
                return ModelOutput(logits.detach(), chosen_values.detach(), gradient(chosen_values))

        return self._finite(self._in_parts(len(images), part))

    def _ask(
        self, variant: ModelVariant, images: Tensor, loss: RowLoss, rows: slice, passes: int
    ) -> ModelOutput:
        logits_sum = losses_sum = gradient_sum = torch.zeros((), device=images.device, dtype=torch.float32)
        for _ in range(passes):
            with variant.arithmetic(), torch.inference_mode(False), torch.enable_grad():
                variable = _variable(images)
                logits = self._forward(variant, variable)
                losses = loss(logits, rows)
                self._require_graph(losses)
                (gradient,) = torch.autograd.grad(losses.sum(), variable)
            self._count_backward(variant, len(images))
            if passes == 1:
                return ModelOutput(logits.detach(), losses.detach(), gradient)
            logits_sum = logits_sum + logits.detach()
            losses_sum = losses_sum + losses.detach()
            gradient_sum = gradient_sum + gradient
        return ModelOutput(logits_sum / passes, losses_sum / passes, gradient_sum / passes)

    def _without_graph(self, variant: ModelVariant, images: Tensor) -> Tensor:
        def part(rows: slice) -> ModelOutput:
            # No inference mode: what a model keeps of its first pass must not spoil its gradients later on.
            with variant.arithmetic(), torch.inference_mode(False), torch.no_grad():
                return ModelOutput(self._forward(variant, images[rows]))

        return self._in_parts(len(images), part).logits

    def _in_parts(self, count: int, part: Callable[[slice], ModelOutput]) -> ModelOutput:
        """The answers of all rows, asked in as many parts as memory needs."""
        answers: list[ModelOutput] = []
        start = 0
        while start < count or not answers:
            stop = min(count, start + (self._most_rows or count))
            try:
                answers.append(part(slice(start, stop)))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if stop - start <= 1:
                    raise AttackFailure("out of memory with a single image") from None
                self._most_rows = (stop - start) // 2
                continue
            start = stop
        whole = answers[0]
        for answer in answers[1:]:
            whole.extend(answer)
        return whole

    def called(self, images: Tensor) -> object:
        """What the model itself returns, unchecked, with its graph if gradients are enabled.

        Args:
            images: float32 ``(N, C, H, W)``.
        """
        return self._called(ModelVariant(self.model), images)

    def lacks_gradients(self, images: Tensor) -> str | None:
        """Why the model gives no gradients with respect to its pixels; None: it does.

        Args:
            images: a few that it answers to, float32 ``(N, C, H, W)``.
        """
        try:
            with torch.inference_mode(False), torch.enable_grad():
                variable = _variable(images)
                logits = self.called(variable)
                if not isinstance(logits, Tensor) or not logits.requires_grad:
                    return "its logits do not lead back to its pixels"
                (gradient,) = torch.autograd.grad(logits.float().sum(), variable, allow_unused=True)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            return one_line(error)
        return "its logits do not lead back to its pixels" if gradient is None else None

    def _called(self, variant: ModelVariant, images: Tensor) -> object:
        """What a variant returns; a model that learns as it answers gets parameters that can."""
        try:
            returned = variant.logits(images)
        except RuntimeError as error:
            learns = variant.is_model and not torch.is_grad_enabled() and not is_out_of_memory(error)
            if not (learns and self._kept.thaw()):
                raise
            returned = variant.logits(images)
        self.forward_passes += len(images)
        if not variant.is_model:
            self.variant_passes += len(images)
            if self.on_variant is not None:
                self.on_variant(images.detach())
        return returned

    def _forward(self, variant: ModelVariant, images: Tensor) -> Tensor:
        logits = self._called(variant, images)
        if not isinstance(logits, Tensor):
            raise AttackFailure(f"the model returned {type(logits).__name__}; expected logits (N, classes)")
        if logits.ndim != 2 or len(logits) != len(images):
            raise AttackFailure(f"the model returned {tuple(logits.shape)}; expected logits (N, classes)")
        self._note_if_not_finite(logits, _LOGITS)
        # Not the model's own memory, which its next answer may overwrite.
        return logits.float() if logits.dtype != torch.float32 else logits.clone()

    def _count_backward(self, variant: ModelVariant, passes: int) -> None:
        self.backward_passes += passes
        self.variant_passes += 0 if variant.is_model else passes

    def _note_gradient(self, variant: ModelVariant, gradient: Tensor, passes: int) -> None:
        self._count_backward(variant, len(gradient) * passes)
        self._note_if_not_finite(gradient, _GRADIENT)

    def _finite(self, answer: ModelOutput) -> ModelOutput:
        assert answer.gradient is not None
        self._note_if_not_finite(answer.gradient, _GRADIENT)
        return answer

    @staticmethod
    def _require_graph(losses: Tensor) -> None:
        if not losses.requires_grad:
            raise AttackFailure("the model's logits have no gradient with respect to its pixels")


def _variable(images: Tensor) -> Tensor:
    """The images as a leaf that gradients are taken with respect to, without a copy if possible."""
    images = images.clone() if images.is_inference() else images.detach()
    return images.requires_grad_()


def _are_same(images: Tensor, noted: Tensor | None) -> bool:
    """Whether both are the very same memory."""
    return (
        noted is not None
        and images.data_ptr() == noted.data_ptr()
        and images.shape == noted.shape
        and images.stride() == noted.stride()
    )
