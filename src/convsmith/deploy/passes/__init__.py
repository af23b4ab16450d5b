"""Rewriting a network before it is exported, each step checked for equality: `lean.py` runs them in their order."""
