"""Recorded jobs in a file, without what is redacted: written, and read again as a history."""
