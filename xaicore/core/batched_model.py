"""A model seen through batches of one fixed shape: logits and input gradients that depend on no batch mate.

Convolution and matrix libraries choose their algorithm by the shape of the batch, so the logits of an image
change in the last bits with the number of images beside it; a sign step or a contest between two candidates
can then end otherwise. Here every pass has exactly ``batch_size`` rows, a short batch is filled up, and an
image's logits and gradients no longer depend on its batch mates nor on its place in the batch.

Two exceptions are known, both in the last bits. PyTorch computes the last values of a tensor whose size is no multiple
of its vector length by scalar code, which rounds exponentials otherwise: in networks with SiLU, GELU or sigmoids
inside, the last image of a batch can differ. And MKL (2024.2, measured) sums the inputs of a linear layer in another
order for some rows of a batch, by the kernels that it takes on a processor:

- AVX-512: only in layers of 2 or 3 outputs and at most 288 inputs, at up to 15 rows;
- AVX2: in layers of 2 or 3 outputs at up to 15 rows, and in all, forwards and backwards, at 7 rows and more that leave
  1, 2 or 3 when divided by 6 (8 and 32, but not 4 or 16);
- SSE4.2: in layers of 2 or 3 outputs, and in all at up to 7 rows or a number that is no multiple of 4.

So a batch of 16 keeps layers of 4 outputs and more exact with all three. The environment variable
``MKL_CBWR=AUTO,STRICT``, set before Python starts, makes all of them exact with AVX-512 and AVX2, at the cost of slower
linear layers and other last bits. Convolutions show no such difference.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from xaicore.core import checks
from xaicore.core.batches import fixed_batch
from xaicore.core.devices import device_of
from xaicore.core.errors import UserError
from xaicore.core.outputs import checked_logits, naming_images
from xaicore.core.undisturbed import evaluation_mode, exact_arithmetic

Result = TypeVar("Result")


def wants_contiguous(failure: Exception) -> bool:
    """Return whether a pass failed because of the layout of its maps; PyTorch has no error of its own for that."""
    said = f"{failure} {failure.__cause__}"  # a compiled model's first line, which is shown, may not have the word
    return any(word in said for word in ("contiguous", "stride", "memory format", "memory_format"))


class BatchedModel:
    """Logits and input gradients of a frozen view of a model, in batches of one fixed shape.

    The view shares the model's memory where it can; on a CPU images and convolution weights are laid out
    channels-last, which is about 1.5 times as fast. A model that does not bear it, such as one that calls
    ``view`` on its maps, fails in its first pass; that pass is done again, and all others are, with contiguous
    memory. The model itself keeps its layout and its ``requires_grad`` flags, and may change its input in place.

    Args:
        model: (N, C, H, W) images in [0, 1] to (N, K) logits; in eval mode.
        batch_size: rows of every pass.

    Attributes:
        device: where it computes.
        classes: K, known after the first pass.
    """

    def __init__(self, model: nn.Module, batch_size: int) -> None:
        self.model = model
        self.batch_size = batch_size
        self.classes = 0
        self.device = device_of(model)
        self._lay_out(torch.channels_last if self.device.type == "cpu" else torch.contiguous_format)

    @classmethod
    @contextmanager
    def of(cls, model: nn.Module, images: Tensor, batch_size: int | None = None) -> Iterator[Self]:
        """Give the view of ``model`` within a block, where it is in eval mode and computes in plain float32.

        The model is checked by :func:`xaicore.core.checks.model`; of the images (N, C, H, W) and the device depends the
        ``batch_size`` where it is None.

        Raises:
            UserError: ``batch_size`` is no positive integer.
        """
        if batch_size is None:
            batch_size = fixed_batch(images.shape, device_of(model))
        batched = cls(model, checks.integer("batch_size", batch_size, least=1))
        with exact_arithmetic(batched.device), evaluation_mode(model):
            yield batched

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits (N, K) of ``images`` (N, C, H, W), on the model's device."""
        return self.logits_of(len(images), images.shape[1:], lambda part: images[part])

    def logits_of(self, count: int, shape: torch.Size, build: Callable[[slice], Tensor]) -> Tensor:
        """Return the logits (count, K) of images (C, H, W), which ``build`` gives for a slice of 0..count-1 at a time."""
        buffer = self._buffer(shape)
        rows = []
        for part in self._parts(count):
            size = part.stop - part.start
            buffer[:size] = build(part)
            with torch.inference_mode():
                rows.append(self._passed(buffer, self._forward)[:size].clone())
        return torch.cat(rows) if rows else torch.empty(0, self.classes, device=self.device)

    def differentiate(
        self, images: Tensor, objective: Callable[[Tensor, slice], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the logits (N, K) and the gradient (N, C, H, W) of an objective at ``images``.

        Args:
            images: (N, C, H, W).
            objective: from the logits (m, K) of a slice of the images, and that slice, to (m,) numbers to
                differentiate, one for each image and depending on its own logits only. It may be asked twice
                for a slice.
        """
        logits, gradients = self.jacobian(images, lambda logits, part: objective(logits, part)[:, None], 1)
        return logits, gradients[:, 0]

    def jacobian(
        self, images: Tensor, objectives: Callable[[Tensor, slice], Tensor], count: int
    ) -> tuple[Tensor, Tensor]:
        """Return the logits (N, K) and the gradients (N, count, C, H, W) of several objectives at ``images``.

        One pass forwards, and one backwards for each; ``objectives`` gives (m, count) numbers, else as in
        :meth:`differentiate`.
        """
        gradients = torch.zeros((len(images), count, *images.shape[1:]), device=self.device)
        rows = []
        for part in self._parts(len(images)):
            size = part.stop - part.start
            buffer = self._buffer(images.shape[1:])
            buffer[:size] = images[part]

            def both(batch: Tensor, part: slice = part, size: int = size) -> tuple[Tensor, list[Tensor]]:
                with torch.enable_grad():
                    logits = self._forward(batch.requires_grad_())[:size]
                    totals = objectives(logits, part).sum(dim=0).unbind()
                slopes = [
                    torch.autograd.grad(total, batch, retain_graph=which + 1 < count)[0][:size]
                    for which, total in enumerate(totals)
                    if total.requires_grad
                ]
                return logits.detach(), slopes

            logits, slopes = self._passed(buffer, both)
            for which, slope in enumerate(slopes):
                gradients[part, which] = slope
            rows.append(logits)
        return torch.cat(rows) if rows else torch.empty(0, self.classes, device=self.device), gradients

    def _lay_out(self, layout: torch.memory_format) -> None:
        self._layout = layout
        with torch.inference_mode(False):
            self._parameters = {
                name: p.detach().contiguous(memory_format=layout) if p.ndim == 4 else p.detach()
                for name, p in self.model.named_parameters()
            }

    def _passed(self, batch: Tensor, work: Callable[[Tensor], Result]) -> Result:
        """Return ``work(batch)``; where the layout makes it fail, this pass and all later ones are contiguous."""
        if self._layout == torch.channels_last:
            try:
                return work(batch)
            except Exception as failure:
                if not wants_contiguous(failure):
                    raise
                self._lay_out(torch.contiguous_format)
        return work(batch.detach().contiguous())

    def _buffer(self, shape: torch.Size) -> Tensor:
        return torch.zeros((self.batch_size, *shape), device=self.device).contiguous(
            memory_format=self._layout
        )

    def _parts(self, count: int) -> Iterator[slice]:
        for start in range(0, count, self.batch_size):
            yield slice(start, min(start + self.batch_size, count))

    def _forward(self, batch: Tensor) -> Tensor:
        with naming_images(batch.shape[1:]):
            output = functional_call(self.model, self._parameters, (batch.clone(),))
        logits = checked_logits(output, len(batch))
        if logits.dtype.itemsize < 4:
            raise UserError(
                f"model must return float32 logits, not {logits.dtype}: attacks do not run in reduced precision"
            )
        self.classes = logits.shape[1]
        return logits.float()
