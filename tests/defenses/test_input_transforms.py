"""Transforms before the classifier: their effect on an image, and that attacks see through them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from toys import Toy, build_toy_model, draw_toy_images

from robustbench_tin import evaluate
from robustbench_tin.attacks import AttackedModel, parse_attack
from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.attacks.engine.perturb import perturb_images
from robustbench_tin.benchmarks.measurement.attack import measure_attack
from robustbench_tin.benchmarks.measurement.protocol import AttackProtocol
from robustbench_tin.defenses import bit_depth, jpeg, parse_defense
from robustbench_tin.defenses.differentiable_jpeg import softened_jpeg
from robustbench_tin.defenses.input_transform import softly_rounded, straight_through
from robustbench_tin.errors import InvalidSettingError

FIXED = ("jpeg", "bit-depth", "blur")
RANDOM = ("random-resize",)
EVERY_TRANSFORM = pytest.mark.parametrize("spec", [*FIXED, *RANDOM, "jpeg:quality=1", "blur:sigma=16"])


def transformed(spec: str, images: Tensor) -> Tensor:
    """The images that a classifier behind the defense sees."""
    seen: Tensor = parse_defense(spec).wrap(nn.Identity())(images)
    return seen


@pytest.fixture
def images() -> Tensor:
    return draw_toy_images(6, seed=4)[0]


@EVERY_TRANSFORM
def test_the_classifier_sees_pixels(spec: str, images: Tensor) -> None:
    for given in (images, torch.zeros(2, 3, 16, 16), torch.ones(2, 3, 16, 24), images[:, :1], images[:0]):
        seen = transformed(spec, given)
        assert seen.shape == given.shape
        assert seen.dtype == torch.float32
        assert bool(((seen >= 0) & (seen <= 1)).all())


@EVERY_TRANSFORM
def test_the_transform_is_float32_in_a_search_of_lower_precision(spec: str, images: Tensor) -> None:
    torch.manual_seed(0)
    expected = transformed(spec, images)
    with torch.autocast("cpu", torch.bfloat16):
        torch.manual_seed(0)
        assert torch.equal(transformed(spec, images), expected)
        assert transformed(spec, images.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@EVERY_TRANSFORM
def test_layout_does_not_matter(spec: str, images: Tensor, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    expected = transformed(spec, images)
    torch.manual_seed(0)
    seen = transformed(spec, images.contiguous(memory_format=layout))
    assert torch.allclose(seen, expected, atol=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("quality", [1, 50, 75, 100])
def test_jpeg_is_what_another_library_writes_and_reads(images: Tensor, quality: int) -> None:
    torchvision = pytest.importorskip("torchvision.io")
    if not hasattr(torchvision, "encode_jpeg"):
        pytest.skip("this torchvision writes no JPEG")
    pixels = (images * 255).round().byte()
    seen = transformed(f"jpeg:quality={quality}", pixels.float() / 255)
    for image, ours in zip(pixels, seen, strict=True):
        theirs = torchvision.decode_jpeg(torchvision.encode_jpeg(image, quality)).float()
        # Two builds of libjpeg may round a value differently.
        assert float((ours * 255 - theirs).abs().max()) < 1.5


def test_more_quality_stays_nearer() -> None:
    images = draw_toy_images(6, seed=4)[0]
    change = [float((transformed(f"jpeg:quality={q}", images) - images).norm()) for q in (5, 40, 75, 100)]
    assert change == sorted(change, reverse=True)


@pytest.mark.parametrize("bits", range(1, 9))
def test_bit_depth_leaves_so_many_levels_and_does_nothing_twice(bits: int) -> None:
    ramp = torch.linspace(0, 1, 3 * 64 * 64).view(1, 3, 64, 64)
    seen = transformed(f"bit-depth:bits={bits}", ramp)
    assert len(seen.unique()) == 2**bits
    assert float((seen - ramp).abs().max()) <= 0.5 / (2**bits - 1) + 1e-6
    assert torch.equal(transformed(f"bit-depth:bits={bits}", seen), seen)
    eight_bit = (ramp * 255).round() / 255
    assert torch.equal(transformed("bit-depth:bits=8", eight_bit), eight_bit)


@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.5])
def test_blur_is_a_gaussian(sigma: float) -> None:
    from scipy.ndimage import gaussian_filter

    images = draw_toy_images(2, seed=4)[0]
    theirs = gaussian_filter(
        images.double().numpy(),
        (0, 0, sigma, sigma),
        mode="nearest",
        radius=(0, 0, *[int(-(-3 * sigma // 1))] * 2),
    )
    assert np.allclose(transformed(f"blur:sigma={sigma}", images).numpy(), theirs, atol=1e-6)


def test_blur_has_its_own_gradient() -> None:
    images = draw_toy_images(1, seed=4, size=8)[0].double().clamp(0.1, 0.9)
    blur = parse_defense("blur").wrap(nn.Identity())
    jacobian = torch.autograd.functional.jacobian(lambda x: blur(x).flatten(), images.float())
    nudged = images.float().clone()
    nudged[0, 1, 3, 3] += 0.05
    change = (blur(nudged) - blur(images.float())).flatten() / 0.05
    assert torch.allclose(jacobian[:, 0, 1, 3, 3], change, atol=1e-5)


def test_a_random_resize_is_the_image_shrunk_and_moved() -> None:
    images = draw_toy_images(24, seed=4)[0].clamp(min=0.05)
    sizes, corners = set(), set()
    for image, seen in zip(images, transformed("random-resize:least=0.6", images), strict=True):
        rows = seen.sum(dim=(0, 2)).nonzero().squeeze(1)
        columns = seen.sum(dim=(0, 1)).nonzero().squeeze(1)
        top, left, size = int(rows[0]), int(columns[0]), len(rows)
        assert len(columns) == size
        inner = seen[:, top : top + size, left : left + size]
        expected = functional.interpolate(
            image[None], size=(size, size), mode="bilinear", align_corners=False
        )
        assert torch.allclose(inner, expected[0], atol=1e-5)
        assert float(seen.sum()) == pytest.approx(float(inner.sum()), rel=1e-5)
        sizes.add(size)
        corners.add((top, left))
    assert sizes <= set(range(10, 17))
    assert len(sizes) >= 5
    assert len(corners) >= 10


def test_the_whole_size_leaves_the_image() -> None:
    images = draw_toy_images(4, seed=4)[0]
    assert torch.equal(transformed("random-resize:least=1", images), images)


@pytest.mark.parametrize("spec", FIXED)
def test_a_fixed_transform_gives_the_same_each_time(spec: str, images: Tensor) -> None:
    before = torch.random.get_rng_state()
    assert torch.equal(transformed(spec, images), transformed(spec, images))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("spec", RANDOM)
def test_a_random_transform_differs_between_passes_also_in_eval_mode(spec: str, images: Tensor) -> None:
    model = parse_defense(spec).wrap(nn.Identity()).eval()
    assert not torch.equal(model(images), model(images))
    twice = model(images[:1].expand(8, -1, -1, -1))
    assert not torch.equal(twice[0], twice[1]) or not torch.equal(twice[0], twice[2])


@pytest.mark.parametrize("spec", ["jpeg", "bit-depth:bits=1"])
def test_the_gradient_is_taken_at_what_the_classifier_sees(spec: str, toy: Toy) -> None:
    """That of the bare classifier at the transformed images, then that of the stand-in; on 0 and 1 too."""
    stand_in = {"jpeg": lambda given: softened_jpeg(given, 75), "bit-depth:bits=1": softly_rounded}[spec]
    images, labels = toy.images[:6], toy.labels[:6]
    assert bool((images == 0).any())
    assert bool((images == 1).any())
    with AttackedModel(parse_defense(spec).wrap(toy.model)) as attacked:
        gradient = attacked.gradient(images, labels)
    with AttackedModel(toy.model) as attacked:
        seen = attacked.gradient(transformed(spec, images), labels)
    given = images.clone().requires_grad_()
    (expected,) = torch.autograd.grad(stand_in(given), given, seen)
    assert torch.allclose(gradient, expected, rtol=1e-3, atol=1e-7)
    assert bool((gradient.flatten(1).norm(dim=1) > 0).all())


def test_a_transform_without_a_stand_in_has_the_gradient_of_the_identity() -> None:
    images = torch.tensor([-0.2, 0.0, 0.4, 1.0, 1.2]).view(1, 1, 1, 5).requires_grad_()
    straight_through(images, torch.round).sum().backward()
    assert images.grad is not None
    assert images.grad.flatten().tolist() == [0, 1, 1, 1, 0]


def test_softened_rounding_rounds_and_is_steepest_where_a_value_is_about_to_change() -> None:
    values = torch.linspace(-2, 2, 401).requires_grad_()
    rounded = softly_rounded(values)
    assert torch.equal(rounded, values.round())
    (slope,) = torch.autograd.grad(rounded.sum(), values)
    at = dict(zip(values.mul(100).round().int().tolist(), slope.tolist(), strict=True))
    assert at[50] == at[-50] > at[130] > at[100] > 0.3
    # As much of a way up as of rounding itself.
    assert float(slope[:-1].mean()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("quality", [1, 30, 75, 100])
def test_the_softened_jpeg_is_nearly_libjpeg_s(quality: int) -> None:
    """On images of odd sizes, which a file extends at the border, in colour and grey; in levels of 255."""
    images = functional.interpolate(draw_toy_images(8, seed=4)[0], size=(53, 38), mode="bilinear")
    for given in (images, images[:, :1]):
        seen = transformed(f"jpeg:quality={quality}", given)
        assert float(255 * (softened_jpeg(given, quality).clamp(0, 1) - seen).abs().mean()) < 2


@pytest.mark.parametrize("spec", ["jpeg", "bit-depth"])
def test_outside_the_pixel_box_there_is_no_gradient(spec: str) -> None:
    images = torch.full((1, 3, 16, 16), 0.5)
    images[..., 0], images[..., 1] = -0.2, 1.2
    images.requires_grad_()
    transformed(spec, images).sum().backward()
    assert images.grad is not None
    assert float(images.grad[..., :2].abs().max()) == 0
    assert bool((images.grad[..., 2:] > 0).all())


@pytest.mark.parametrize(
    ("spec", "norm", "eps"), [("jpeg", "linf", 0.03), ("jpeg", "l2", 0.5), ("bit-depth:bits=2", "l2", 0.7)]
)
def test_attacks_through_the_stand_in_leave_less_than_through_the_identity(
    spec: str, norm: str, eps: float, toy: Toy, many: ImageBatches, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol = AttackProtocol(norm, search="exact")
    left = robust(toy.model, spec, many, "pgd", eps, protocol)
    for module in (jpeg, bit_depth):
        monkeypatch.setattr(
            module, "straight_through", lambda given, transform, _: straight_through(given, transform)
        )
    assert left < robust(toy.model, spec, many, "pgd", eps, protocol)


@pytest.mark.parametrize("spec", [*FIXED, *RANDOM])
@pytest.mark.parametrize("search", ["auto", "fixed", "exact"])
def test_defended_models_can_be_searched_in_any_form(spec: str, search: str, toy: Toy) -> None:
    model = parse_defense(spec).wrap(toy.model)
    frame = evaluate(model, toy.images, toy.labels, "pgd:criterion=top1,steps=3", 0.06, search=search).records
    assert set(frame.status) == {"ok"}
    assert frame.top1[1] < frame.top1[0]


def test_a_combination_wraps_from_left_to_right(images: Tensor) -> None:
    both = transformed("jpeg+bit-depth:bits=2", images)
    assert torch.equal(both, transformed("jpeg", transformed("bit-depth:bits=2", images)))
    assert not torch.equal(both, transformed("bit-depth:bits=2+jpeg", images))


def robust(
    model: nn.Module, spec: str, batches: ImageBatches, attack: str, eps: float, protocol: AttackProtocol
) -> int:
    (outcomes,) = measure_attack(
        parse_defense(spec).wrap(model), batches, parse_attack(attack), [eps], protocol
    )
    assert str(outcomes.status) == "ok"
    assert outcomes.top1 is not None
    return int(outcomes.top1.sum())


@pytest.fixture(scope="module")
def many() -> ImageBatches:
    return ImageBatches(*draw_toy_images(300, seed=2), 300, torch.device("cpu"))


@pytest.mark.parametrize("spec", ["jpeg", "bit-depth:bits=1"])
@pytest.mark.parametrize("attack", ["pgd:steps=5", "pgd:criterion=top1,steps=5"])
def test_an_oblivious_attack_leaves_more(spec: str, attack: str, toy: Toy, many: ImageBatches) -> None:
    aware = AttackProtocol(search="exact")
    oblivious = replace(aware, surrogate=toy.model)
    assert robust(toy.model, spec, many, attack, 0.03, aware) < robust(
        toy.model, spec, many, attack, 0.03, oblivious
    )


def test_an_oblivious_attack_never_asks_the_defense(toy: Toy) -> None:
    """Except for the verdicts: it finds the same images as on the bare classifier."""

    class Counting(nn.Module):
        seen = 0

        def forward(self, images: Tensor) -> Tensor:
            Counting.seen += len(images)
            logits: Tensor = toy.model(images)
            return logits

    attack = parse_attack("pgd:steps=4")
    with AttackedModel(toy.model) as attacked:
        expected = perturb_images(attack, attacked, toy.images, toy.labels, [0.03])
    with AttackedModel(Counting(), surrogate=toy.model) as attacked:
        assert torch.equal(perturb_images(attack, attacked, toy.images, toy.labels, [0.03]), expected)
    assert Counting.seen == 0


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.03), ("l2", 0.6)])
def test_expectation_over_transformations_makes_the_attack_stronger(
    norm: str, eps: float, toy: Toy, many: ImageBatches
) -> None:
    left = [
        robust(
            toy.model,
            "random-resize:least=0.5",
            many,
            "pgd:steps=5",
            eps,
            AttackProtocol(norm, search="exact", eot=eot),
        )
        for eot in (1, 16)
    ]
    assert left[1] < left[0]


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("jpeg:quality=0", "quality=0; expected 1 to 100"),
        ("jpeg:quality=101", "expected 1 to 100"),
        ("bit-depth:bits=0", "bits=0; expected 1 to 8"),
        ("bit-depth:bits=9", "expected 1 to 8"),
        ("blur:sigma=0", "sigma"),
        ("blur:sigma=nan", "sigma"),
        ("blur:sigma=17", "at most 16"),
        ("random-resize:least=0", "more than 0, at most 1"),
        ("random-resize:least=1.1", "more than 0, at most 1"),
    ],
)
def test_impossible_settings_are_refused(spec: str, reason: str) -> None:
    with pytest.raises(InvalidSettingError, match=reason):
        parse_defense(spec)


def test_other_weights_of_a_wrapped_network_load_as_before(toy: Toy) -> None:
    """Nothing of a transform is in a weights file."""
    for spec in (*FIXED, *RANDOM):
        keys = parse_defense(spec).wrap(build_toy_model()).state_dict()
        assert [key.removeprefix("classifier.") for key in keys] == list(toy.model.state_dict())
