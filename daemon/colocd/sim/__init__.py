"""The virtual cluster: a deterministic Slurm on a virtual clock, for tests and simulations."""
