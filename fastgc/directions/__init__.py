"""Checks along random directions."""
