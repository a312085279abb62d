"""Named faults of known truth, planted in the reference trainer."""
