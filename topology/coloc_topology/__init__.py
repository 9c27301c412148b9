"""Server topology: shapes, islands, fit tables and readers; text in, facts out, no I/O."""
