"""What is known of the nodes' GPUs beside Slurm: from coloc-agent or from the site's Prometheus."""
