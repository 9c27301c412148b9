"""The program that calls pyslurm, in a process of its own."""
