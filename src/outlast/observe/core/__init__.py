"""Rules of observing: which metric an event counts for, and what a state says in numbers."""
