"""Readers of serving metrics and ready checks."""
