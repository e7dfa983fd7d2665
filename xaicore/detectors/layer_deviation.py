r"""The Grad-CAM maps of all layers against those of a blurred version of the image (after paper 3).

Paper 3 finds that an attack moves the maps of the layers away from those of the clean image, which a detector does not
have. A blurred image stands in for it: blur takes away much of a perturbation and little of what is shown. The score is

.. math:: s(x) = \frac{1}{|L|} \sum_{l \in L} \frac{1 - \mathrm{SSIM}(M_l(x), M_l(\tilde x))}{2},

with the maps :math:`M_l` of the class predicted for x, so that a change of class shows as a change of the maps. Layers in
which either map is zero everywhere are left out; where all are, the score is 0. The mean clean pattern of a class, the
other choice, needs images of every class and is far from each single image's map.
"""

import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from xaicore.core import checks
from xaicore.core.batches import fixed_batch
from xaicore.core.devices import device_of
from xaicore.detectors.base import Detector, in_batches
from xaicore.metrics.shift import layer_shift


class LayerDeviation(Detector):
    """How far the maps of the layers move when the image is blurred.

    Args:
        model: the classifier, with convolutions; images of at least 7 pixels a side.
        sigma: standard deviation of the Gaussian blur, in pixels, positive.
        layers: ``"all"``, ``"last"``, or names as for :func:`xaicore.attribution.grad_cam`.
        fpr: the share of calibration images that :meth:`flagged` flags at most.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        sigma: float = 1.0,
        layers: str | tuple[str, ...] = "all",
        fpr: float = 0.05,
    ) -> None:
        super().__init__(model, fpr=fpr, sigma=checks.positive("sigma", sigma), layers=layers)

    def deviations(self, images: Tensor) -> Tensor:
        """Return the dissimilarity of each layer's maps, (N, layers) float64 in [0, 1]; NaN where there is no map."""
        images = checks.images(images).detach()
        width = (0, 0, self._settings["sigma"], self._settings["sigma"])
        blurred = torch.from_numpy(gaussian_filter(images.cpu().numpy(), width)).to(images).clamp_(0, 1)
        targets = self._logits(images).argmax(1).to(images.device)
        rows = fixed_batch(images.shape, device_of(self.model))

        def shifted(before: Tensor, after: Tensor, chosen: Tensor) -> Tensor:
            shift = layer_shift(
                self.model,
                before,
                after[:, None],
                layers=self._settings["layers"],
                targets=chosen,
                targets_after=chosen[:, None],
                batch_size=rows,
            )
            return shift.dissimilarity[:, 0]

        return in_batches(shifted, rows, images, blurred, targets).cpu()

    def _score(self, images: Tensor) -> Tensor:
        return self.deviations(images).nanmean(1).nan_to_num(0.0)
