"""Rules of detection: pure deciders that are given the time."""
