"""Forms of a model to search with: the same function, or not taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from toys import Toy, draw_toy_images
from two_way_networks import TwoWays, trained

from robustbench_tin import evaluate
from robustbench_tin.attacks import AttackedModel
from robustbench_tin.attacks.acceleration import selection, variant_cache, variants
from robustbench_tin.attacks.acceleration.fuse_batchnorm import fuse_batchnorm
from robustbench_tin.attacks.acceleration.module_surgery import independent_copy
from robustbench_tin.attacks.acceleration.variant_cache import VariantCache, probed
from robustbench_tin.attacks.acceleration.variant_label import MODEL, VariantLabel
from robustbench_tin.attacks.acceleration.variants import ModelVariant, Rewrite, make_variant
from robustbench_tin.attacks.engine.image_batches import ImageBatches, drawn
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.models import backbones, build_classifier
from robustbench_tin.threat import ThreatModel


def normed(seed: int = 0) -> nn.Sequential:
    """Convolutions followed by batch norms whose statistics are far from 0 and 1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, stride=2),
            nn.BatchNorm2d(8, affine=False),
            nn.Flatten(),
            nn.Linear(72, 10),
        )
        images, _ = draw_toy_images(64, 5)
        for _ in range(20):
            model(images * 3)
    return model.eval().requires_grad_(False)


def folded(model: nn.Module, images: Tensor) -> nn.Module:
    return fuse_batchnorm(independent_copy(model), images)


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def test_folding_keeps_the_function_and_drops_the_norms() -> None:
    model, (images, _) = normed(), draw_toy_images(16, 6)
    twin = folded(model, images[:2])
    assert (norms(model), norms(twin)) == (2, 0)
    assert torch.allclose(twin(images), model(images), atol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050", "densenet121"])
def test_folding_works_on_real_architectures(name: str) -> None:
    model = build_classifier(
        backbones.get(f"timm:{name}"),
        10,
        image_size=32,
        resize_to=None,
        pretrained=False,
        weights=None,
        seed=0,
    )
    images, _ = draw_toy_images(4, 1, size=32)
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(images)
    model.eval()
    twin = folded(model, images[:2])
    assert norms(twin) < norms(model)
    with torch.no_grad():
        assert torch.allclose(twin(images), model(images), atol=1e-3)


def test_a_convolution_used_twice_is_left_alone() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.head = (
                nn.Conv2d(3, 3, 3, padding=1),
                nn.BatchNorm2d(3),
                nn.Linear(3, 10),
            )

        def forward(self, images: Tensor) -> Tensor:
            return self.head(self.conv(self.norm(self.conv(images))).mean(dim=(2, 3)))

    model, (images, _) = Shared().eval(), draw_toy_images(4, 6)
    assert norms(folded(model, images)) == 1


def test_a_wrong_fold_is_noticed_and_not_used() -> None:
    """The convolution's output goes around the norm as well: folding it would change the sum."""

    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base = normed()
            self.norm = nn.BatchNorm2d(8)
            self.norm.running_mean = torch.linspace(-3, 3, 8)
            self.norm.running_var = torch.linspace(0.01, 4, 8)

        def forward(self, images: Tensor) -> Tensor:
            inner = self.base[0](images)
            both = functional.relu(inner) + self.norm(inner) ** 2
            return self.base[5:](self.base[3](both))

    model = Around().eval().requires_grad_(False)
    images, _ = draw_toy_images(16, 6)
    variant = VariantCache().choose("fixed", model, images).variant()
    assert variant.is_model
    assert variant.module is model


def sorted_pool(model: TwoWays) -> tuple[ImageBatches, Tensor]:
    """120 images, those that go the other way last, and their number of them each, bool ``(N,)``."""
    images, labels = draw_toy_images(120, seed=2)
    others = model.others(images)
    order = others.long().sort(stable=True).indices
    return ImageBatches(images[order], labels[order], 40, torch.device("cpu")), others[order]


@pytest.mark.parametrize("name", ["unsure", "confident", "bright"])
def test_a_norm_that_some_images_go_around_is_not_folded(name: str) -> None:
    """The drawn images have some of them, so that the rest of the network may have a form."""
    model = trained(name)
    batches, others = sorted_pool(model)
    assert 12 <= others.sum() <= 15
    few = drawn(batches, ThreatModel("linf", 0.02), probed(len(batches)))
    assert len(few) == 32
    assert (norms(folded(model, few)), norms(folded(model, batches.images[:2]))) == (1, 0)
    variant = VariantCache().choose("fixed", model, few).variant()
    assert not variant.is_model
    assert norms(variant.module) == 1
    logits = variant.logits(batches.images)
    assert isinstance(logits, Tensor)
    assert torch.allclose(logits, model(batches.images), atol=1e-4)


@pytest.mark.parametrize("name", ["unsure", "confident", "bright"])
@pytest.mark.parametrize(
    "labels", [("float32, channels-last, folded",) * 2, ("bfloat16, channels-last, folded",) * 2]
)
def test_a_form_that_is_wrong_for_a_tenth_of_the_images_is_not_taken(
    name: str, labels: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = trained(name)
    batches, others = sorted_pool(model)
    by_easy_images = Rewrite(lambda model, images: fuse_batchnorm(model, batches.images[:2]))
    monkeypatch.setattr(variants, "REWRITES", (by_easy_images, *variants.REWRITES[1:]))
    threat = ThreatModel("linf", 0.02)
    choose = VariantCache({"fastest": labels}).choose
    assert choose("fastest", model, drawn(batches, threat, 64)).variant().is_model
    # It is right for all the others.
    alike = drawn(batches, threat, 64, (~others).nonzero().squeeze(1))
    alike = alike[~model.others(alike)]
    assert not VariantCache({"fastest": labels}).choose("fastest", model, alike).variant().is_model


def test_images_are_drawn_over_the_pool_and_half_of_them_moved() -> None:
    images, labels = draw_toy_images(100, 3)
    batches = ImageBatches(images, labels, 10, torch.device("cpu"))
    threat = ThreatModel("linf", 0.02)
    few = drawn(batches, threat, 20)
    assert torch.equal(few, drawn(batches, threat, 20))
    distances = (few.unsqueeze(1) - images).flatten(2).abs().amax(dim=2)
    near, numbers = distances.min(dim=1)
    assert near[::2].tolist() == [0] * 10
    assert (near[1::2] > 0.015).all()
    assert (near <= 0.02).all()
    assert len(numbers.unique()) == 20
    assert numbers.max() > 80
    among = torch.tensor([5, 50, 95])
    assert (drawn(batches, threat, 20, among).unsqueeze(1) - images).flatten(2).abs().amax(dim=2).argmin(
        dim=1
    ).sort().values.tolist() == [5, 50, 95]
    assert torch.equal(batches.images, images)


def test_a_lower_precision_is_only_tried_of_a_copy_that_agrees_in_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, (images, _) = normed(), draw_toy_images(32, 6)
    made: list[str] = []

    def agreeing(
        variant: ModelVariant | None, ours: object, images: Tensor, graded: int
    ) -> ModelVariant | None:
        assert variant is not None
        made.append(str(variant.label))
        return None if variant.precision == "float32" else variant

    monkeypatch.setattr(selection, "_agreeing", agreeing)
    monkeypatch.setattr(selection, "_lower_precisions", lambda device: ["bfloat16"])
    assert VariantCache().choose("fastest", model, images).variant().is_model
    assert made == ["float32, channels-last, folded"]


@pytest.mark.parametrize("search", ["auto", "fixed", "exact"])
def test_forms_agree_with_the_model(search: str) -> None:
    model, (images, _) = normed(), draw_toy_images(16, 6)
    chosen = VariantCache().choose(search, model, images)
    assert chosen.variant(precise=True).precision == "float32"
    expected = model(images)
    for precise, tolerance in ((False, 0.05), (True, 1e-4)):
        logits = chosen.variant(precise=precise).logits(images)
        assert isinstance(logits, Tensor)
        assert (logits.float() - expected).abs().max() <= tolerance * expected.abs().max()


def test_the_choice_is_made_once_and_can_be_recalled(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (images, _) = normed(), draw_toy_images(16, 6)
    chosen = VariantCache()
    first = chosen.choose("auto", model, images)
    assert chosen.choose("auto", model, images) == first
    monkeypatch.delattr(variant_cache, "select_fastest")
    recalled = VariantCache(chosen.labels).choose("auto", model, images)
    assert tuple(map(str, recalled.labels)) == chosen.labels["fastest"]


def test_a_copy_is_made_when_it_is_first_asked_for_and_kept() -> None:
    model, (images, _) = normed(), draw_toy_images(16, 6)
    labels = ["float32, channels-last, folded", "float32, contiguous, folded"]
    chosen = VariantCache({"fastest": labels}).choose("fastest", model, images)
    for precise in (False, True):
        variant = chosen.variant(precise=precise)
        assert str(variant.label) == labels[precise]
        assert chosen.variant(precise=precise) is variant
        logits = variant.logits(images)
        assert isinstance(logits, Tensor)
        assert torch.allclose(logits, model(images), atol=1e-3)


@pytest.mark.parametrize("fastest", ["float32", "float32, channels-last, folded"])
def test_the_precise_form_is_the_one_that_answers_fastest(
    monkeypatch: pytest.MonkeyPatch, fastest: str
) -> None:
    model, (images, _) = normed(), draw_toy_images(8, 6)
    asked: list[str] = []

    def quickest(variants: Sequence[ModelVariant], batch: Tensor) -> ModelVariant:
        asked.extend(str(variant.label) for variant in variants)
        return next(variant for variant in variants if str(variant.label) == fastest)

    monkeypatch.setattr(selection, "_fastest_forward", quickest)
    cache = VariantCache()
    chosen = cache.choose("fastest", model, images)
    assert asked == []  # only who asks for it pays for the choice
    assert str(chosen.forward_only().label) == fastest
    assert sorted(asked) == ["float32", "float32, channels-last, folded"]
    assert chosen.forward_only() is chosen.forward_only()
    assert str(chosen.variant(precise=True).label) == fastest
    assert len(asked) == 2
    assert cache.labels["fastest"][1] == fastest


def test_a_model_that_cannot_be_copied_is_searched_as_it_is() -> None:
    class Stubborn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = normed()

        def __deepcopy__(self, memo: object) -> nn.Module:
            raise TypeError("not to be copied")

        def forward(self, images: Tensor) -> Tensor:
            return self.inner(images)

    images, _ = draw_toy_images(16, 6)
    for search in ("auto", "fixed"):
        chosen = VariantCache().choose(search, Stubborn(), images)
        assert chosen.variant().is_model
        assert chosen.variant(precise=True).is_model


def test_a_model_whose_copies_share_its_parts_is_left_alone() -> None:
    class Sharing(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def __deepcopy__(self, memo: object) -> nn.Module:
            return Sharing(self.inner)

        def forward(self, images: Tensor) -> Tensor:
            return self.inner(images)  # type: ignore[no-any-return]

    inner, (images, _) = normed(), draw_toy_images(16, 6)
    before = [type(module) for module in inner.modules()]
    for search in ("auto", "fixed"):
        assert VariantCache().choose(search, Sharing(inner), images).variant().is_model
    assert [type(module) for module in inner.modules()] == before


def test_a_copy_overwrites_no_input_and_the_model_stays_as_it_was() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(4 * 64, 6)
    ).eval()
    images = torch.rand(4, 3, 8, 8)
    variant = make_variant(model.requires_grad_(False), images, VariantLabel(fused=True))
    assert variant is not None
    assert [module.inplace for module in variant.module.modules() if isinstance(module, nn.ReLU)] == [False]
    assert [module.inplace for module in model.modules() if isinstance(module, nn.ReLU)] == [True]


def test_the_model_keeps_its_parameters_and_modes(mixed_model: nn.Module, toy: Toy) -> None:
    before = {name: value.clone() for name, value in mixed_model.state_dict().items()}
    modes = [module.training for module in mixed_model.modules()]
    evaluate(mixed_model, toy.images, toy.labels, "fgsm,pgd:criterion=top1", 0.03)
    assert [module.training for module in mixed_model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in mixed_model.state_dict().items())


def test_an_unknown_way_of_searching_is_refused(toy: Toy) -> None:
    with AttackedModel(toy.model) as attacked, pytest.raises(InvalidSettingError, match="search got 'quick'"):
        attacked.prepare(toy.images, "quick")
    with pytest.raises(InvalidSettingError, match="search got 'quick'"):
        evaluate(toy.model, toy.images, toy.labels, search="quick")


def test_a_label_prints_as_its_text_and_is_parsed_from_it(toy: Toy) -> None:
    assert str(ModelVariant(toy.model).label) == "float32"
    label = VariantLabel("bfloat16", "channels-last", fused=True)
    assert str(label) == "bfloat16, channels-last, folded"
    assert VariantLabel.parse("bfloat16, channels-last, folded") == label
    assert VariantLabel.parse("float32") == MODEL
    assert VariantLabel.parse("bfloat16") is None


def test_a_label_that_no_form_has_stands_for_the_model_itself(toy: Toy) -> None:
    labels = ("float8, channels-last, folded", "float32, channels-last, folded")
    chosen = VariantCache({"fastest": labels}).choose("fastest", toy.model, toy.images)
    assert tuple(map(str, chosen.labels)) == ("float32", "float32, channels-last, folded")


class Watching(nn.Module):
    """Notes how products would be computed on a GPU, on the way there and back."""

    class Noted(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, images: Tensor, seen: set[tuple[str, bool]]) -> Tensor:
            context.seen = seen
            seen.add(("forward", torch.backends.cudnn.allow_tf32))
            return images.clone()

        @staticmethod
        def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
            context.seen.add(("backward", torch.backends.cudnn.allow_tf32))
            return gradient, None

    # Shared by all copies.
    seen: ClassVar[set[tuple[str, bool]]] = set()

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(self.Noted.apply(images, self.seen))


def test_tf32_is_for_searches_alone(toy: Toy) -> None:
    model = Watching(toy.model).eval()
    labels = ("tf32, channels-last, folded", "float32, channels-last, folded")
    with AttackedModel(model, variants=VariantCache({"fixed": labels})) as attacked:
        attacked.prepare(toy.images[:32], "fixed")
        assert attacked.search_label == labels[0]
        Watching.seen.clear()
        attacked.gradient(toy.images, toy.labels)
        assert Watching.seen == {("forward", True), ("backward", True)}
        Watching.seen.clear()
        attacked.logits(toy.images)
        attacked.ask(toy.images, lambda logits, rows: logits.sum(dim=1), precise=True)
        assert Watching.seen == {("forward", False), ("backward", False)}


def test_tf32_is_refused_to_a_model_whose_copy_is_wrong(toy: Toy) -> None:
    labels = ("tf32, channels-last, folded", "float32, channels-last, folded")
    with mock.patch.object(
        selection, "limit_of", lambda theirs, ours: None if theirs.precision == "float32" else 0.01
    ):
        chosen = VariantCache({"fixed": labels}).choose("fixed", toy.model, toy.images)
    assert chosen.labels == (MODEL, MODEL)
