"""CUDA graphs of an attack's step and compiled training give the same numbers as without."""

from __future__ import annotations

import copy

import pytest
import torch
from toys import TOY_CLASSES, Toy, draw_toy_images

from robustbench_tin.attacks import parse_attack
from robustbench_tin.attacks.base import AttackedModel, IterativeAttack
from robustbench_tin.attacks.engine.state import AttackInputs, AttackState
from robustbench_tin.data.base import Split
from robustbench_tin.defenses import parse_defense
from robustbench_tin.models import backbones, build_classifier
from robustbench_tin.runtime import Runtime
from robustbench_tin.threat import ThreatModel
from robustbench_tin.training.compiling import compiled
from robustbench_tin.training.loop import Recipe, train

pytestmark = pytest.mark.gpu


def captured(action) -> torch.cuda.CUDAGraph:
    """The action as a CUDA graph; it has run three times before."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            action()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        action()
    return graph


@pytest.mark.parametrize("spec", ["pgd", "mi-fgsm", "apgd-ce:steps=5", "apgd-t:steps=5,target=1"])
def test_a_step_of_an_attack_can_be_captured(gpu: torch.device, there: Toy, spec: str) -> None:
    attack = parse_attack(spec)
    assert isinstance(attack, IterativeAttack)
    ball = ThreatModel("linf", 0.03).ball(there.images)
    with AttackedModel(there.model) as attacked:
        clean = attacked.logits(there.images)

        generator = torch.Generator(gpu).manual_seed(0)
        begun = attack.begin(AttackInputs(there.labels, ball, clean, attack.goal, generator))

        def search_from(start: torch.Tensor) -> AttackState:
            search = copy.copy(begun)
            search.points = start
            return search

        start = ball.random(generator)
        eager = search_from(start)
        eager.move(eager.ask(attacked))
        given, moved = start.clone(), torch.empty_like(start)

        def step() -> None:
            search = search_from(given)
            search.move(search.ask(attacked))
            moved.copy_(search.points)

        graph = captured(step)
        moved.zero_()
        graph.replay()
        torch.cuda.synchronize()
        attacked._fault = None
    assert float((moved - eager.points).abs().max()) <= 0.03 / 4
    assert float(((moved - eager.points).abs() > 1e-6).float().mean()) < 0.01


def split() -> Split:
    images, labels = draw_toy_images(80, seed=5)
    return Split((images * 255).round().byte().numpy(), labels.numpy())


def test_a_compiled_network_trains_to_the_same_loss(gpu: torch.device) -> None:
    runtime = Runtime(str(gpu), "float32")
    losses, lines = [], []
    for compile_it in (False, True):
        classifier = build_classifier(
            backbones.get("timm:test_resnet"), TOY_CLASSES, image_size=16, resize_to=None, seed=0
        )
        recipe = Recipe(epochs=2, batch_size=20, lr=1e-3)

        def run(classifier=classifier, recipe=recipe) -> float:
            return train(
                classifier,
                split(),
                parse_defense("fgsm-at"),
                recipe,
                runtime,
                num_classes=TOY_CLASSES,
                seed=0,
            ).loss

        if compile_it:
            with compiled(classifier, runtime, 20, lines.append):
                losses.append(run())
        else:
            losses.append(run())
    assert lines == []  # it compiled
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
