"""The configs of ``bench``: the only list of its options.

To add an option, add a field to a config. The command line, ``bench(...)``, presets and docs/options.md then
have it. So do the plan and its fingerprint, if it stands in :class:`AttackConfig` or :class:`TrainingConfig`.
Imports nothing heavy, because ``robust-tin --help`` reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from robustbench_tin.models.model_config import ModelConfig
from robustbench_tin.options import Config, option
from robustbench_tin.training.settings import TrainingSettings

Names = str | Sequence[str]
"""Names, as a sequence or with commas between them."""

if TYPE_CHECKING:
    from robustbench_tin.attacks.base import Attack
    from robustbench_tin.defenses.base import Defense

    Attacks = str | Attack | Sequence[str | Attack]
    Defenses = str | Defense | Sequence[str | Defense]
else:
    # A command line and a preset have names only, and their checks read these types.
    Attacks = Defenses = Names


@dataclass(frozen=True, kw_only=True)
class CellConfig(Config, panel="Run"):
    """The cells that are trained: every backbone × defense × seed."""

    models: Names = option("all", "Backbones: names, patterns (densenet*), timm:NAME, or all.")
    defenses: Defenses = option("none", "Defenses, combined with +: none,bbox-crop+fgsm-at.")
    seeds: str | int | Sequence[int] = option("0", "Seeds, such as 0,1,2; one cell is trained for each.")
    plugins: Sequence[str | Path] = option(
        (),
        "A Python file that registers attacks, defenses, backbones or data sets. Repeatable.",
        flag="plugin",
        metavar="FILE.py",
        panel="Options",
    )


@dataclass(frozen=True, kw_only=True)
class MeasurementConfig(Config, panel="Attack"):
    """The attacks, their threat model, and how they run on any model."""

    attacks: Attacks = option(
        "fgsm,pgd", "Attacks, with settings after a colon: fgsm,pgd:steps=20.", resolved=True
    )
    eps: str | float | Sequence[float] = option(
        "0.0,0.01,0.03",
        "Budgets in units of the pixel range [0, 1]; 8/255 works. 0 is the clean measurement.",
        resolved=True,
    )
    norm: str = option("linf", "Norm of the threat model: linf or l2.")
    curve: bool = option(
        False,
        "Take the budgets as a ladder: each attacks only the images that survive the smaller ones. Adds the"
        " median of the smallest eps at which an image is adversarial. Top-1 only, for a fixed budget.",
    )
    worst_case: bool = option(False, "Add the accuracy on images that are right under every attack.")
    eot: int = option(
        1,
        "Number of passes averaged for one gradient, for defenses that are random at test time.",
        at_least=1,
    )
    eight_bit: bool = option(
        False, "Round adversarial images to 8 bits before they are measured.", flag="8bit"
    )
    search: str | None = option(
        None,
        "Variant of the model that attacks search with: exact (the model itself), fixed (batch norm folded,"
        " TF32 on GPUs that have it), fastest (by timing, of those that agree with the model), auto (fastest"
        " for attacks that stop on success, else fixed). The model itself verifies each success in float32.",
        shown="auto",
        resolved=True,
    )
    trust: bool = option(True, "Check each cell's results for signs that they are unreliable.")
    deterministic: bool = option(
        False, "Choose nothing by timing; the same as --search fixed.", resolved=True
    )


@dataclass(frozen=True, kw_only=True)
class AttackConfig(MeasurementConfig, panel="Attack"):
    """The same for models with defenses."""

    oblivious: bool = option(
        False, "Attack the bare classifier, as an attacker who does not know the defense around it."
    )


@dataclass(frozen=True, kw_only=True)
class EvaluationDataConfig(Config, panel="Data"):
    """The data set, and the part of it that a model is measured on."""

    data: str = option(
        "demo",
        "Data set: demo, tiny-imagenet, cifar10, cifar100, imagenet:DIR, hf:NAME, npz:FILE, folder:PATH, or"
        " the path of a directory or a zip file. Settings follow it: imagenet:DIR,size=256,crop=224.",
    )
    classes: int | str | Sequence[str] | None = option(
        None, "Number of classes, or their ids with commas between them.", shown="all"
    )
    eval_images: int | None = option(
        None, "Number of validation images in all.", shown="all; 200 of the demo set"
    )


@dataclass(frozen=True, kw_only=True)
class DataConfig(EvaluationDataConfig, panel="Data"):
    """The data set; a plan knows it by its fingerprint and its numbers of classes and images."""

    train_per_class: int | None = option(None, "Number of training images of each class.", shown="all")
    skip_broken: bool = option(False, "Leave unreadable images out and count them.")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(TrainingSettings, panel="Training"):
    """The network, the weights that it starts from, and how the loop trains it."""

    image_size: int | None = option(
        None,
        "Image side in pixels that the network sees; images are resized inside the classifier.",
        shown="the images' or the smallest; 32 for large backbones on the demo set",
    )
    interpolation: str | None = option(
        None,
        "How images are resized: nearest, bilinear, bicubic or area.",
        shown="bilinear",
        resolved=True,
    )
    cut: int | None = option(
        None,
        "Number of last stages of a VGG, ResNet, Inception or DenseNet to drop; a new head follows.",
        shown="0",
        resolved=True,
    )
    pretrained: bool = option(False, "Start from timm's published weights.")
    weights: str | Path | None = option(
        None, "Start from the weights in this file (safetensors or torch).", resolved=True
    )
    head: str = option(
        "new",
        "Start of the head: new, or published: the rows of the weights' own head for the data's classes, if"
        " these are ImageNet's.",
        choices=("new", "published"),
    )
    device: str | None = option(
        None, "Device: cpu, cuda, cuda:1 or mps.", shown="the best there is", resolved=True
    )
    precision: str | None = option(
        None,
        "Precision of training: float32 or bfloat16.",
        shown="the one that the device is fast in",
        choices=("float32", "bfloat16"),
    )
    compile: bool = option(
        False, "Train with torch.compile; if that fails, training says so and continues without."
    )


@dataclass(frozen=True, kw_only=True)
class OutputConfig(Config, panel="Run"):
    """What is written and shown; it changes no number, so it is in no plan."""

    out: str | Path | None = option(
        None,
        "Run directory; the same command continues the run in it.",
        shown="runs/ and a name made from the plan",
    )
    jobs: int | None = option(
        None,
        "Number of cells that run side by side, each in a process with its share of the cores or a GPU.",
        shown="as many as cores, GPUs and memory allow",
        at_least=1,
        in_preset=False,
    )
    threads: int | None = option(
        None,
        "Number of CPU threads of each cell; on a CPU, the weights that training ends with depend on it.",
        shown="the cores divided by the jobs",
        at_least=1,
        in_preset=False,
    )
    preset: str | Path | None = option(
        None,
        "Take the options of a preset, see robust-tin presets; options given beside it win.",
        metavar="NAME|FILE.toml",
        in_preset=False,
    )
    dry_run: bool = option(
        False, "Check everything, say which cells would run and for how long, and stop.", in_preset=False
    )
    print_plan: bool = option(False, "As --dry-run, with each cell and each setting.", in_preset=False)
    checkpoint_minutes: float = option(
        10.0,
        "Minutes between two checkpoints; one also follows each epoch that ends a tenth of that or more after"
        " the last.",
        at_least=0,
        example=10,
        panel="Training",
    )
    curves: str = option(
        "clean",
        "Training curves, one row an epoch in curves.csv: none; clean, on some validation images (one for 40"
        " training images, 64 to 1000); robust, also on these under FGSM and PGD-5.",
        choices=("none", "clean", "robust"),
        panel="Training",
    )
    tensorboard: bool = option(
        False, "Also write the curves as TensorBoard events, in the run's tensorboard/.", panel="Training"
    )
    skip_missing_weights: bool = option(
        False,
        "If a backbone's published weights cannot be downloaded, mark it as not measured and continue with"
        " the others.",
        panel="Training",
    )


@dataclass(frozen=True, kw_only=True)
class TrackingConfig(Config, panel="Tracking"):
    """Services that follow a run; they change no number, so they are in no plan."""

    mlflow: str | None = option(
        None,
        "Show the run in MLflow, one tracked run for each cell: the URI of a tracking server, such as"
        " http://localhost:5000.",
        metavar="URI",
    )
    wandb: str | None = option(
        None,
        "Show the run in Weights & Biases, one tracked run for each cell, in this project; robust-tin if the"
        " option stands alone.",
        metavar="[PROJECT]",
        alone="robust-tin",
    )


@dataclass(frozen=True, kw_only=True)
class TableConfig(Config, panel="Tables"):
    """How tables are shown; only the command line has these options."""

    by: str = option(
        "run", "Tables: run, one for all attacks; attack, one for each.", choices=("run", "attack")
    )
    per_seed: bool = option(
        False,
        "Give each seed a row. Otherwise a row has the mean over seeds ± their standard deviation.",
        in_preset=False,
    )
    intervals: bool = option(
        False,
        "Show the 95 % interval of each figure; over several seeds it covers seeds and images.",
        in_preset=False,
    )


@dataclass(frozen=True, kw_only=True)
class BenchConfig(TrackingConfig, OutputConfig, TrainingConfig, DataConfig, AttackConfig, CellConfig):
    """All options of ``bench``; None leaves the choice to the data set or the backbone.

    A dataclass takes the fields of its last base first: the help shows the cells first, tracking last.
    """


@dataclass(frozen=True, kw_only=True)
class UserModelConfig(ModelConfig, panel="Model"):
    """The model that a gate command measures instead of reading a run."""

    model: str | None = option(
        None,
        "Model to measure instead of a run: package.module:factory, FILE.py:factory, a backbone's name,"
        " timm:NAME, hf-hub:NAME, or a file: TorchScript (.pt), torch.export (.pt2), ONNX.",
    )
    weights: Sequence[Path] = option(
        (),
        "Weights file that is loaded into the factory's model or the backbone. Repeatable: each file is one"
        " training (the first is seed 0), and their spread is what a re-training is judged by.",
    )
    attacks: str = option("fgsm,pgd", "Attacks, with settings after a colon: fgsm,pgd:steps=10.")
    eps: str = option("0.01,0.03", "Budgets in units of the pixel range: 0.01,8/255.")
    norm: str = option("linf", "Norm of the threat model: linf or l2.")
    trust: bool = option(True, "Check the results for signs that they are unreliable.")


@dataclass(frozen=True, kw_only=True)
class NamedModelsConfig(Config, panel="Model"):
    """The trained models that ``evaluate`` measures, a row of the table each."""

    models: Sequence[str] = option(
        (),
        "Trained model: package.module:factory, FILE.py:factory, a file (TorchScript .pt, torch.export .pt2,"
        " ONNX), a backbone's name or timm:NAME with --weights or --pretrained, or hf-hub:NAME. Repeatable.",
        flag="model",
        metavar="MODEL",
    )
    weights: Sequence[str | Path] = option(
        (),
        "Weights file of a backbone or a factory's model. Give one for each backbone, or one for each --model"
        " that takes one, in their order. Several for a single --model are a row each.",
        metavar="FILE",
    )
    names: Sequence[str] = option(
        (),
        "Name of a model in the tables, one for each row.",
        shown="made from the model",
        flag="name",
        metavar="NAME",
    )


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(TrackingConfig, MeasurementConfig, EvaluationDataConfig, ModelConfig, NamedModelsConfig):
    """All options of ``evaluate``; a dataclass takes the fields of its last base first."""

    attacks: Attacks = option(
        "fast",
        "Attacks, with settings after a colon: fast,pgd:steps=20. fast stops on success and comes near to"
        " autoattack, the reference, for a small part of its passes.",
        resolved=True,
        panel="Attack",
    )
    skip_broken: bool = option(False, "Leave unreadable images out and count them.", panel="Data")
    seed: int = option(0, "Seed of the attacks' randomness.", at_least=0, panel="Attack")
    device: str | None = option(
        None, "Device: cpu, cuda, cuda:1 or mps.", shown="the best there is", panel="Run"
    )
    threads: int | None = option(
        None, "Number of CPU threads.", shown="as many as torch takes", at_least=1, panel="Run"
    )
    plugins: Sequence[str | Path] = option(
        (),
        "A Python file that registers attacks, backbones or data sets. Repeatable.",
        flag="plugin",
        metavar="FILE.py",
        panel="Options",
    )
    out: str | Path | None = option(
        None,
        "Run directory; the same command continues the run in it.",
        shown="runs/ and a name made from the plan",
        panel="Run",
    )
