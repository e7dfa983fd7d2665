"""What the parameters of every notebook share: their names, how strings become values, how mistakes are told.

papermill hands over strings as they were typed (``"8/255"``, ``"false"``, ``"null"``, ``"1e-3"``) and only
warns of a name it does not know; here such a string becomes the value it stands for, and everything else a
line that names the parameter.
"""

import ast
import contextlib
import difflib
import fractions
import json
import math
import os
import re
import types
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Annotated, Any, Self, Union, get_args, get_origin

import pandas as pd
import threadpoolctl
import torch
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from xaicore.core.errors import UserError
from xaicore.data import SETS
from xaicore.models import REGISTRY
from xaicore.run.params.checks import among, choices
from xaicore.run.params.readings import Reading, Subject

NOT_PARAMETERS = {"In", "Out", "exit", "quit", "get_ipython", "open"}
RESOLVED = "_xaicore_parameters_resolved"
PLAIN = (str, int, float, list, dict, type(None))


def fraction(value: Any) -> float:
    """Return a number given as a number or as text, ``0.03``, ``"1e-3"``, ``"8/255"``.

    Raises:
        ValueError: it is neither; infinities and NaN are no numbers here.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if isinstance(value, str):
        try:
            return float(fractions.Fraction(re.sub(r"\s*/\s*", "/", value.strip())))
        except (ValueError, ZeroDivisionError, OverflowError):
            pass
    raise ValueError(f"{value!r} is not a number or a fraction such as 8/255")


Fraction = Annotated[float, BeforeValidator(fraction)]
LearningRate = Annotated[Fraction, Field(gt=0, le=10)]
Side = Annotated[int, Field(ge=32, le=1024)]
DatasetName = Annotated[str, among(SETS)]
NetworkName = Annotated[str, among(REGISTRY)]


class NotebookParameters(BaseModel):
    """The parameters that all chapter notebooks have; a chapter's schema adds its own.

    Build it with :meth:`resolve` in a notebook and with :meth:`check` elsewhere: both raise
    :class:`~xaicore.core.errors.UserError` with one line.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, protected_namespaces=())

    dataset: DatasetName = Field("mnist-5k", description="name of the image set")
    data_root: str | None = Field(None, description="folder of the set or above it; none: $XAICORE_DATA")
    n_images: int | None = Field(None, ge=1, description="number of test images; none: all")
    model: NetworkName = Field("vgg16", description="name of the network")
    weights: str | None = Field(None, description="imagenet, a file of weights, or none to train here")
    seed: int = Field(
        0, ge=0, lt=2**31, description="seed of networks, attacks and draws; the images are the same for each"
    )
    device: str = Field("auto", description="where networks run: auto, cpu, cuda, cuda:1, mps")
    threads: int | None = Field(
        1, ge=1, le=1024, description="CPU threads, another number changes the last digits; none: as they are"
    )
    output_dir: str | None = Field(None, description="where the record goes; none: chosen by the runner")

    @classmethod
    def resolve(cls, namespace: MutableMapping[str, Any]) -> Self:
        """Check the parameters of a notebook; called as ``resolve(globals())`` in the cell after them.

        Every plain value (text, number, boolean, None, list, dict) in the namespace is taken for a parameter,
        apart from names that begin with an underscore and IPython's own. When the cell is run again later in
        the same kernel, names that the notebook has made meanwhile are no mistake. Sets the number of
        threads where ``threads`` is given.

        Args:
            namespace: the notebook's ``globals()``; a mark is left in it.

        Returns:
            The checked parameters.

        Raises:
            UserError: an unknown name, or a value that does not fit.
        """
        given = {
            name: value
            for name, value in namespace.items()
            if not name.startswith("_") and name not in NOT_PARAMETERS and isinstance(value, PLAIN)
        }
        if RESOLVED in namespace:  # a parameter whose name now is a module's keeps its value
            earlier = {
                n: v for n, v in namespace[RESOLVED].items() if not isinstance(namespace.get(n), PLAIN)
            }
            given = earlier | {name: value for name, value in given.items() if name in cls.model_fields}
        parameters = cls.check(given)
        namespace[RESOLVED] = given
        if parameters.threads is not None:
            use_threads(parameters.threads)
        return parameters

    @classmethod
    def check(cls, given: Mapping[str, Any]) -> Self:
        """Return the parameters with the values ``given``; what is not given has its default.

        Raises:
            UserError: an unknown name, or a value that does not fit.
        """
        for name in given:
            if name not in cls.model_fields:
                raise UserError(unknown_parameter(name, cls.model_fields))
        try:
            return cls.model_validate(dict(given))
        except ValidationError as error:
            raise UserError(_line(error)) from None

    @classmethod
    def of_record(cls, parameters: Mapping[str, Any]) -> Self:
        """Return the parameters of a record or an edition as they are, also those that this machine could not run."""
        return cls.model_construct(**{k: v for k, v in parameters.items() if k in cls.model_fields})

    @property
    def torch_device(self) -> torch.device:
        """The device that ``device`` stands for on this machine."""
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)

    @property
    def other_root(self) -> str | None:
        """Where further image sets lie: with the first, unless that is a ``folder``, which then holds nothing else."""
        return None if self.dataset == "folder" else self.data_root

    @property
    def trains(self) -> bool:
        """Whether the notebook trains the network that it is about, or its head."""
        return True

    @property
    def readings(self) -> list[Reading]:
        """The images that the notebook reads."""
        return [self._reading("test", self.n_images)]

    @property
    def subjects(self) -> list[Subject]:
        """What the notebook attacks or explains: the first image set with its network, then others."""
        return [self._subject()]

    def check_test_images(self, name: str, count: int) -> None:
        """Refuse a number ``count`` of test images of the set ``name`` that will not do, where a chapter needs more."""

    def _subject(self, classes: list[str] | None = None, **options: Any) -> Subject:
        """Return the first image set with its network, built with the options that are given."""
        size, chosen = getattr(self, "size", None), None if classes is None else tuple(classes)
        given = {name: value for name, value in options.items() if value is not None}
        return Subject(
            self.dataset, self.data_root, self.n_images, size, self.model, self.weights, given, chosen
        )

    def _reading(self, split: str, n: int | None = None, **more: Any) -> Reading:
        return Reading(self.dataset, self.data_root, split, n, **more)

    def _faces(self, shares: list[float] | None) -> list[Reading]:
        """Of a set of faces: cut by shares, or the set's own parts, and at most ``n_images`` test images."""
        if shares is not None:
            return [self._reading("all", self.n_images, at_most=True, shares=tuple(shares))]
        test = self._reading("test", self.n_images, at_most=True)
        return [self._reading("train"), self._reading("validation"), test]

    def _digits(self, n_train: int | None) -> list[Reading]:
        """Of a set whose network is trained here: ``n_train`` images for training, all for validation and test."""
        return [self._reading("train", n_train), self._reading("validation"), self._reading("test")]

    def scaled(self, steps: int) -> int:
        """Return the steps of an attack times the parameter ``effort`` where there is one, at least one."""
        return max(1, round(steps * getattr(self, "effort", 1.0)))

    def recorded(self) -> dict[str, Any]:
        """Return what a record keeps: JSON values, no ``output_dir``, folders by their last name."""
        plain = self.model_dump(mode="json", exclude={"output_dir"})
        for name in plain:
            if plain[name] and (name == "data_root" or name.endswith("weights")):
                plain[name] = Path(plain[name]).name
        return plain

    def show(self) -> pd.DataFrame:
        """Return a table of the resolved parameters: name, value, meaning."""
        rows = [
            (name, "none" if value is None else str(value), type(self).model_fields[name].description or "")
            for name, value in self.recorded().items()
        ]
        return pd.DataFrame(rows, columns=["parameter", "value", "meaning"]).set_index("parameter")

    @model_validator(mode="before")
    @classmethod
    def _read_strings(cls, values: Any) -> Any:
        return {
            name: _from_text(value, cls.model_fields[name]) if name in cls.model_fields else value
            for name, value in values.items()
        }

    @field_validator("device")
    @classmethod
    def _device_is_there(cls, device: str) -> str:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", device):
            raise ValueError(f"{device!r} is none of auto, cpu, cuda, cuda:N, mps")
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise ValueError(f"{device} asks for a GPU, but torch sees none here; use auto or cpu")
        if device.startswith("cuda:") and int(device[5:]) >= torch.cuda.device_count():
            raise ValueError(f"{device} is not there; this machine has {torch.cuda.device_count()} GPU")
        if device == "mps" and not torch.backends.mps.is_available():
            raise ValueError("mps asks for an Apple GPU, but torch sees none here; use auto or cpu")
        return device


def use_threads(count: int) -> None:
    """Let torch and the linear algebra below NumPy and SciPy use ``count`` threads in this process.

    Sums are split among threads, so results are the same to the last bit only for the same number.
    """
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(count)  # for libraries that are loaded later
    threadpoolctl.threadpool_limits(count)
    torch.set_num_threads(count)


def unknown_parameter(name: str, known: Mapping[str, Any]) -> str:
    """Return the line that says that ``name`` is no parameter, with the nearest one that is."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return f"unknown parameter {name!r}{hint} (known: {', '.join(known)})"


def _from_text(value: Any, field: FieldInfo) -> Any:
    """Return the value that a text typed on a command line stands for, given the parameter that it is for."""
    wanted = alternatives(field.annotation)
    if isinstance(value, str) and type(None) in wanted and value.strip().lower() in ("", "null", "none"):
        return value if value in choices(field.metadata) else None
    if str in wanted:
        return value
    if isinstance(value, bool) and bool not in wanted:
        return str(value)  # pydantic would take it for 0 or 1
    (of_list,) = [kind for kind in wanted if get_origin(kind) is list] or [None]
    if of_list is None:
        return value.strip() if isinstance(value, str) else value
    if isinstance(value, str):
        value = _list_from_notation(value.strip())
    if isinstance(value, (int, float)):
        value = [value]  # papermill hands a single number over as one
    if isinstance(value, (list, tuple)) and get_args(of_list)[0] is str:
        return [str(each) if isinstance(each, int) and not isinstance(each, bool) else each for each in value]
    return value


def _list_from_notation(text: str) -> Any:
    """Return the list that a text in JSON or Python notation, or a plain list with commas, stands for; else the text."""
    if text[:1] not in ("[", "(", "'", '"'):
        return [part.strip() for part in text.split(",")]
    for read in (json.loads, ast.literal_eval):
        with contextlib.suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            found = read(text)
            return [found] if isinstance(found, str) else found
    if re.fullmatch(r"\[[^\[\]()'\"]*\]", text):  # such as [cat, dog] or [2/255, 8/255]
        return [part.strip() for part in text[1:-1].split(",")]
    return text


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """Return the types that a parameter may have."""
    if get_origin(annotation) in (Union, types.UnionType):
        return get_args(annotation)
    return (annotation,)


def _line(error: ValidationError) -> str:
    """Return one line on the first thing that is wrong."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"] if not str(part).startswith(("function-", "list[")))
    value = first["input"]
    kinds = {
        "int": "is not a whole number",
        "float": "is not a number",
        "finite": "is not a finite number",
        "bool": "is not true or false",
        "string": "is not text",
        "list": "is not a list",
    }
    kind = first["type"].partition("_")[0]
    if first["type"] == "value_error":
        message = str(first["ctx"]["error"])
    elif kind in kinds:
        message = f"{value!r} {kinds[kind]}"
    else:
        message = f"{value!r}: {first['msg'][0].lower()}{first['msg'][1:]}"
    return f"parameter {place}: {message}" if place else message
