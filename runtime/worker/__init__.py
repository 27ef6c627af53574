"""The worker pool: runs attempts of nodes."""
