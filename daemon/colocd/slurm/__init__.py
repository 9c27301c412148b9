"""The Slurm port and its adapters."""
