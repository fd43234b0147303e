"""Measurements, each with the bare client beside it in the same run."""
