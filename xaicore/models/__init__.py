"""Classifiers that take images in [0, 1] and return logits; their training and their weights.

:func:`load` is the door, :data:`REGISTRY` the list of architectures. Normalisation is inside the model, every
activation is a module of its own that is called once per forward pass, and nothing works in place.
"""

from xaicore.models.classifier import Classifier
from xaicore.models.heads import train_head
from xaicore.models.inference import accuracy, predict
from xaicore.models.loading import load
from xaicore.models.recipe import Recipe, face_recipe
from xaicore.models.registry import REGISTRY
from xaicore.models.shape import start_as_identity
from xaicore.models.training import TrainingResult, train
from xaicore.models.two_logits import TwoLogits
from xaicore.models.weights import save

__all__ = [
    "REGISTRY",
    "Classifier",
    "Recipe",
    "TrainingResult",
    "TwoLogits",
    "accuracy",
    "face_recipe",
    "load",
    "predict",
    "save",
    "start_as_identity",
    "train",
    "train_head",
]
