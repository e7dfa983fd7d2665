"""Runs a notebook as on Colab: its first cell installs the package from an address, in a folder without the project.

``python .ci/colab.py NOTEBOOK ADDRESS VERSION``, with the parameters of the quick edition; see
.github/workflows/colab.yml.
"""

import json
import re
import subprocess
import sys
import types
from pathlib import Path


def first_cell(notebook: Path, address: str, version: str) -> str:
    """Return the source of the notebook's first cell, with the address and the version that the built book fills in."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    cell = next(cell for cell in cells if "bootstrap" in cell["metadata"].get("tags", []))
    source = "".join(cell["source"])
    for name, value in (("_repository", address), ("_tag", version)):
        source, found = re.subn(rf'^{name} = ".*?"', f'{name} = "{value}"', source, flags=re.MULTILINE)
        if found != 1:
            sys.exit(f"the first cell of {notebook.name} does not set {name}")
    return source


def run(notebook: Path) -> list[str]:
    """Return the command that runs the notebook with the parameters of the quick edition."""
    import yaml

    edition = notebook.resolve().parent.parent / "editions" / "quick.yml"
    settings = yaml.safe_load(edition.read_text(encoding="utf-8"))["notebooks"][notebook.stem]
    parameters = json.dumps(settings["parameters"])
    return [sys.executable, "-m", "papermill", str(notebook), "out.ipynb", "-y", parameters]


if __name__ == "__main__":
    path = Path(sys.argv[1])
    sys.modules["google.colab"] = types.ModuleType("google.colab")
    exec(first_cell(path, *sys.argv[2:]), {})
    subprocess.run(run(path), check=True)
