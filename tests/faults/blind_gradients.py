"""False gradients by an author who had not seen the trust checks: mistakes in a backward pass."""

from __future__ import annotations

import zlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from faults.base import Fault
from faults.cut_gradient import GradientChanged
from faults.host import Host
from faults.parts import Before, Change, borrow, with_gradient


class _Mirror(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, images: Tensor) -> Tensor:
        return images.flip(3)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient  # gradient.flip(3) is meant


class ForgottenFlip(Fault):
    """A flip of its own whose backward pass forgets to flip."""

    name = "flip that the backward pass forgets"

    def plant(self, host: Host) -> nn.Module:
        return Before(host.network, lambda images: _Mirror.apply(images).flip(3))

    def truth(self, host: Host) -> nn.Module:
        return host.network


class _Followed(nn.Module):
    """An activation whose gradient follows a rule."""

    def __init__(self, rule: Change) -> None:
        super().__init__()
        self.rule = rule

    def forward(self, values: Tensor) -> Tensor:
        return with_gradient(values.relu(), self.rule)


class GuidedBackpropagation(Fault):
    """Hooks for saliency maps were left on: activations pass positive gradients only."""

    name = "guided backpropagation left on"

    def rule(self, gradient: Tensor) -> Tensor:
        return gradient.clamp(min=0)

    def plant(self, host: Host) -> nn.Module:
        return host.activated(lambda: _Followed(self.rule)).eval().requires_grad_(False)

    def truth(self, host: Host) -> nn.Module:
        return host.network


class CompressedGradients(GuidedBackpropagation):
    """Each activation keeps the largest hundredth of an image's gradient."""

    name = "gradients compressed at each activation"

    def rule(self, gradient: Tensor) -> Tensor:
        flat = gradient.flatten(1)
        kept = flat.abs().topk(max(1, flat.shape[1] // 100), dim=1).indices
        return torch.zeros_like(flat).scatter(1, kept, flat.gather(1, kept)).view_as(gradient)


class FrameOnly(GradientChanged):
    """The image is pasted without its gradient: a thin frame keeps one."""

    name = "gradient of the frame only"

    def rule(self, gradient: Tensor) -> Tensor:
        width = max(1, gradient.shape[-1] // 11)
        framed = gradient.clone()
        framed[..., width:-width, width:-width] = 0
        return framed


class CoarseColour(Fault):
    """A codec whose brightness is computed out of autograd's sight: halved colours carry the gradient."""

    name = "gradient of coarse colours only"

    def plant(self, host: Host) -> nn.Module:
        def coded(images: Tensor) -> Tensor:
            colours = images - images.mean(dim=1, keepdim=True)
            coarse = functional.interpolate(functional.avg_pool2d(colours, 8), size=images.shape[-2:])
            return borrow(images, coarse)

        return Before(host.network, coded)

    def truth(self, host: Host) -> nn.Module:
        return host.network


class FourBitGradients(GradientChanged):
    """Fifteen levels for the gradients of a whole batch: those of wrong images flush the others to zero."""

    name = "four-bit gradients of a batch"

    def rule(self, gradient: Tensor) -> Tensor:
        step = gradient.abs().max() / 7 + 1e-30
        return (gradient / step).round() * step


class PrivateGradients(Fault):
    """Clipping and noise of differential privacy stay on; the noise follows from the image."""

    name = "private gradients"

    def plant(self, host: Host) -> nn.Module:
        def private(images: Tensor) -> Tensor:
            seeds = [zlib.crc32(image.detach().contiguous().numpy().tobytes()) for image in images]

            def rule(gradient: Tensor) -> Tensor:
                noise = [
                    torch.randn(gradient.shape[1:], generator=torch.Generator().manual_seed(s)) for s in seeds
                ]
                length = gradient.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, 1, 1, 1)
                return gradient / length + 30 / gradient[0].numel() ** 0.5 * torch.stack(noise)

            return with_gradient(images, rule)

        return Before(host.network, private)

    def truth(self, host: Host) -> nn.Module:
        return host.network


class RankOneGradients(GradientChanged):
    """Low-rank compression: the best matrix of rank one for each channel."""

    name = "gradients of rank one"

    def rule(self, gradient: Tensor) -> Tensor:
        left, values, right = torch.linalg.svd(gradient, full_matrices=False)
        return left[..., :1] * values[..., None, :1] @ right[..., :1, :]


class _Standardised(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, images: Tensor) -> Tensor:
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        deviation = images.std(dim=(1, 2, 3), keepdim=True).clamp(min=1e-4)
        context.save_for_backward((images - mean) / deviation)
        return images.clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        (standard,) = context.saved_tensors
        # The mean of the products is meant, not their sum.
        along = (gradient * standard).sum(dim=(1, 2, 3), keepdim=True)
        return gradient - gradient.mean(dim=(1, 2, 3), keepdim=True) - standard * along


class StandardisationWithoutItsMean(Fault):
    """A backward pass of standardisation, by hand, that lacks a division."""

    name = "standardisation whose backward pass lacks a division"

    def plant(self, host: Host) -> nn.Module:
        return Before(host.network, _Standardised.apply)

    def truth(self, host: Host) -> nn.Module:
        return host.network
