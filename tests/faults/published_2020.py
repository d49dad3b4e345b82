"""Defenses that Tramèr, Carlini, Brendel and Madry, 2020, arXiv 2002.08347, broke; small versions of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from faults.base import DetachedChange, Fault
from faults.host import Host
from faults.parts import Averaged, Before, Borrowed, Change, borrow, drawn


class _WinnersTakeAll(nn.Module):
    """Keeps the largest fifth of an image's values and sets the others to 0."""

    def forward(self, values: Tensor) -> Tensor:
        flat = values.flatten(1)
        least = flat.topk(flat.shape[1] // 5, dim=1).values[:, -1:]
        return (flat * (flat >= least)).view_as(values)


def _fitted_winners(host: Host) -> nn.Module:
    return host.fitted(host.activated(_WinnersTakeAll), steps=20, rate=2e-3)


class WinnersTakeAll(Fault):
    """Each activation jumps if the order of two values changes."""

    name = "k winners take all"
    paper = "Xiao, Zhong, Zheng, 2020, arXiv 1905.10510"

    def plant(self, host: Host) -> nn.Module:
        return host.once(_fitted_winners)

    def truth(self, host: Host) -> nn.Module:
        return Averaged(host.once(_fitted_winners), sigma=0.05)


class _Odds(nn.Module):
    """Looks at the effect of noise on the logits; if it favours another class than usual, that class wins."""

    def __init__(self, host: Host, sigma: float = 0.1) -> None:
        super().__init__()
        self.network, self.sigma = host.network, sigma
        with torch.no_grad():
            logits = host.network(host.images)
            moves = self.moves(host.images, logits)
            answers = functional.one_hot(logits.argmax(dim=1), host.classes).float()
            counts = answers.sum(dim=0).clamp_min(1)[:, None]
            self.mean = answers.T @ moves / counts
            self.deviation = (answers.T @ moves**2 / counts - self.mean**2).clamp_min(1e-6).sqrt()

    def moves(self, images: Tensor, logits: Tensor) -> Tensor:
        """How far noise raises each logit above that of the answer, on average over 8 draws."""
        shown = [self.network(images + self.sigma * torch.randn_like(images)) for _ in range(8)]
        moved = torch.stack(shown).mean(dim=0) - logits
        return moved - moved.gather(1, logits.argmax(dim=1, keepdim=True))

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        with torch.no_grad():
            answers = logits.argmax(dim=1)
            odds = (self.moves(images, logits) - self.mean[answers]) / self.deviation[answers]
            most, suspected = odds.max(dim=1)
            raised = functional.one_hot(suspected, logits.shape[1]) * (most > 3.0)[:, None]
        return logits + 100 * raised


class OddsAreOdd(Fault):
    """Detects the images of attacks that climb the logits alone; those that pass the test are as many."""

    name = "noise statistic that corrects the answer"
    paper = "Roth, Kilcher, Hofmann, 2019, arXiv 1902.04818"
    hides = False

    def plant(self, host: Host) -> nn.Module:
        return _Odds(host)

    def truth(self, host: Host) -> nn.Module:
        return Averaged(host.network, sigma=0.1)


class _Prototypes(nn.Module):
    """Minus the squared distance of an image's features from each class's mean, under a narrow Gaussian."""

    def __init__(self, host: Host, sharpness: float) -> None:
        super().__init__()
        self.body, _ = host.split()
        self.sharpness = sharpness
        with torch.no_grad():
            features = self.body(host.images)
            one_hot = functional.one_hot(host.labels, host.classes).float()
            self.means = one_hot.T @ features / one_hot.sum(dim=0)[:, None]
            self.scale = features.std()

    def forward(self, images: Tensor) -> Tensor:
        distances = torch.cdist(self.body(images), self.means) / self.scale
        return -self.sharpness * distances**2


class GenerativeClassifier(Fault):
    name = "likelihoods under narrow Gaussians"
    paper = "Li, Bradshaw, Sharma, 2019, arXiv 1802.06552"

    def plant(self, host: Host) -> nn.Module:
        return _Prototypes(host, sharpness=20.0)

    def truth(self, host: Host) -> nn.Module:
        return _Prototypes(host, sharpness=0.05)


def sparse(images: Tensor, share: float = 0.05) -> Tensor:
    """Images of their largest Fourier coefficients only, these in steps of a fixed size."""
    spectrum = torch.fft.rfft2(images, norm="ortho")
    size = spectrum.abs().flatten(2)
    least = size.topk(max(4, int(share * size.shape[-1])), dim=-1).values[..., -1:]
    kept = spectrum * (size >= least).view_as(spectrum.real)
    rounded = torch.view_as_complex((torch.view_as_real(kept) * 8).round() / 8)
    return torch.fft.irfft2(rounded, s=images.shape[-2:], norm="ortho")


class SparseFourier(Fault):
    name = "sparse Fourier transform"
    paper = "Bafna, Murtagh, Vyas, 2018, arXiv 1812.03135"

    def plant(self, host: Host) -> nn.Module:
        return Before(host.network, sparse)

    def truth(self, host: Host) -> nn.Module:
        return Before(host.network, lambda images: borrow(sparse(images), images))


class _Codes(nn.Module):
    """Each class has a code word of 16 signs; saturated outputs are compared with the words."""

    def __init__(self, host: Host, gain: float) -> None:
        super().__init__()
        self.body, _ = host.split()
        self.gain = gain
        self.register_buffer("words", drawn(host.classes, 16, seed=2).sign())
        with torch.no_grad():
            features = self._features(host.images)
            ridge = 1e-3 * len(features) * torch.eye(features.shape[1])
            targets = self.words[host.labels]
            self.top = torch.linalg.solve(features.T @ features + ridge, features.T @ targets)

    def forward(self, images: Tensor) -> Tensor:
        bits = self._features(images) @ self.top
        return (bits if self.gain == 0 else (self.gain * bits).tanh()) @ self.words.T

    def _features(self, images: Tensor) -> Tensor:
        features = self.body(images)
        return torch.cat([features, torch.ones_like(features[:, :1])], dim=1)


class ErrorCorrectingCodes(Fault):
    name = "error-correcting output codes"
    paper = "Verma, Swami, 2019, NeurIPS"

    def plant(self, host: Host) -> nn.Module:
        return _Codes(host, gain=100.0)

    def truth(self, host: Host) -> nn.Module:
        return _Codes(host, gain=0.0)


class _Ensemble(nn.Module):
    """The logarithm of the mean probability of several networks."""

    def __init__(self, networks: list[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, images: Tensor) -> Tensor:
        return (self.probabilities(images).mean(dim=0) + 1e-20).log()

    def probabilities(self, images: Tensor) -> Tensor:
        """The probabilities of each network, ``(networks, N, classes)``."""
        return torch.stack([network(images) for network in self.networks]).softmax(dim=-1)


class _FourLevels(nn.Module):
    """A ReLU with four levels, as in networks of two bits."""

    def forward(self, values: Tensor) -> Tensor:
        step = values.detach().abs().flatten(1).mean(dim=1).view(-1, *[1] * (values.ndim - 1))
        return (values / step).round().clamp(0, 3) * step


def _quantised(host: Host) -> nn.Module:
    return host.activated(_FourLevels).eval()


class QuantisedEnsemble(Fault):
    """Two of three networks have low-bit activations, without a gradient, and outvote the third."""

    name = "ensemble of low-bit networks"
    paper = "Sen, Ravindran, Raghunathan, 2020, arXiv 2004.10162"

    def plant(self, host: Host) -> nn.Module:
        return _Ensemble([host.another(), *[_quantised(host)] * 2])

    def truth(self, host: Host) -> nn.Module:
        low = Borrowed(_quantised(host), host.network)
        return _Ensemble([host.another(), *[low] * 2])


def estimated(images: Tensor, rank: int) -> Tensor:
    """Pixels dropped at random, and the matrix of a low rank that fits the others (a truncated SVD)."""
    kept = (torch.rand_like(images) < 0.8) / 0.8
    left, spread, right = torch.linalg.svd((images - 0.5) * kept, full_matrices=False)
    return 0.5 + (left[..., :rank] * spread[..., None, :rank]) @ right[..., :rank, :]


class MatrixEstimation(DetachedChange):
    name = "masking and matrix estimation"
    paper = "Yang, Zhang, Katabi, Xu, 2019, arXiv 1905.11971"
    copies = 10

    def change(self, host: Host) -> Change:
        return lambda images: estimated(images, host.size // 3)


class MixupInference(Fault):
    name = "mixup with clean images at test time"
    paper = "Pang, Xu, Zhu, 2020, arXiv 1909.11515"
    hides = False

    def plant(self, host: Host) -> nn.Module:
        def mixed(images: Tensor) -> Tensor:
            rows = torch.randint(len(host.images), (len(images),))
            return 0.6 * images + 0.4 * host.images[rows].to(images)

        return Averaged(Before(host.network, mixed), copies=5)

    def truth(self, host: Host) -> nn.Module:
        return Averaged(self.plant(host), copies=5)
