"""The command `headrace`: the top layer, which puts the parts together."""
