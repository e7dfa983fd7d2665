"""The one error a reader of the book may see: a line that says what to do."""


class UserError(ValueError):
    """Something the user can mend: a missing folder, a corrupt file, a parameter out of range.

    The message is one line that names the thing and says what to do. Commands print it without a traceback and
    exit with a non-zero status; in a notebook it is rendered as that line alone.
    """

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]
