"""What happens inside the training process: discovery, hooks, statistics, one row a step."""
