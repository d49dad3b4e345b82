"""The README's commands for a newcomer, run exactly as they stand."""

import re
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"


def block(language: str, containing: str) -> str:
    """The README's only code block of a language that contains a text."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), flags=re.MULTILINE | re.DOTALL)
    (found,) = [text for text in blocks if containing in text]
    return found


def test_the_library_calls():
    import torch

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 10))
    names = {"model": model, "images": torch.rand(6, 3, 8, 8), "labels": torch.arange(6)}
    exec(block("python", "import evaluate, perturb"), names)
    assert list(names["records"]["attack"]) == ["clean", "fgsm", "fgsm", "pgd", "pgd"]
    assert names["adversarial"].shape == (2, 6, 3, 8, 8)


def test_the_first_two_commands_are_make_targets():
    first = block("sh", "make bench")
    assert [line.split("#")[0].strip() for line in first.strip().splitlines()] == ["make bench", "make test"]
