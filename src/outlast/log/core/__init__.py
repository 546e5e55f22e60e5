"""Rules that every engine of the log shares."""
