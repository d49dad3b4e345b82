"""Attacks on a GPU: the figures of the CPU, exact balls, verdicts in float32, and no waiting."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from light_attacks import SPECS
from torch import Tensor, nn
from toys import TOY_CLASSES, Toy

from robustbench_tin import evaluate, perturb
from robustbench_tin.attacks import parse_attack
from robustbench_tin.attacks.acceleration.agreement import limit_of, sample_output
from robustbench_tin.attacks.acceleration.selection import _LAYOUTS
from robustbench_tin.attacks.acceleration.variant_label import Layout, Precision, VariantLabel
from robustbench_tin.attacks.acceleration.variants import ModelVariant, make_variant
from robustbench_tin.attacks.base import AttackedModel, IterativeAttack
from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.attacks.engine.state import AttackInputs
from robustbench_tin.attacks.engine.stop_on_success import EarlyStopRunner
from robustbench_tin.attacks.square import Square
from robustbench_tin.strict_float32 import exact_float32, has_tf32
from robustbench_tin.threat import NORMS, ThreatModel

pytestmark = pytest.mark.gpu

EPS = {"linf": 0.03, "l2": 0.6}
# The draws of random attacks differ between devices; of the others a rounding error may turn an image over.
DETERMINISTIC = {"fgsm", "mi-fgsm", "fab:steps=3", "fab-t:steps=5,targets=2"}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("spec", SPECS)
def test_an_attack_gives_the_figures_of_the_cpu(network: Toy, there: Toy, spec: str, norm: str) -> None:
    if norm not in parse_attack(spec).norms:
        pytest.skip(f"{spec} is not defined in {norm}")
    options = {"norm": norm, "search": "exact", "batch_size": 48}
    here = evaluate(network.model, network.images, network.labels, spec, EPS[norm], **options).records
    found = evaluate(there.model, there.images, there.labels, spec, EPS[norm], **options).records
    assert list(found["status"]) == ["ok", "ok"]
    assert found["top1"].iloc[0] == pytest.approx(here["top1"].iloc[0], abs=1.01 / 96)
    allowed = 2.01 / 96 if spec in DETERMINISTIC else 0.08
    assert found["top1"].iloc[1] == pytest.approx(here["top1"].iloc[1], abs=allowed)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    "spec", ["fgsm", "pgd", "apgd-ce:steps=5", "fab-t:steps=5,targets=2", "square:queries=20"]
)
def test_the_ball_holds_to_the_last_bit(there: Toy, spec: str, norm: str) -> None:
    budgets = [8 / 255, 0.01, 1e-4] if norm == "linf" else [0.5, 1e-3, 1e-5]
    moved = perturb(there.model, there.images, there.labels, spec, budgets, norm, search="fastest")
    clean = there.images.cpu().double()
    for eps, images in zip(budgets, moved.double(), strict=True):
        change = (images - clean).flatten(1)
        reach = change.abs().amax(dim=1) if norm == "linf" else change.norm(dim=1)
        assert float(reach.max()) <= (eps if norm == "linf" else eps * (1 + 1e-6))
        assert 0 <= float(images.min()) <= float(images.max()) <= 1


@pytest.mark.parametrize("layout", ["channels-last", "contiguous"])
@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16", "float16"])
def test_each_form_agrees_with_the_model(there: Toy, precision: Precision, layout: Layout) -> None:
    if precision == "float16" and there.images.device.type == "cpu":
        pytest.skip("no CPU searches in float16")
    with AttackedModel(there.model):
        variant = make_variant(there.model, there.images, VariantLabel(precision, layout, fused=True))
        assert variant is not None
        assert str(variant.label) == f"{precision}, {layout}, folded"
        ours = sample_output(ModelVariant(there.model), there.images[:32], 32)
        assert limit_of(sample_output(variant, there.images[:32], 32), ours) is not None


def test_a_gpu_searches_in_tf32_and_judges_in_float32(gpu: torch.device, there: Toy) -> None:
    if not has_tf32(gpu):
        pytest.skip("this GPU has no TF32")
    with AttackedModel(there.model) as attacked:
        attacked.prepare(there.images[:32], "fixed")
        searched = attacked.search_logits(there.images)
        judged = attacked.logits(there.images)
    assert attacked.search_label == "tf32, channels-last, folded"
    assert 1e-5 < float((searched - judged).norm() / judged.norm()) < 1e-2


def test_a_gpu_is_offered_both_layouts_and_both_low_precisions(gpu: torch.device, there: Toy) -> None:
    assert gpu.type not in _LAYOUTS
    found = evaluate(there.model, there.images, there.labels, "pgd", 0.02, search="fastest").records
    assert found["search"].iloc[1]


@pytest.mark.parametrize("search", ["fixed", "fastest"])
@pytest.mark.parametrize("spec", ["pgd:criterion=top1", "fast:most_stages=4"])
def test_what_a_search_breaks_is_broken_in_float32(network: Toy, there: Toy, spec: str, search: str) -> None:
    exact = evaluate(there.model, there.images, there.labels, spec, 0.03, search="exact").records
    found = evaluate(there.model, there.images, there.labels, spec, 0.03, search=search).records
    moved = perturb(there.model, there.images, there.labels, spec, 0.03, search=search)
    kept = (network.model(moved).argmax(dim=1) == network.labels).float().mean()
    # An image at the boundary may be right on one device and wrong on the other.
    assert float(kept) == pytest.approx(found["top1"].iloc[1], abs=1.01 / 96)
    assert found["top1"].iloc[1] == pytest.approx(exact["top1"].iloc[1], abs=0.05)


def test_verdicts_are_float32_whatever_the_caller_allows(network: Toy, there: Toy) -> None:
    exact = network.model.double()(network.images.double())
    network.model.float()
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.allow_tf32 = True
    try:
        with torch.autocast(there.images.device.type, torch.bfloat16), AttackedModel(there.model) as attacked:
            logits = attacked.logits(there.images)
        assert torch.get_float32_matmul_precision() == "medium"
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision(before)
    error = (logits.double().cpu() - exact).norm() / exact.norm()
    assert float(error) < 1e-5  # TF32 gives some 3e-4


def test_float32_without_tf32_is_another_number_on_this_gpu(gpu: torch.device) -> None:
    """Else the test above could not fail."""
    a, b = (torch.randn(512, 512, device=gpu, generator=torch.Generator(gpu).manual_seed(n)) for n in (0, 1))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        rough = a @ b
        with exact_float32():
            exact = a @ b
    finally:
        torch.set_float32_matmul_precision(before)
    truth = a.double() @ b.double()
    errors = [float((found - truth).norm() / truth.norm()) for found in (rough, exact)]
    assert errors[1] < 1e-6
    assert errors[0] > 1e-5


@pytest.mark.parametrize("spec", ["fgsm", "pgd", "square:queries=20", "fast:most_stages=4"])
def test_the_same_call_gives_the_same_figures_and_leaves_torchs_random_state(there: Toy, spec: str) -> None:
    states = [torch.get_rng_state()]
    if there.images.is_cuda:
        states.append(torch.cuda.get_rng_state(there.images.device))
    one, other = (
        evaluate(there.model, there.images, there.labels, spec, (0.0, 0.03), seed=3).records for _ in range(2)
    )
    counted = ["top1", "top5", "forward_passes", "backward_passes"]
    assert one[counted].equals(other[counted])
    after = [torch.get_rng_state()]
    if there.images.is_cuda:
        after.append(torch.cuda.get_rng_state(there.images.device))
    assert all(torch.equal(before, now) for before, now in zip(states, after, strict=True))


@contextmanager
def waiting_is_an_error(device: torch.device) -> Iterator[None]:
    """CUDA's own check: any call that waits for the GPU raises."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("spec", SPECS)
def test_no_step_waits(gpu: torch.device, there: Toy, spec: str, norm: str) -> None:
    ball = ThreatModel(norm, EPS[norm]).ball(there.images)
    with AttackedModel(there.model) as attacked:
        clean = attacked.logits(there.images)
        batches = ImageBatches(there.images, there.labels, 96, gpu)
        runner = EarlyStopRunner(
            attacked, batches, ThreatModel(norm, EPS[norm]), parse_attack(spec).goal, clean
        )
        for stage in parse_attack(spec).stages(TOY_CLASSES):
            generator = torch.Generator(gpu).manual_seed(0)
            if norm not in stage.norms or (isinstance(stage, Square) and norm == "l2"):
                continue
            if not isinstance(stage, IterativeAttack):
                with waiting_is_an_error(gpu):
                    stage.sweep(attacked, there.labels, [ball, ball], [generator, generator])
                continue
            search = stage.begin(AttackInputs(there.labels, ball, clean, stage.goal, generator))
            search.move(search.ask(attacked))
            with waiting_is_an_error(gpu):
                search.move(search.ask(attacked))
                runner._advance(search, 1)


class Narrow(nn.Module):
    """Has memory for a few images at a time only."""

    def __init__(self, base: nn.Module, most: int) -> None:
        super().__init__()
        self.base, self.most, self.asked = base, most, [0]

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory (in a test)")
        self.asked.append(len(images))
        return self.base(images)


def test_where_memory_runs_out_parts_are_halved(there: Toy) -> None:
    narrow = Narrow(there.model, 20)
    whole = evaluate(
        there.model, there.images, there.labels, "pgd", 0.03, search="exact", batch_size=96
    ).records
    parts = evaluate(narrow, there.images, there.labels, "pgd", 0.03, search="exact", batch_size=96).records
    assert list(parts["status"]) == ["ok", "ok"]
    assert max(narrow.asked) == 12
    assert parts["top1"].tolist() == pytest.approx(whole["top1"].tolist(), abs=1.01 / 96)


def test_where_a_gpus_own_memory_runs_out_parts_are_halved(gpu: torch.device) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 256, 3, padding=1), nn.ReLU(), nn.Conv2d(256, 64, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, TOY_CLASSES),
    ).to(gpu).eval()  # fmt: skip
    images = torch.rand(512, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    labels = model(images[:2].to(gpu)).argmax(dim=1)[:1].cpu().expand(512).clone()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(gpu).total_memory
    # A batch of 512 takes some 4 GB and more for the first layer and its gradient.
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(gpu) + 3 * 2**30) / total, gpu)
    try:
        found = evaluate(model, images, labels, "fgsm", 0.01, search="exact", batch_size=512).records
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, gpu)
        torch.cuda.empty_cache()
    assert list(found["status"]) == ["ok", "ok"]
