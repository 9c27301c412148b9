"""How the benches end: what was found, as JSON."""

import json
import sys
from pathlib import Path


def tell(found: object, file: Path | None) -> None:
    """Print it, and write it to `file`, too; None, or `-`: only print it."""
    text = json.dumps(found, indent=2) + "\n"
    if file is not None and str(file) != "-":
        file.write_text(text)
    sys.stdout.write(text)
