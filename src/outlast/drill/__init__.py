"""Workload, nemesis and judgement on real processes: what was promised is checked."""
