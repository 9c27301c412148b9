"""The coloc daemon."""
