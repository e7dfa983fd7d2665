"""What a reader's browser has to load: of the whole built book, of a page, and before a page shows its first screen."""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

BOOK, PAGE, FIRST_SCREEN = 40_000_000, 4_000_000, 1_000_000
"""Bytes that are meant to be enough, uncompressed."""
LOADING = re.compile(r"<(?P<element>img|script|link)\b[^>]*?\s(?:src|href)=\"(?P<address>[^\"]+)\"[^>]*>")


@dataclass(frozen=True)
class Sizes:
    """Bytes of a built book.

    Attributes:
        book: of all its files.
        pages: page → with all that it loads, also what comes later, such as pictures further down. What a script asks
            for (the explorer's pictures) is not counted.
        first_screens: page → with what has to be there before it is shown: style sheets, scripts that are not deferred,
            pictures that are not lazy.
    """

    book: int
    pages: dict[str, int]
    first_screens: dict[str, int]

    def lines(self) -> list[str]:
        """Return one line that sums up, and one for each size that is above what is meant to be enough."""
        page, first = (max(each, key=each.__getitem__) for each in (self.pages, self.first_screens))
        largest = (
            ("the book", self.book, BOOK),
            (f"the page {page}", self.pages[page], PAGE),
            (f"the first screen of {first}", self.first_screens[first], FIRST_SCREEN),
        )
        said = ", ".join(f"{what} {size / 1e6:.1f} MB" for what, size, _ in largest)
        above = [
            f"warning: {what} takes {size / 1e6:.1f} MB; the aim is at most {aim / 1e6:.0f} MB"
            for what, size, aim in largest
            if size > aim
        ]
        return [f"sizes, the largest: {said}", *above]


def sizes(folder: Path) -> Sizes:
    """Measure a built book."""
    folder = folder.resolve()
    files = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    pages, first_screens = {}, {}
    for path, size in files.items():
        if path.suffix != ".html" or path.parent.name == "_static":  # templates of the theme, not pages
            continue
        loaded: dict[Path, bool] = {}
        for found in LOADING.finditer(path.read_text(encoding="utf-8")):
            tag, target = found[0], (path.parent / unquote(urlsplit(found["address"]).path)).resolve()
            if found["element"] == "link" and 'rel="stylesheet"' not in tag:
                continue
            later = 'loading="lazy"' in tag or (found["element"] == "script" and " defer" in tag)
            loaded[target] = loaded.get(target, True) and later
        name = path.relative_to(folder).as_posix()
        pages[name] = size + sum(files.get(target, 0) for target in loaded)
        first_screens[name] = size + sum(files.get(t, 0) for t, later in loaded.items() if not later)
    return Sizes(sum(files.values()), pages, first_screens)
