"""Statistics of tensors, one family a file: what is taken on the device, how it merges, what it becomes."""
