"""Rules of drills, without I/O: gaps, ledgers, verdicts."""
