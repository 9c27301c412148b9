"""One command a file; each module holds `command`."""
