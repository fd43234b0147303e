"""What happened to jobs: the timeline of one, and how all stood at a moment."""
