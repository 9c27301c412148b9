"""Text as terminals and copies from web pages leave it: colour codes, titles and blanks that do not break."""

import re

_CODE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-Z\\-_])")


def plain(line: str) -> str:
    """The line without a terminal's codes and carriage return at its end; a no-break space is a blank."""
    return _CODE.sub("", line.rstrip("\r")).replace("\u00a0", " ")
