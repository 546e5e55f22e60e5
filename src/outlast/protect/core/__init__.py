"""Rules of protection: pure deciders that are given the time and the draws."""
