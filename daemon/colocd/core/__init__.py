"""The pure core: view in, plan out; no I/O, no clock, no randomness (enforced by import-linter)."""
