"""Shared test rigs."""
