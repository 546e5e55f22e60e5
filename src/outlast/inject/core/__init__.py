"""The deciding parts of `inject`: names of faults, what a link does to bytes, undo records."""
