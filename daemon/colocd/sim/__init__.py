"""The virtual Slurm cluster: the one fake, held to the live adapter's contract tests."""
