"""Take the pictures of the README anew, from the book built last: ``python tests/make_pictures.py [_build/html]``.

They need a Chromium, and Pillow to make them small.
"""

import io
import sys
from pathlib import Path

from browser import Browser, address
from PIL import Image

from xaicore.book.pages.one_file import ABSENT, chromium

ROOT = Path(__file__).parents[1]
CASE = "image=9&attack=cw_l2&size=smallest&kind=attack&explanation=grad_cam&explained=answer"
PICTURES = {"front-page": ("book/index.html", "", 920), "explorer": ("notebooks/explorer.html", CASE, 1060)}
"""Each picture: the page, its fragment, and the height of the window."""


def main(site: Path) -> None:
    command = chromium()
    if command is None:
        sys.exit(ABSENT)
    with Browser(command) as browser:
        for name, (page, fragment, height) in PICTURES.items():
            browser.window(1280, height)
            browser.visit(address(site / page, fragment))
            picture = Image.open(io.BytesIO(browser.picture())).convert("RGB")
            picture.save(ROOT / ".github" / "pictures" / f"{name}.webp", quality=80, method=6)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "_build" / "html").resolve())
