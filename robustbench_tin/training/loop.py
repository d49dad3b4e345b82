"""The training loop: plain torch, readable from top to bottom."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_tin.data.base import Split
from robustbench_tin.errors import InvalidSettingError, RunError
from robustbench_tin.runtime import Runtime, as_tensor
from robustbench_tin.training.averaging import Average
from robustbench_tin.training.checkpoint import (
    Checkpoint,
    Saved,
    optimizer_tensors,
    random_states,
    restore_optimizer,
    restore_random,
)
from robustbench_tin.training.context import Context, TrainingHooks, no_other
from robustbench_tin.training.curves import Curves
from robustbench_tin.training.distributed import SINGLE_PROCESS, ProcessGroup
from robustbench_tin.training.epoch_plan import Epoch, EpochSampler, epoch_plan
from robustbench_tin.training.loss_log import Losses
from robustbench_tin.training.monitor import Monitor, Probe, hold_out, some
from robustbench_tin.training.optimiser import build_optimizer, set_rate
from robustbench_tin.training.progressive import trained_at
from robustbench_tin.training.recipe import Recipe, TrainingFailure, TrainingRecord
from robustbench_tin.training.stages import train_only
from robustbench_tin.training.step import Stepper

__all__ = ["Recipe", "TrainingFailure", "TrainingRecord", "to_float", "train"]

# Number of steps between checks of the loss within an epoch.
LOSS_CHECK_INTERVAL = 20


def train(
    classifier: nn.Module,
    split: Split,
    defense: TrainingHooks,
    recipe: Recipe,
    runtime: Runtime,
    *,
    num_classes: int,
    seed: int,
    on_step: Callable[[int, int], None] | None = None,
    trained: Callable[[str], nn.Module] = no_other,
    probe: Probe | None = None,
    checkpoint: Checkpoint | None = None,
    curves: Curves | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
) -> TrainingRecord:
    """Train a classifier in place; the same arguments give the same weights on the same machine.

    Args:
        classifier: maps pixels in [0, 1] ``(N, 3, H, W)`` to logits ``(N, C)``.
        split: the training images, uint8.
        defense: its hooks change the training set, the batches, the loss or the step.
        recipe: epochs, batch size, learning rate and the other settings.
        runtime: device, precision, layout.
        num_classes: number of classes of the classifier.
        seed: seed of the image order, the defense's randomness and dropout.
        trained: gives the defense other trained classifiers by name.
        on_step: called with the number of steps taken and of all steps.
        probe: attacks the classifier after each epoch, for early stopping and for the monitor of single-step
            training; None for no monitor.
        checkpoint: written during training; if the file exists, training continues from it and gives the same
            weights as without the interruption. The caller removes it after saving the weights.
        curves: gets a point after each epoch; weights and seconds are the same without it.
        group: the processes that train together; each calls this with the same arguments. The weights of the
            first process are the result.

    Returns:
        The record of the training: number of images and steps, seconds, loss and notes.

    Raises:
        TrainingFailure: if the loss is no longer finite; the checkpoint is from before.
        InvalidSettingError: for early stopping without a probe.
        RunError: if the checkpoint is damaged or belongs to another training, or the curves are damaged.
    """
    if recipe.early_stop is not None and probe is None:
        raise InvalidSettingError("early_stop needs robust accuracies; give train() a probe")
    run = _Run(
        classifier,
        split,
        defense,
        recipe,
        runtime,
        num_classes,
        seed,
        trained,
        probe,
        checkpoint,
        curves,
        group,
    )
    forked = [run.device] if run.device.type == "cuda" else []
    with torch.random.fork_rng(devices=forked):
        torch.manual_seed(seed)
        run.resume()
        if run.curves is not None:
            run.curves.resume(run.epoch)
        while run.epoch < len(run.epochs) and not run.ended:
            run.train_epoch(run.epochs[run.epoch], on_step)
        run.finish()
    return run.record()


class _Run:
    """One training in progress."""

    def __init__(
        self,
        classifier: nn.Module,
        split: Split,
        defense: TrainingHooks,
        recipe: Recipe,
        runtime: Runtime,
        num_classes: int,
        seed: int,
        trained: Callable[[str], nn.Module],
        probe: Probe | None,
        checkpoint: Checkpoint | None,
        curves: Curves | None,
        group: ProcessGroup,
    ) -> None:
        self.started = time.perf_counter()
        self.classifier, self.defense, self.recipe, self.runtime = classifier, defense, recipe, runtime
        self.device = device = runtime.torch_device
        self.group, self.seed = group, seed
        self.checkpoint, self.curves = checkpoint, curves if group.is_main else None
        self.identity = {
            "recipe": asdict(recipe),
            "defense": str(defense),
            "seed": seed,
            "processes": group.size,
        }
        self.notes: list[str] = []
        self.context = Context(
            generator=torch.Generator(device).manual_seed(seed),
            device=device,
            num_classes=num_classes,
            epochs=recipe.epochs,
            note=self.notes.append,
            trained=trained,
            label_smoothing=recipe.label_smoothing,
        )
        looked_at = some(split, seed) if probe is not None and defense.single_step else None
        if recipe.early_stop is not None:
            split, looked_at = hold_out(split, seed)
        prepared = defense.prepare(split, self.context)
        self.images = as_tensor(prepared.images).to(device)
        self.labels = as_tensor(prepared.labels).to(device)
        self.order = EpochSampler(len(self.images), recipe.batch_size, seed)
        self.epochs = epoch_plan(recipe, defense.replays, self.order.batches)
        self.context.epochs = len(self.epochs)
        self.steps = sum(epoch.steps for epoch in self.epochs)

        runtime.place(classifier)
        self.candidates = [parameter for parameter in classifier.parameters() if parameter.requires_grad]
        self.average = Average(recipe.average, classifier)
        self.monitor = None
        if probe is not None and looked_at is not None and group.is_main:
            self.monitor = Monitor(
                as_tensor(looked_at.images).to(device),
                as_tensor(looked_at.labels).to(device),
                probe,
                patience=recipe.early_stop,
                single_step=defense.single_step,
            )
        self.stepper = Stepper(classifier, defense, self.context, runtime, recipe.clip_norm, group)
        # The state of training: epoch, batch within it, True if it ended early.
        self.epoch = 0
        self.batch = 0
        self.ended = False
        self.optimizer: torch.optim.Optimizer | None = None
        self.stage = -1
        self.losses = Losses(self.epochs[0].steps, device)

    def train_epoch(self, epoch: Epoch, on_step: Callable[[int, int], None] | None) -> None:
        """Train on the remaining batches of an epoch, then run its end."""
        with trained_at(self.classifier, self.recipe.progressive, self.epoch, len(self.epochs)):
            self.train_batches(epoch, on_step)
        self.end_epoch(epoch)

    def train_batches(self, epoch: Epoch, on_step: Callable[[int, int], None] | None) -> None:
        """Train on the remaining batches of an epoch; inside, nothing waits for the device."""
        context = self.context
        context.epoch, context.steps_per_epoch = self.epoch, epoch.steps
        optimizer = self.begin(epoch)
        done = self.batch * epoch.replays
        for rows in self.order.of_epoch(self.epoch, self.device)[self.batch :]:
            self.group.reseed(context.generator, self.seed, context.step)
            images, labels = self.shown(rows)
            weight = self.group.weight(len(images), len(rows))
            for _ in range(epoch.replays):
                set_rate(optimizer, self.recipe, epoch.stage_step + done, epoch.stage_steps)
                loss, norm, right = self.stepper.take(
                    optimizer, images, labels, clean=epoch.clean, weight=weight
                )
                self.average.after_step()
                self.losses.record(done, loss, norm, right)
                done += 1
                context.step += 1
                if done % LOSS_CHECK_INTERVAL == 0:
                    self.losses.glance(done, epoch=self.epoch, lr=optimizer.param_groups[0]["lr"])
                if on_step is not None:
                    on_step(context.step, self.steps)
            self.batch += 1
            if self.batch < self.order.batches and self.is_due(epoch_over=False):
                self.require_finite(done)
                self.save()

    def begin(self, epoch: Epoch) -> torch.optim.Optimizer:
        """Select the trained parameters; a new stage gets a new optimiser."""
        number, stage = epoch.stage
        train_only(self.classifier, stage.part, self.candidates)
        if self.optimizer is None or self.stage != number:
            self.optimizer, self.stage = build_optimizer(self.classifier, self.recipe, stage), number
            self.stepper.trains_others()
        if self.batch == 0:
            self.losses = Losses(epoch.steps, self.device)
        return self.optimizer

    def shown(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """This process's share of a batch, as the defense shows it to the classifier."""
        rows = self.group.share(rows)
        return self.defense.augment(
            to_float(self.images[rows], self.runtime), self.labels[rows], self.context
        )

    def end_epoch(self, epoch: Epoch) -> None:
        """Update the average, measure, call the defense's hook, and save."""
        self.require_finite(epoch.steps)
        self.average.after_epoch(self.epoch, len(self.epochs))
        self.losses.values = self.group.mean(self.losses.values)
        reason = None
        with self.average.shown():
            if self.monitor is not None and not epoch.clean:
                reason = self.monitor.look(self.classifier, self.epoch)
            if self.curves is not None:
                self.draw(self.curves, epoch)
        if reason is not None:
            self.notes.append(reason)
        ended = self.defense.after_epoch(self.classifier, self.context) or reason is not None
        self.ended = self.group.broadcast(ended)
        self.epoch, self.batch = self.epoch + 1, 0
        if self.is_due(epoch_over=True):
            self.save()

    def draw(self, curves: Curves, epoch: Epoch) -> None:
        """Add a point to the curves; its time does not count as training time."""
        begun = time.perf_counter()
        top1, top5 = self.losses.accuracy(len(self.images) * epoch.replays / self.group.size)
        known = {"train_loss": self.losses.mean(), "train_top1": top1, "train_top5": top5}
        if self.monitor is not None and self.monitor.seen is not None and not epoch.clean:
            known |= {"monitor_fgsm": self.monitor.seen.fgsm, "monitor_pgd5": self.monitor.seen.pgd}
        curves.add(self.classifier, self.epoch + 1, **known)
        self.started += time.perf_counter() - begun

    def finish(self) -> None:
        """Set the final weights, in eval mode, with the gradient flags of the start."""
        if self.group.broadcast(self.monitor is not None and self.monitor.decides):
            if self.monitor is not None:
                self.classifier.load_state_dict(self.monitor.kept)
        else:
            # The average must not change statistics that the last stage froze.
            train_only(self.classifier, self.recipe.stages[max(self.stage, 0)].part, self.candidates)
            self.average.finish(self.classifier, self.ask_about, self.order.batches)
        train_only(self.classifier, "all", self.candidates)
        self.classifier.zero_grad(set_to_none=True)
        self.classifier.eval()

    def ask_about(self, batch: int) -> None:
        """Pass a batch through the classifier as in training, adversarial images included, without a step."""
        order = self.order.of_epoch(len(self.epochs), self.device)
        taken, self.context.step = self.context.step, self.context.step + batch
        images, labels = self.shown(order[batch])
        with self.runtime.autocast():
            objective = self.defense.objective(self.classifier, images, labels, self.context)
            with torch.no_grad():
                objective()
        self.context.step = taken

    def record(self) -> TrainingRecord:
        return TrainingRecord(
            images=len(self.images),
            steps=self.context.step,
            seconds=time.perf_counter() - self.started,
            loss=self.losses.mean(),
            notes=tuple(self.notes),
        )

    def require_finite(self, done: int) -> None:
        assert self.optimizer is not None
        self.losses.require_finite(done, epoch=self.epoch, lr=self.optimizer.param_groups[0]["lr"])

    def is_due(self, *, epoch_over: bool) -> bool:
        checkpoint = self.checkpoint if self.group.is_main else None
        return checkpoint is not None and checkpoint.due(epoch_over=epoch_over)

    def save(self) -> None:
        """Save the state that :meth:`resume` needs."""
        assert self.checkpoint is not None
        assert self.optimizer is not None
        owners = {
            "classifier": self.classifier.state_dict(),
            "optimizer": optimizer_tensors(self.optimizer),
            "average": self.average.shadow,
            "kept": {} if self.monitor is None else self.monitor.kept,
            "memory": self.context.memory,
            "random": random_states(self.context.generator, self.device),
            "losses": {"values": self.losses.values},
        }
        facts: dict[str, Any] = {
            "of": self.identity,
            "epoch": self.epoch,
            "batch": self.batch,
            "step": self.context.step,
            "ended": self.ended,
            "stage": self.stage,
            "part": self.stepper.part,
            "averaged": self.average.count,
            "monitor": None if self.monitor is None else self.monitor.facts(),
            "notes": self.notes,
            "seconds": time.perf_counter() - self.started,
        }
        tensors = {f"{owner}/{name}": value for owner, each in owners.items() for name, value in each.items()}
        self.checkpoint.save(Saved(tensors, facts))

    def resume(self) -> None:
        """Continue from the checkpoint, if there is one."""
        saved = None if self.checkpoint is None else self.checkpoint.load(self.device)
        if saved is None:
            return
        facts = saved.facts
        if facts["of"] != self.identity:
            assert self.checkpoint is not None
            raise RunError(
                f"checkpoint '{self.checkpoint.path}' belongs to another training; remove it to train that"
                " cell from the start"
            )
        self.classifier.load_state_dict(saved.of("classifier"))
        self.average.restore(saved.of("average"), facts["averaged"])
        self.context.memory.update(saved.of("memory"))
        self.context.step = facts["step"]
        if self.monitor is not None:
            self.monitor.restore(facts["monitor"], saved.of("kept"))
        self.epoch, self.batch, self.ended = facts["epoch"], facts["batch"], facts["ended"]
        self.losses.values = saved.of("losses")["values"]
        self.stepper.part = facts["part"]
        self.notes[:] = facts["notes"]
        self.started -= facts["seconds"]
        if facts["stage"] >= 0:
            self.stage = facts["stage"]
            stage = self.recipe.stages[self.stage]
            train_only(self.classifier, stage.part, self.candidates)
            self.optimizer = build_optimizer(self.classifier, self.recipe, stage)
            restore_optimizer(self.optimizer, saved.of("optimizer"))
        restore_random(self.context.generator, self.device, saved.of("random"))


def to_float(images: Tensor, runtime: Runtime) -> Tensor:
    """uint8 images as float32 in [0, 1], in the runtime's layout."""
    layout = torch.channels_last if runtime.channels_last else torch.contiguous_format
    return images.to(torch.float32, memory_format=layout).div_(255)
