"""The one error of the readers: what could not be read, and where."""


class TopologyError(ValueError):
    """A topology text cannot be read, or a shape cannot be used. `str(error)` is one sentence with the place in front.

    `line` and `column` count from 1; None: the error concerns the text as a whole. `reason` is the sentence alone.
    """

    def __init__(self, reason: str, line: int | None = None, column: int | None = None) -> None:
        where = "" if line is None else f"line {line}: " if column is None else f"line {line}, column {column}: "
        super().__init__(where + reason)
        self.reason = reason
        self.line = line
        self.column = column
