"""An ONNX graph as a black box."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn


class OnnxSession(nn.Module):
    """An ONNX graph run by onnxruntime on the CPU; it gives logits but no gradients."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        super().__init__()
        self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (first, *_) = self._session.get_inputs()
        self.outputs = tuple(output.name for output in self._session.get_outputs())
        self._input = first.name
        # A graph exported for one batch size accepts no other.
        fixed = first.shape[0] if first.shape else None
        self._batch: int | None = fixed if isinstance(fixed, int) and fixed > 0 else None

    def forward(self, images: Tensor) -> Tensor | dict[str, Tensor]:
        """Logits of images, on the images' device; a dict by name if the graph has several outputs."""
        shown = images.detach().cpu().float()
        batches = [shown] if self._batch is None else list(torch.split(shown, self._batch))
        answers = zip(*map(self._answers, batches), strict=True)
        found = [torch.cat(answer).to(images.device) for answer in answers]
        return found[0] if len(found) == 1 else dict(zip(self.outputs, found, strict=True))

    def _answers(self, batch: Tensor) -> list[Tensor]:
        asked = len(batch)
        if self._batch is not None and asked < self._batch:
            batch = torch.cat([batch, batch[:1].expand(self._batch - asked, -1, -1, -1)])
        answers = self._session.run(None, {self._input: batch.numpy()})
        return [torch.from_numpy(answer)[:asked] for answer in answers]
