"""The process that :class:`benchmarks.peers.Worker` talks to: ``python -m benchmarks.peer_worker <threads>``.

It reads one JSON request a line and answers each with one; images travel as safetensors files. It holds one
model, and times nothing but the attack or the explanation.
"""

import importlib.metadata
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from benchmarks.measure import timed
from benchmarks.peer_calls import LIBRARIES, pytorch_grad_cam, seed
from xaicore import models

PACKAGES = ("torchattacks", "adversarial-robustness-toolbox", "torch", "numpy", "scipy")


class Desk:
    """Answers requests; the model stays from one to the next."""

    def __init__(self) -> None:
        self.model: torch.nn.Module | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        task = request.pop("do")
        if task == "versions":
            return {"versions": {name: importlib.metadata.version(name) for name in PACKAGES}}
        if task == "model":
            self.model = models.load(**request)
            return {}
        folder = Path(request["folder"])
        tensors = load_file(folder / "in.safetensors")
        images = tensors.pop("images")
        assert self.model is not None
        if task == "grad_cams":
            maps, seconds = pytorch_grad_cam(self.model, images, tensors.pop("targets"), request["layers"])
            save_file(maps, folder / "out.safetensors")
            return {"seconds": seconds}
        labels = tensors.pop("labels")
        call = LIBRARIES[request["library"]](
            request["attack"], self.model, images, labels, **request["parameters"], **tensors
        )
        seed(request["seed"])
        outcome = timed(self.model, call, len(images))
        save_file({"adversarial": outcome.adversarial}, folder / "out.safetensors")
        return {"seconds": outcome.seconds, "passes": outcome.passes}


def main() -> None:
    torch.set_num_threads(int(sys.argv[1]))
    # The libraries print: the answers get the real standard output for themselves.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    desk = Desk()
    for line in sys.stdin:
        try:
            answer = desk.answer(json.loads(line))
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
