"""Mathematics of the EPUB as MathML, which readers of books show without scripts.

docutils converts it from LaTeX. On the web pages and in the PDF MathJax does.
"""

import html
import re

from bs4 import BeautifulSoup, Tag
from docutils.utils.math import latex2mathml

_UNKNOWN = {
    r"\\dots\b": r"\\ldots",
    r"\\iff\b": r"\\Longleftrightarrow",
    r"\\(big|Big)\b": r"\\\1l",
    r"\\(?:begin|end)\{split\}": "",  # around an aligned, where it changes nothing
    r"\\(?:text|display)style\b": "",  # of which it takes one at the head of a group only
}
"""What the book uses and docutils doesn't know, with what it does."""
_NAMED = re.compile(r"&(?!amp;|lt;|gt;|quot;)\w+;")
"""Characters by name, which the XML of an EPUB doesn't know."""


def mathml(latex: str, *, block: bool) -> str:
    """Return a formula as a ``<math>`` element.

    Raises:
        docutils.utils.math.MathError: docutils does not know a command in it.
    """
    latex = "{}" + latex if latex.lstrip().startswith(("^", "_")) else latex
    for unknown, known in _UNKNOWN.items():
        latex = re.sub(unknown, known, latex)
    lines = latex2mathml.tex2mathml(latex, as_block=block)
    text = lines if isinstance(lines, str) else "".join(lines)
    return _mended(_NAMED.sub(lambda name: html.unescape(name[0]), text))


_OPENING = {")": "(", "]": "[", "}": "{", "⟩": "⟨", "⌋": "⌊", "‖": "‖", "|": "|"}
"""Of each bracket that closes."""
_SCRIPTS = ("msub", "msup", "msubsup")


def _mended(text: str) -> str:
    """Return MathML with the scripts of a bracket set on all that it closes, and bars that reach over their letters.

    docutils sets them on the bracket alone, which then neither grows nor carries them at their height.
    """
    drawn = BeautifulSoup(text, "html.parser")
    for row in drawn.select("mrow"):  # of an element that is a row itself
        parent = row.parent
        if parent is not None and parent.name in ("math", "mrow", "mtd", "mstyle") and not row.attrs:
            row.unwrap()
    for bar in drawn.select('mo[accent="true"]'):
        if bar.get_text() == "_":
            bar.string, bar["stretchy"] = "¯", "true"
    for over in drawn.select("munderover"):
        letter, index, accent = over.find_all(True, recursive=False)
        if letter.name != "mo":  # no sum, but a barred letter whose index would stand below it
            over.name = "msub"
            over.append(index)
            letter.wrap(drawn.new_tag("mover")).append(accent)
    for scripts in drawn.select(", ".join(_SCRIPTS)):
        bracket = scripts.find(True, recursive=False)
        if isinstance(bracket, Tag) and bracket.name == "mo":
            _enclose(drawn, scripts, bracket)
    return str(drawn)


def _enclose(drawn: BeautifulSoup, scripts: Tag, bracket: Tag) -> None:
    """Move what stands between a bracket with scripts and the one that opens it to where the scripts are set."""
    opening = _OPENING.get(bracket.get_text())
    inside: list[Tag] = []
    open_ones = 1
    for before in scripts.find_previous_siblings(True):
        inside.insert(0, before)
        if before.name == "mo" and before.get_text() == opening:
            open_ones -= 1
        elif bracket.get_text() in (before.get_text(), _base(before)):
            open_ones += 1
        if not open_ones:
            row = bracket.wrap(drawn.new_tag("mrow"))
            for place, each in enumerate(inside):
                row.insert(place, each)
            return


def _base(tag: Tag) -> str:
    """Return what the scripts of an element are set on, empty where it has none."""
    first = tag.find(True, recursive=False) if tag.name in _SCRIPTS else None
    return "" if first is None else first.get_text()
