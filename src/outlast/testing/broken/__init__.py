"""Canaries: implementations that break one promise each, to test the suites that look for it."""
