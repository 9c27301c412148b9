"""coloc-agent: what the GPUs of one node do, told to colocd. Imports as little as it can: it runs on every GPU node."""
