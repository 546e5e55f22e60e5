"""Machines that are ready to be served by name: ``outlast serve kv``."""
