"""The configs of ``bench``: the only list of its options.

To add an option, add a field to a config. The command line, ``bench(...)``, presets and the docs (``make
pages``) then include it; so do the plan and its fingerprint if the config is :class:`AttackConfig` or
:class:`TrainingConfig`. This module imports nothing heavy, because ``robust-tin --help`` reads it.
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
"""Names, as a sequence or as a text separated by commas."""

if TYPE_CHECKING:
    from robustbench_tin.attacks.base import Attack
    from robustbench_tin.defenses.base import Defense

    Attacks = str | Attack | Sequence[str | Attack]
    Defenses = str | Defense | Sequence[str | Defense]
else:
    # A command line and a preset give names only; their checks read these types.
    Attacks = Defenses = Names


@dataclass(frozen=True, kw_only=True)
class CellConfig(Config, panel="Run"):
    """The cells to train: every backbone × defense × seed."""

    models: Names = option("all", "Backbones: names, patterns (densenet*), timm:NAME, or all.")
    defenses: Defenses = option("none", "Defenses; + combines several: none,bbox-crop+fgsm-at.")
    seeds: str | int | Sequence[int] = option("0", "Seeds, such as 0,1,2; each trains one cell.")
    plugins: Sequence[str | Path] = option(
        (),
        "Python file that registers attacks, defenses, backbones or data sets. Repeatable.",
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
        "Budgets, in units of the pixel range [0, 1]; 8/255 is accepted. 0 is the clean measurement.",
        resolved=True,
    )
    norm: str = option("linf", "Norm of the threat model: linf or l2.")
    curve: bool = option(
        False,
        "Treat the budgets as a ladder: each attacks only the images that survive the smaller ones. Adds the"
        " median of the smallest eps at which an image is adversarial. Top-1 only, for a fixed budget.",
    )
    worst_case: bool = option(False, "Add the share of images that are correct under every attack.")
    eot: int = option(
        1,
        "Number of passes averaged per gradient, for defenses that are random at test time.",
        at_least=1,
    )
    eight_bit: bool = option(
        False, "Round adversarial images to 8 bits before they are measured.", flag="8bit"
    )
    search: str | None = option(
        None,
        "Model variant that attacks search with: exact (the model itself), fixed (batch norm folded, TF32 on"
        " GPUs that support it), fastest (the fastest variant that agrees with the model, by timing), auto"
        " (fastest for attacks that stop on success, else fixed). The model itself verifies each success in"
        " float32.",
        shown="auto",
        resolved=True,
    )
    keep_adversarial: int = option(
        0,
        "Number of adversarial images that the run keeps of each attack and eps, as float32: the first"
        " successes in a random order, the same for all cells. gallery and saliency then show these.",
        at_least=0,
    )
    trust: bool = option(True, "Run trust checks: look for signs that a cell's results are unreliable.")
    deterministic: bool = option(
        False, "Choose nothing by timing; the same as --search fixed.", resolved=True
    )


@dataclass(frozen=True, kw_only=True)
class AttackConfig(MeasurementConfig, panel="Attack"):
    """The attack options for models with defenses."""

    oblivious: bool = option(
        False, "Attack the bare classifier, like an attacker who does not know about its defense."
    )


@dataclass(frozen=True, kw_only=True)
class EvaluationDataConfig(Config, panel="Data"):
    """The data set, and the part of it that models are measured on."""

    data: str = option(
        "demo",
        "Data set: demo, tiny-imagenet, cifar10, cifar100, imagenet:DIR, hf:NAME, npz:FILE, folder:PATH, or"
        " the path of a directory or a zip file. Settings follow it: imagenet:DIR,size=256,crop=224.",
    )
    classes: int | str | Sequence[str] | None = option(
        None, "Number of classes, or class ids separated by commas.", shown="all"
    )
    eval_images: int | None = option(
        None, "Total number of validation images to measure.", shown="all; 200 of the demo set"
    )


@dataclass(frozen=True, kw_only=True)
class DataConfig(EvaluationDataConfig, panel="Data"):
    """The data set; a plan stores its fingerprint and its numbers of classes and images."""

    train_per_class: int | None = option(None, "Number of training images per class.", shown="all")
    skip_broken: bool = option(False, "Leave out unreadable images, and count them.")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(TrainingSettings, panel="Training"):
    """The network, its initial weights, and how the training loop trains it."""

    image_size: int | None = option(
        None,
        "Side in pixels of the network's input; the classifier resizes images to it.",
        shown="the images' or the smallest; 32 for large backbones on the demo set",
    )
    interpolation: str | None = option(
        None,
        "Interpolation for resizing images: nearest, bilinear, bicubic or area.",
        shown="bilinear",
        resolved=True,
    )
    cut: int | None = option(
        None,
        "Number of last stages to drop from a VGG, ResNet, Inception or DenseNet; a new head follows.",
        shown="0",
        resolved=True,
    )
    pretrained: bool = option(False, "Start training from timm's published weights.")
    weights: str | Path | None = option(
        None, "File of weights (safetensors or torch) to start training from.", resolved=True
    )
    head: str = option(
        "new",
        "Initial head: new, or published (the rows of the weights' own head for the data's classes, if these"
        " are ImageNet's).",
        choices=("new", "published"),
    )
    device: str | None = option(
        None, "Device to compute on: cpu, cuda, cuda:1 or mps.", shown="the best available", resolved=True
    )
    precision: str | None = option(
        None,
        "Precision of training: float32 or bfloat16.",
        shown="the faster one on the device",
        choices=("float32", "bfloat16"),
    )
    compile: bool = option(
        False, "Train with torch.compile; if it fails, a message says so and training continues without it."
    )


@dataclass(frozen=True, kw_only=True)
class OutputConfig(Config, panel="Run"):
    """Output and progress options; they change no number, so plans do not have them."""

    out: str | Path | None = option(
        None,
        "Run directory; the same command continues the run in it.",
        shown="runs/ and a name made from the plan",
    )
    jobs: int | None = option(
        None,
        "Number of cells that run in parallel, each in a process with its share of the cores or a GPU.",
        shown="as many as cores, GPUs and memory allow",
        at_least=1,
        in_preset=False,
    )
    threads: int | None = option(
        None,
        "Number of CPU threads per cell; on a CPU, the trained weights depend on it.",
        shown="the cores divided by the jobs",
        at_least=1,
        in_preset=False,
    )
    preset: str | Path | None = option(
        None,
        "Preset to take options from, see robust-tin presets; options on the command line win.",
        metavar="NAME|FILE.toml",
        in_preset=False,
    )
    trust_plugins: bool = option(
        False,
        "Run the plug-ins that the preset names. Otherwise bench asks on a terminal, and refuses elsewhere.",
        in_preset=False,
    )
    max_hours: float | None = option(
        None,
        "Stop after this number of hours and keep the results so far: a measurement begins only if it can end"
        " in time; training stops at a checkpoint. The exit code is 75, and the same command continues.",
        shown="no limit",
        above=0,
        example=8,
    )
    dry_run: bool = option(
        False, "Check everything, print the cells and their estimated time, and stop.", in_preset=False
    )
    estimate: bool = option(
        False,
        "Like --dry-run, but print the hours of each backbone and defense, and in total; --jobs N assumes N"
        " such devices, with one cell each.",
        in_preset=False,
    )
    print_plan: bool = option(False, "Like --dry-run, but print each cell and each setting.", in_preset=False)
    checkpoint_minutes: float = option(
        10.0,
        "Minutes between two checkpoints; one is also written after an epoch if the last is at least a tenth"
        " of that old.",
        at_least=0,
        example=10,
        panel="Training",
    )
    curves: str = option(
        "clean",
        "Training curves, one row per epoch in curves.csv: none; clean, on some validation images (1 per 40"
        " training images, 64 to 1000); robust, also on these under FGSM and PGD-5.",
        choices=("none", "clean", "robust"),
        panel="Training",
    )
    tensorboard: bool = option(
        False, "Also write the curves as TensorBoard events, to the run's tensorboard/.", panel="Training"
    )
    skip_missing_weights: bool = option(
        False,
        "If a backbone's published weights cannot be downloaded, mark it as not measured and continue with"
        " the others.",
        panel="Training",
    )


@dataclass(frozen=True, kw_only=True)
class ClusterConfig(Config, panel="Cluster"):
    """The place where the cells run; it changes no number, so it is in no plan."""

    executor: str = option(
        "local",
        "Place where cells run: local, on this machine; ray, as tasks on the nodes of a Ray cluster that"
        " share the run directory. Needs robustbench-tin[ray].",
        choices=("local", "ray"),
    )
    ray_address: str | None = option(
        None,
        "Address of the Ray cluster, such as 10.0.0.1:6379; local starts a new one here.",
        shown="RAY_ADDRESS, else a cluster on this machine, else a new one",
        metavar="ADDRESS",
        in_preset=False,
    )
    gpus_per_cell: float | None = option(
        None,
        "Number of GPUs that Ray gives each cell; 0.5 lets two cells share one.",
        shown="1 on cuda, else 0",
        at_least=0,
        example=0.5,
        in_preset=False,
    )
    shard_minutes: float = option(
        2.0,
        "Least number of minutes of a shard: a longer measurement is divided among Ray tasks, by images and"
        " budgets.",
        at_least=0,
        in_preset=False,
    )


@dataclass(frozen=True, kw_only=True)
class TrackingConfig(Config, panel="Tracking"):
    """Trackers that show a run; they change no number, so plans do not have them."""

    mlflow: str | None = option(
        None,
        "Show the run in MLflow, one tracked run per cell: the URI of a tracking server, such as"
        " http://localhost:5000.",
        metavar="URI",
    )
    wandb: str | None = option(
        None,
        "Show the run in Weights & Biases, one tracked run per cell, in this project; robust-tin if no"
        " project is given.",
        metavar="[PROJECT]",
        alone="robust-tin",
    )


@dataclass(frozen=True, kw_only=True)
class TableConfig(Config, panel="Tables"):
    """Layout of tables; only the command line has these options."""

    by: str = option(
        "run", "Tables: run (one for all attacks) or attack (one per attack).", choices=("run", "attack")
    )
    per_seed: bool = option(
        False,
        "Show one row per seed. Otherwise a row shows the mean over seeds ± their standard deviation.",
        in_preset=False,
    )
    intervals: bool = option(
        False,
        "Show the 95 % interval of each figure; with several seeds it covers seeds and images.",
        in_preset=False,
    )


@dataclass(frozen=True, kw_only=True)
class BenchConfig(
    TrackingConfig, ClusterConfig, OutputConfig, TrainingConfig, DataConfig, AttackConfig, CellConfig
):
    """All options of ``bench``; None leaves the choice to the data set or the backbone.

    A dataclass takes the fields of its last base first: the help shows cells first and tracking last.
    """


@dataclass(frozen=True, kw_only=True)
class UserModelConfig(ModelConfig, panel="Model"):
    """The user's own model that a gate command measures instead of reading a run."""

    model: str | None = option(
        None,
        "Model to measure instead of a run: package.module:factory, FILE.py:factory, a backbone's name,"
        " timm:NAME, hf-hub:NAME, or a file: TorchScript (.pt), torch.export (.pt2), ONNX.",
    )
    weights: Sequence[Path] = option(
        (),
        "Weights file to load into the factory's model or the backbone. Repeatable: each file is one"
        " training (the first is seed 0), and their spread is the yardstick for a re-training.",
    )
    attacks: str = option("fgsm,pgd", "Attacks, with settings after a colon: fgsm,pgd:steps=10.")
    eps: str = option("0.01,0.03", "Budgets, in units of the pixel range [0, 1]: 0.01,8/255.")
    norm: str = option("linf", "Norm of the threat model: linf or l2.")
    trust: bool = option(True, "Run trust checks: look for signs that the results are unreliable.")


@dataclass(frozen=True, kw_only=True)
class NamedModelsConfig(Config, panel="Model"):
    """The trained models that ``evaluate`` measures, one row of the table each."""

    models: Sequence[str] = option(
        (),
        "Trained model: package.module:factory, FILE.py:factory, a file (TorchScript .pt, torch.export .pt2,"
        " ONNX), a backbone's name or timm:NAME with --weights or --pretrained, or hf-hub:NAME. Repeatable.",
        flag="model",
        metavar="MODEL",
    )
    weights: Sequence[str | Path] = option(
        (),
        "Weights file of a backbone or a factory's model. Give one per backbone, or one per --model that can"
        " load one, in the same order. Several files for a single --model give one row each.",
        metavar="FILE",
    )
    names: Sequence[str] = option(
        (),
        "Name of a model in the tables, one per row.",
        shown="made from the model",
        flag="name",
        metavar="NAME",
    )


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(TrackingConfig, MeasurementConfig, EvaluationDataConfig, ModelConfig, NamedModelsConfig):
    """All options of ``evaluate``; a dataclass takes the fields of its last base first."""

    attacks: Attacks = option(
        "fast",
        "Attacks, with settings after a colon: fast,pgd:steps=20. fast stops on success and comes close to"
        " autoattack, the reference, with a small part of its passes.",
        resolved=True,
        panel="Attack",
    )
    skip_broken: bool = option(False, "Leave out unreadable images, and count them.", panel="Data")
    seed: int = option(0, "Seed of the attacks' random numbers.", at_least=0, panel="Attack")
    device: str | None = option(
        None, "Device to compute on: cpu, cuda, cuda:1 or mps.", shown="the best available", panel="Run"
    )
    threads: int | None = option(
        None, "Number of CPU threads.", shown="torch's default", at_least=1, panel="Run"
    )
    plugins: Sequence[str | Path] = option(
        (),
        "Python file that registers attacks, backbones or data sets. Repeatable.",
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
