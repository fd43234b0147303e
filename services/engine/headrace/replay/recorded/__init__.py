"""What was recorded, as the log has it: jobs, their states, answers and memory, each found by time or by id."""
