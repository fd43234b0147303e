"""A view of jobs that is kept by a process of its own, which follows the log and writes the file, and tells of it."""
