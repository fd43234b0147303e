"""Namespaces of their own on the same cluster, in which recorded jobs run again, and of which nothing is left."""
