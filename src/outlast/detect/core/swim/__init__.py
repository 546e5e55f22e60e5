"""SWIM membership with Lifeguard's refinements: who takes part, and who has failed.

``api`` has the words, ``settings`` the profiles, ``node`` the state machine; the others are its
parts. Only ``wire`` and ``node`` need the extra ``members``; this file imports nothing.
"""
