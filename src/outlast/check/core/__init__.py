"""Histories, models and judges as pure functions: they read no file, clock or environment."""
