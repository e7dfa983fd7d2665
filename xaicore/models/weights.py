"""Weights: where they come from, whether they fit, and saving them.

Files are read as data only (safetensors, or ``torch.load`` with ``weights_only=True``), so a hostile file
cannot run code.
"""

import hashlib
import io
import json
import os
import pickle
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from safetensors.torch import save as encoded
from torch import Tensor, nn

from xaicore.core.errors import UserError
from xaicore.core.files import write_atomically
from xaicore.models.classifier import Classifier

SUFFIXES = (".safetensors", ".pt", ".pth")
WRAPPERS = ("state_dict", "model_state_dict", "model")
IMAGENET_CLASSES = 1000

Normalisation = tuple[Sequence[float], Sequence[float]]
"""Mean and standard deviation of each colour channel of the images, in [0, 1]."""


def read(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Return the weights in a file, name -> tensor, on the CPU.

    Args:
        path: a ``.safetensors``, ``.pt`` or ``.pth`` file of a state dict, possibly wrapped in
            ``{"state_dict": …}`` or ``{"model_state_dict": …}``, names possibly prefixed with ``module.`` or
            ``network.``.

    Raises:
        UserError: the file is missing, truncated, of another kind, or would have to execute code to be read.
    """
    file, shown = Path(path).expanduser(), str(path)
    if not file.is_file():
        raise UserError(f"there is no weights file {shown}")
    if file.suffix not in SUFFIXES:
        raise UserError(f"weights must be a {', '.join(SUFFIXES)} file, got {shown}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch asks for an issue where a pickle is not of its own kind
            content = (
                load_file(file)
                if file.suffix == ".safetensors"
                else torch.load(file, map_location="cpu", weights_only=True)
            )
    except pickle.UnpicklingError:
        raise UserError(
            f"{shown} holds more than tensors, a whole model for instance, or is damaged; nothing of it was executed; "
            "save model.state_dict() instead"
        ) from None
    except Exception:  # what a damaged file raises depends on where the damage is
        raise UserError(f"{shown} is truncated or no weights file; fetch or save it again") from None
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    tensors = content.values() if isinstance(content, Mapping) else ()
    if not tensors or not all(isinstance(entry, Tensor) for entry in tensors):
        raise UserError(f"{shown} holds no state dict (names and tensors); save model.state_dict() instead")
    return {
        str(name).removeprefix("module.").removeprefix("network."): tensor for name, tensor in content.items()
    }


def stated_normalisation(
    path: str | os.PathLike[str], known: Mapping[str, Normalisation] | None
) -> Normalisation | None:
    """Return the normalisation of the images that a weights file says it is for, or that is known of this very file.

    Args:
        path: a file that :func:`read` can read.
        known: what the sha256 of a file begins with -> its normalisation.

    Returns:
        None where neither is so. :func:`save` writes the normalisation into a ``.safetensors`` file.

    Raises:
        UserError: what the file says is damaged.
    """
    file = Path(path).expanduser()
    if file.suffix == ".safetensors":
        with safe_open(file, "pt") as content:
            about = (content.metadata() or {}).get("xaicore", "{}")
        try:
            stated = json.loads(about)
            if {"mean", "std"} <= stated.keys():
                return [float(value) for value in stated["mean"]], [float(value) for value in stated["std"]]
        except (ValueError, TypeError, AttributeError):
            raise UserError(f"what {path} says of how its images are normalised cannot be read") from None
    digest = _sha256(file) if known else ""
    return next((each for begin, each in (known or {}).items() if digest.startswith(begin)), None)


def put(network: nn.Module, state: Mapping[str, Tensor], shown: str, *, head: str, transfer: bool) -> None:
    """Put weights (name -> tensor), which messages call ``shown``, into a network, all of them or none.

    With ``transfer`` the network's own head, whose names begin with ``head``, such as ``"fc."``, stays as initialised,
    and the one in ``state`` is ignored.

    Raises:
        UserError: naming the first tensor that is missing, superfluous, of another shape, or not finite.
    """

    def shape(tensor: Tensor) -> str:
        return "x".join(map(str, tensor.shape)) or "a scalar"

    expected, given = (
        {name: tensor for name, tensor in each.items() if not (transfer and name.startswith(head))}
        for each in (network.state_dict(), state)
    )
    for name, tensor in expected.items():
        if name not in given:
            if name.endswith("num_batches_tracked"):
                continue
            raise UserError(f"{shown} does not fit: it has no {name} (expected {shape(tensor)})")
        if given[name].shape != tensor.shape:
            raise UserError(f"{shown} does not fit: {name} is {shape(given[name])}, expected {shape(tensor)}")
        if not bool(torch.isfinite(given[name]).all()):
            raise UserError(f"{shown} is damaged: {name} holds values that are not finite")
    for name in given:
        if name not in expected:
            raise UserError(
                f"{shown} does not fit: it has {name} ({shape(given[name])}), which the network lacks"
            )
    network.load_state_dict(given, strict=False)


def is_imagenet(state: Mapping[str, Tensor], head: str) -> bool:
    """Whether the last layer of ``state`` has the 1,000 outputs of ImageNet."""
    biases = [tensor for name, tensor in state.items() if name.startswith(head) and name.endswith("bias")]
    return bool(biases) and biases[-1].shape == (IMAGENET_CLASSES,)


def check_cached(file: Path, digest: str) -> None:
    """Refuse a downloaded file that was damaged since, say by a full disk.

    Raises:
        UserError: it is there, and the sha256 of its content, hexadecimal, does not begin with ``digest``.
    """
    if not file.is_file():
        return
    if not _sha256(file).startswith(digest):
        raise UserError(
            f"the downloaded file {file.name} is damaged; delete it from torch's folder {file.parent.name} and run "
            "again"
        )


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def download(name: str, fetch: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return published weights, from the local cache or over the network.

    Raises:
        UserError: they cannot be fetched, say because there is no network.
    """
    try:
        return dict(fetch())
    except UserError:
        raise
    except Exception as error:  # each library has its own errors for "no network"
        raise UserError(
            f"the ImageNet weights of {name} cannot be downloaded ({type(error).__name__}); "
            "go online once, or give the path of a weights file"
        ) from error


def save(model: Classifier, path: str | os.PathLike[str]) -> Path:
    """Save the weights of a model, whole or not at all; return the path.

    Args:
        model: the model.
        path: a ``.safetensors`` file, which also holds the name, classes, normalisation and options of the model, or
            a ``.pt``/``.pth`` file.

    Raises:
        UserError: the suffix is another, the folder does not exist or cannot be written to, or the disk is full.
    """
    file = Path(path).expanduser()
    if file.suffix not in SUFFIXES:
        raise UserError(f"weights must be saved as {', '.join(SUFFIXES)}, got {path}")
    if not file.parent.is_dir():
        raise UserError(f"there is no folder for {path}; make it first")
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.network.state_dict().items()}
    about = {name: getattr(model, name) for name in ("name", "classes", "input_size", "options")}
    about |= {name: getattr(model, name).flatten().tolist() for name in ("mean", "std")}
    if file.suffix == ".safetensors":
        content = encoded(state, metadata={"format": "pt", "xaicore": json.dumps(about)})
    else:
        torch.save(state, buffer := io.BytesIO())
        content = buffer.getvalue()
    return write_atomically(file, content, what="the weights file")
