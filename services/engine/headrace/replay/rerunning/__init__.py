"""An attempt of a recorded job, run again in this process: what it gets, what it may do, and how what comes of it differs."""
