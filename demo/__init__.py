"""The demo: a throw-away Slurm, one service, a backlog of batch jobs and one compressed day (`make demo`)."""
