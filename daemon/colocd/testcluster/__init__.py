"""A throw-away Slurm cluster on one machine, for demo, tests and trying things."""
