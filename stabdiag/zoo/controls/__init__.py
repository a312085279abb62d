"""One file a hard negative: a healthy training that looks as if it were not."""
