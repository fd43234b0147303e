"""The small process above the engines: it kills one whose lease is over, and says so when one has died.

`program` is started by its path, and imports the standard library and its neighbours here alone: it must go on when everything
else fails, and costs little memory. `last_rites` is what it starts for an engine that has died, in a process of its own.
"""
