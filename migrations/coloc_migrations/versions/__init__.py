"""Revisions, one a file."""
