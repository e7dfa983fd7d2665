"""Changes of variables: an unbounded w for every image in [0, 1], so that an optimiser needs no clipping.

Carlini & Wagner (2017), Sec. V-B, write x = (tanh w + 1) / 2. A pixel at exactly 0 or 1 is then at infinity; even
drawn inwards by one in a million it sits where the map is flat and needs hundreds of Adam steps to move at
all: of MNIST digits, which are mostly 0 and 1, most pixels are frozen. x = (sin w + 1) / 2 keeps the box as
well and reaches its faces at finite w, with a slope that grows at once, so that ``sine`` is the default here and
``tanh`` the paper's.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

SHRINK = 1 - 1e-6
"""Images are drawn towards mid-grey by this factor before the inverse map: at the faces of the box both maps
are flat. A value in [0, 1] moves by at most 5e-7."""


@dataclass(frozen=True)
class Space:
    """A map from unbounded w to (-1, 1), elementwise.

    Attributes:
        forward: w to (-1, 1).
        inverse: (-1, 1) to w.
        slope: derivative of ``forward`` at w.
    """

    forward: Callable[[Tensor], Tensor]
    inverse: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]

    def unbounded(self, images: Tensor) -> Tensor:
        """Return w of ``images`` in [0, 1], any shape; ``bounded`` gives them back within 6e-7."""
        return self.inverse((2 * images - 1) * SHRINK)

    def bounded(self, w: Tensor) -> Tensor:
        """Return the images in [0, 1] at ``w``, same shape."""
        return (self.forward(w) + 1) / 2

    def chain(self, gradient: Tensor, w: Tensor) -> Tensor:
        """Return the gradient with respect to ``w`` of what has ``gradient`` with respect to the image."""
        return gradient * self.slope(w) / 2


SPACES = {
    "sine": Space(torch.sin, torch.asin, torch.cos),
    "tanh": Space(torch.tanh, torch.atanh, lambda w: 1 - torch.tanh(w).square()),
}
