"""Named image sets: images in [0, 1], integer labels, class names and a fingerprint.

:func:`load` gives each by its name. ``mnist-5k``, ``orl-faces`` and ``imagenet-20`` are read from installed PyPI
packages and need no network; ``cats-vs-dogs``, ``faces``, ``imagenet``, ``mnist`` and ``folder`` are read from a
folder of the reader's own.
"""

from xaicore.data.faces import Cropped, crop_faces, find_face
from xaicore.data.imageset import ImageSet, from_tensors
from xaicore.data.loading import SETS, find_root, load

__all__ = ["SETS", "Cropped", "ImageSet", "crop_faces", "find_face", "find_root", "from_tensors", "load"]
