"""`stabdiag run`: the supervisor of a target, and the way into its processes."""
