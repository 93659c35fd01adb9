"""Numerical tools that several themes share."""
