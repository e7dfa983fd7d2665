"""The state of a training after an epoch, in a file, so that one that was killed continues there.

A continued training gives the weights of an undisturbed one, to the last bit.
"""

import io
import pickle
import time
from pathlib import Path
from typing import Any

import torch

from xaicore.core import progress
from xaicore.core.files import write_atomically

SECONDS = 30.0
"""Of training between two states that are written: shorter trainings write none."""


class Checkpoint:
    """The file of a training's state; without one nothing is written or found.

    Args:
        file: where the state is; None: nowhere.
        device: on which the network draws (dropout).
    """

    def __init__(self, file: Path | None, device: torch.device) -> None:
        self.file, self.device = file, device
        self._written = time.monotonic()

    def save(self, **state: Any) -> None:
        """Write what :meth:`load` is to return, where the last was written long enough ago.

        Raises:
            UserError: the disk is full or the folder cannot be written to.
        """
        if self.file is None or time.monotonic() - self._written < SECONDS:
            return
        drawn = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            drawn["cuda"] = torch.cuda.get_rng_state(self.device)
        buffer = io.BytesIO()
        torch.save({**state, "drawn": drawn}, buffer)
        write_atomically(self.file, buffer.getvalue(), what="the state of a training")
        self._written = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """Return the state last written, after setting the global generators to it; None where there is none.

        It is on the CPU. A damaged one is as good as none.
        """
        if self.file is None or not self.file.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self.file, map_location="cpu", weights_only=True)
            drawn = state.pop("drawn")
        except (OSError, EOFError, KeyError, RuntimeError, pickle.UnpicklingError):
            progress.warn("the state of a training that was ended is damaged, so it starts anew")
            return None
        torch.set_rng_state(drawn["cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(drawn["cuda"], self.device)
        return state
