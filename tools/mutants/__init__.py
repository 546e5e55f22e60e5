"""Mutants: known bugs planted one by one in a copy of ``src``, and the campaigns that find them.

``python -m tools.mutants`` runs the campaigns against each; see ``docs/explanation/mutants.md``.
"""
