"""Numerics that several themes share."""
