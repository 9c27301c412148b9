"""A throw-away Slurm cluster on one machine, for demo, tests and trying things."""

from colocd.testcluster.cluster import PrivateCluster, down

__all__ = ["PrivateCluster", "down"]
