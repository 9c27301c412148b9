"""The coloc command line: one command a file."""
