r"""SentiNet: does what the network looks at carry its answer into other images? (Chou, Tramèr and Pellegrino 2020)

For an image that is called :math:`y`: its *regions* are where Grad-CAM of :math:`y` is high, and the same without where
that of another likely class is high (Sec. IV-A). Each region is pasted on clean images, the *carriers*; *fooled* is the
share of those of another class that are now called :math:`y`. The same region full of noise covers as much and carries
nothing; *confidence* is how sure the network is then, on average. A patch fools and covers little that matters, so both
are high; a large true object fools by covering what the carrier shows.

The paper fits a parabola above the points of clean images (Sec. IV-C) and takes the distance to it. That needs many of
them; here the boundary is a straight line, with the score

.. math:: s(x) = \max_\text{regions} (\text{fooled} + \text{confidence}) \in [0, 2].
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from xaicore.attribution.grad_cam import grad_cam
from xaicore.core import checks
from xaicore.core.errors import UserError
from xaicore.detectors.base import Detector


class SentiNet(Detector):
    """Pastes what the network looks at onto clean images, and asks whether the answer goes with it.

    The clean images of :meth:`~Detector.fit` are the carriers, in at least two of the network's answers.

    Args:
        model: the classifier, with convolutions.
        proposals: other likely classes whose part is taken out of the region, at least 0.
        level: where a map counts as high, in shares of its largest value, in (0, 1); the paper has 0.15.
        fpr: the share of calibration images that :meth:`flagged` flags at most.
        seed: of the noise.
        batch_size: rows of a pass of the network; None: what suits the size of the images.

    References:
        Chou, Tramèr and Pellegrino, SentiNet: Detecting Localized Universal Attacks Against Deep Learning Systems,
        IEEE Security and Privacy Workshops 2020.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        proposals: int = 1,
        level: float = 0.15,
        fpr: float = 0.05,
        seed: int = 0,
        batch_size: int | None = None,
    ) -> None:
        super().__init__(
            model,
            fpr=fpr,
            proposals=checks.integer("proposals", proposals, least=0),
            level=checks.not_negative("level", level, most=1),
            seed=checks.integer("seed", seed, least=0),
            batch_size=None if batch_size is None else checks.integer("batch_size", batch_size, least=1),
        )
        self._carriers: tuple[Tensor, Tensor] | None = None

    def _learn(self, clean: Tensor, calibration: Tensor, adversarial: Tensor | None) -> None:
        answers = self._logits(clean, self._settings["batch_size"]).argmax(1)
        if (answers == answers[0]).all():
            raise UserError("SentiNet needs clean images in at least two of the network's answers")
        self._carriers = clean, answers

    def regions(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return where the network looks, (N, 1 + proposals, H, W) bool, and its answers, (N,) int64."""
        images = checks.images(images).detach()
        logits = self._logits(images, self._settings["batch_size"])
        classes = logits.topk(min(1 + self._settings["proposals"], logits.shape[1])).indices.to(images.device)
        found = []
        for image, each in zip(images, classes, strict=True):
            (maps,) = grad_cam(self.model, image.expand(len(each), *image.shape), each, "last").values()
            large = functional.interpolate(maps[:, None], image.shape[1:], mode="bilinear")[:, 0]
            high = large > self._settings["level"] * large.amax((1, 2), keepdim=True)
            found.append(torch.cat([high[:1], high[:1] & ~high[1:]]))
        return torch.stack(found), classes[:, 0]

    def points(self, images: Tensor) -> Tensor:
        """Return fooled and confidence of each region, (N, 1 + proposals, 2) float64 on the CPU, in [0, 1].

        Both are 0 of a region that is empty.
        """
        carriers, own = self._known(self._carriers)
        noise = torch.rand(images.shape[1:], generator=torch.Generator().manual_seed(self._settings["seed"]))
        found = []
        for image, regions, answer in zip(images, *self.regions(images), strict=True):
            over = torch.stack([image, noise.to(image)])[:, None]
            pasted = torch.where(regions[:, None, None, None], over, carriers.to(image))
            logits = self._logits(pasted.flatten(0, 2), self._settings["batch_size"])
            content, inert = logits.double().view(len(regions), 2, len(carriers), -1).unbind(1)
            fooled = (content.argmax(2) == answer)[:, own != answer].double().mean(1)
            confidence = inert.softmax(2).amax(2).mean(1)
            found.append(
                (torch.stack([fooled, confidence], 1) * regions.any((1, 2), keepdim=True)[:, 0]).cpu()
            )
        return torch.stack(found)

    def _score(self, images: Tensor) -> Tensor:
        return self.points(images).sum(2).amax(1)
