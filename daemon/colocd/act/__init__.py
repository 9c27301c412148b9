"""Turns plans into Slurm calls: the handover state machine."""
