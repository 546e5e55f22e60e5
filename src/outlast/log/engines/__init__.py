"""Engines of the log."""
