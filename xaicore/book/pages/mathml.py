"""Mathematics as MathML, which browsers and readers of books show without scripts; a Sphinx extension.

docutils converts it from LaTeX.
"""

import html
import re
from collections.abc import Callable
from typing import Any

from bs4 import BeautifulSoup, Tag
from docutils.utils.math import latex2mathml
from sphinx.ext.mathjax import html_visit_displaymath, html_visit_math

FORMULA = re.compile(r"\\(?P<open>[(\[])(?P<latex>.*)\\[)\]]", re.DOTALL)
"""As Sphinx writes it for a script."""

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
_APPLIED = "\u2061"
_THIN = "0.167em"


def _mended(text: str) -> str:
    """Return MathML with the scripts of a bracket set on all that it closes, bars that reach over their letters, primes,
    and the spaces of TeX around the names of functions and none inside of bars.

    docutils sets scripts on the bracket alone, which then neither grows nor carries them at their height.
    """
    drawn = BeautifulSoup(text, "html.parser")
    for row in drawn.select("mrow"):  # of an element that is a row itself
        parent = row.parent
        if parent is not None and parent.name in ("math", "mrow", "mtd", "mstyle") and not row.attrs:
            row.unwrap()
    for bar in drawn.select('mo[accent="true"]'):
        if bar.get_text() == "_":
            bar.string, bar["stretchy"] = "¯", "true"
            letters = bar.find_previous_siblings(True)[-1]
            if len(letters.get_text().strip()) > 1:
                letters["class"] = "overlined"  # few fonts have a bar that grows
    for mark in drawn.find_all("mo", string=["'", "|"]):
        if mark.get_text() == "'":
            mark.string = "′"
        mark["lspace"] = mark["rspace"] = "0"
    for name in drawn.find_all("mi"):
        if len(name.get_text()) > 1 and (
            name.get("mathvariant") or name.get_text() in latex2mathml.functions
        ):
            _space(drawn, name)
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
    # MathML 3, which EPUB asks for, has them on <mstyle> alone, and the first on tables
    for styled in drawn.select("[displaystyle]:not(mtable), [scriptlevel]"):
        names = {"displaystyle", "scriptlevel"} & set(styled.attrs)
        if styled.name != "mstyle":
            values = {name: str(styled.attrs.pop(name)) for name in sorted(names)}
            styled.wrap(drawn.new_tag("mstyle", attrs=values))
    return str(drawn)


def _space(drawn: BeautifulSoup, name: Tag) -> None:
    """Set the name of a function apart from letters, numbers and fractions beside it."""
    scripts = name.parent
    whole = scripts if scripts is not None and scripts.name in _SCRIPTS else name
    before, after = whole.find_previous_sibling(True), whole.find_next_sibling(True)
    if isinstance(after, Tag) and after.get_text() == _APPLIED:
        after = after.find_next_sibling(True)
    if isinstance(before, Tag) and before.name not in ("mo", "mspace"):
        before.insert_after(drawn.new_tag("mspace", width=_THIN))
    if isinstance(after, Tag) and after.name not in ("mo", "mspace"):
        after.insert_before(drawn.new_tag("mspace", width=_THIN))


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


def _drawn(visit: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    """Return Sphinx's visitor of a formula with MathML for what it writes for a script."""

    def visitor(writer: Any, node: Any) -> None:
        begun = len(writer.body)
        try:
            visit(writer, node)
        finally:  # it ends by an exception
            text = "".join(writer.body[begun:])
            writer.body[begun:] = [FORMULA.sub(_formula, text)]

    return visitor


def _formula(found: re.Match[str]) -> str:
    return mathml(html.unescape(found["latex"]).strip(), block=found["open"] == "[")


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx as the renderer ``mathml``."""
    app.add_html_math_renderer(
        "mathml", (_drawn(html_visit_math), None), (_drawn(html_visit_displaymath), None)
    )
    return {"parallel_read_safe": True, "parallel_write_safe": True}
