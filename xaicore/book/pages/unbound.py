"""Numbers in the prose of a page that look like results and are bound to nothing.

The prose is what is left of a page's Markdown without code, formulas, comments, HTML tags, roles (citations, references,
terms) and links. In it a decimal number, a percentage, a fraction, a ratio, an interval, a count of images and the like,
and a part of a count look like results, in figures or in words. One that is none is marked as a setting
(:mod:`xaicore.book.pages.words`).
"""

import re
from collections.abc import Iterator

PROSE = frozenset({"note", "tip", "important", "warning", "admonition", "glossary", "container", "dropdown"})
"""Directives with prose in them; what stands in any other fence is none."""

SPELLED = (
    "zero one two three four five six seven eight nine ten "
    "eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty"
)
WORDS = dict(enumerate(SPELLED.split()))
"""Numbers that prose may spell out."""

_FENCE = re.compile(r"^\s*(?P<fence>`{3,}|~{3,}|:{3,})(?:\{(?P<name>[\w-]+)\})?(?P<rest>.*)$")
_NOT_PROSE = re.compile(
    r"""
    ^[ ]*:[\w-]+:[^\n]*$                       # an option of a directive
    | ^\([^()\s]+\)=$                          # a label
    | ^\#+[ ]+\d+(?:\.\d+)*\.?[ ]              # the number of a heading
    | \$\$.*?\$\$ | (?<![\\$])\$(?!\s)[^$\n]+?(?<!\s)\$
    | \{[a-z:+-]+\}`[^`]+`                     # a role
    | (?P<ticks>`+)(?!`).*?(?<!`)(?P=ticks)(?!`)
    | <!--.*?--> | <https?:[^>\s]*> | </?[a-z][^>]*>
    """,
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)
_LINK = re.compile(r"\[(?:[^\[\]]|\[[^\[\]]*\])*\]\([^()\s]*\)|\bhttps?://\S+")
_REFERENCE = re.compile(
    r"\b(?:Figs?\.|Figures?|Tables?|Secs?\.|Sections?|Eqs?\.|Algorithm|chapters?|papers?|Python|NFS|BY-SA|versions?)\s+"
    r"\d+(?:\.\d+)*(?:\s*(?:,|and|or|to|–)\s*\d+(?:\.\d+)*)*",
    re.IGNORECASE,
)
_RANGE_OF_IMAGES = re.compile(r"\[0, 1\](?!\s*%)")
"""The interval that the values of images lie in."""
_LEVEL = re.compile(r"\b95 %(?=\s+(?:intervals?|bands?)\b)|(?<=Bands: )95 %(?= (?:over|of) )", re.IGNORECASE)
"""The level of all intervals of the book."""

_START = r"(?<![\w.,/@])"
_PLAIN = rf"{_START}[+−-]?\d+(?:\.\d+)?"
_SPELLED = "|".join(
    [*(WORDS[number] for number in range(20, 2, -1)), "thirty", "forty", "fifty", "sixty", "seventy"]
)
_COUNT = rf"(?:{_START}\d+(?:,\d{{3}})*(?![\d.])|\b(?:{_SPELLED})\b)"
_IMAGES = (
    "images?|photographs?|digits?|portraits?|faces|cases|pairs|examples|people|neurons|trainings|successes"
)
_COUNTED = (
    f"{_IMAGES}|classes|networks?|layers?|maps?|points?|pixels?|px|bits?|runs?|steps?|queries|samples?|dB"
)
_FRACTION = (
    r"(?:half|(?:an?|one)[ -](?:third|quarter|fifth|sixth|eighth|tenth|hundredth|thousandth)"
    r"|(?:two|three|four|five|seven|nine)[ -](?:thirds|quarters|fifths|sixths|eighths|tenths))"
)
_ADJECTIVES = r"(?:\s+(?!(?:of|on|in|for|at|to|and|or|with|from|by|than)\b)[A-Za-z-]+){0,2}?\s+"
_RESULT = re.compile(
    rf"""
    \[\s*{_PLAIN}\s*,\s*{_PLAIN}\s*\](?:\s*%)?                        # an interval
    | (?:{_PLAIN}\s*(?:to|and|or|–)\s+)?{_PLAIN}\s?(?:%|‰|per\ cent\b|percent\b)
    | {_PLAIN}\s?(?:[x×](?!\w)|-fold\b|times\b)                       # a ratio
    | {_START}\d+/\d+(?![\w/])                                        # a fraction
    | \b[npkr]\s*[=<>≈]\s*\d+(?:[.,]\d+)*
    | {_START}[+−-]?\d+\.\d+(?![\w.]*\.\d)                            # a decimal number, and no version
    | (?:{_COUNT}|\b(?:none|two|all))\s+(?:out\s+)?of\s+(?:the\s+|all\s+|its\s+|them\s+)?{_COUNT}
    | \b(?:{_FRACTION}\s+of|(?:more|less|fewer|nearly|almost|about)(?:\s+than)?\s+{_FRACTION})\b
    | {_COUNT}{_ADJECTIVES}(?:{_IMAGES})\b
    | {_START}\d+(?:,\d{{3}})*(?![\d.]){_ADJECTIVES}(?:{_COUNTED})\b
    """,
    re.VERBOSE | re.IGNORECASE,
)


def without_code(text: str) -> str:
    """Return Markdown of the same length in which what is neither prose nor a link is NUL characters."""
    lines: list[str] = []
    fences: list[tuple[str, bool]] = []
    for line in text.splitlines(keepends=True):
        found = _FENCE.match(line)
        inside = bool(fences) and not fences[-1][1]
        if (
            found
            and fences
            and not found["name"]
            and not found["rest"].strip()
            and found["fence"].startswith(fences[-1][0])
        ):
            fences.pop()
        elif found and not inside:
            fences.append((found["fence"], found["name"] in PROSE))
        elif not inside:
            lines.append(line)
            continue
        lines.append(re.sub(r"[^\n]", "\0", line))
    return _NOT_PROSE.sub(_blank, "".join(lines))


def unbound(text: str) -> Iterator[tuple[int, str]]:
    """Yield where a number stands that looks like a result, and the words around it that make it one.

    Args:
        text: Markdown of a page; links of any kind are left out.
    """
    prose = without_code(text)
    for pattern in (_LINK, _RANGE_OF_IMAGES, _LEVEL, _REFERENCE):
        prose = pattern.sub(_blank, prose)
    for match in _RESULT.finditer(prose):
        yield match.start(), " ".join(match[0].split())


def _blank(match: re.Match[str]) -> str:
    return "\0" * len(match[0])
