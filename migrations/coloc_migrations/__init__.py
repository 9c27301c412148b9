"""Alembic migrations of the coloc store, packaged."""
