"""The errors that a reader of the book may see: a line that says what to do."""

from collections.abc import Mapping, Sequence

MOST_NAMES = 10


class UserError(ValueError):
    """Something the user can mend: a missing folder, a corrupt file, a parameter out of range.

    The message is one line that names the thing and says what to do. Commands print it without a traceback and
    exit with a non-zero status; in a notebook it is rendered as that line alone.
    """

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


class UnreadableFiles(UserError):
    """Image files that cannot be decoded, all of them at once.

    Args:
        reasons: name of a file → the line that says what is wrong with it; at least one.
    """

    def __init__(self, reasons: Mapping[str, str]) -> None:
        self.reasons = dict(reasons)
        first = next(iter(self.reasons.values()))
        if len(self.reasons) == 1:
            super().__init__(first)
        else:
            super().__init__(
                f"{len(self.reasons)} image files cannot be read, replace or remove them: "
                f"{some_names(list(self.reasons))} (of the first: {first})"
            )


def some_names(names: Sequence[str]) -> str:
    """Return names for a message: the first ten and how many more there are."""
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
