"""Which Slurm the live tests run: the installed one, or that in a folder with another system."""

import os


def slurm_root() -> str | None:
    """The folder that COLOC_TEST_SLURM_ROOT names (tools/slurm_root.sh makes one; needs root); None: the installed Slurm."""
    return os.environ.get("COLOC_TEST_SLURM_ROOT") or None
