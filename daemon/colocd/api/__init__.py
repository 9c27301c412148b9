"""Local HTTP on Unix sockets."""
