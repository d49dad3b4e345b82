"""The toy problem, which the package ships for the authors of plug-ins."""

from robustbench_tin.testing.toy import TOY_CLASSES, Toy, build_toy_model, draw_toy_images, train_toy_model

__all__ = ["TOY_CLASSES", "Toy", "build_toy_model", "draw_toy_images", "train_toy_model"]
