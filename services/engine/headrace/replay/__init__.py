"""What the log has recorded: read again, and run again through today's code. Nothing here changes the live system."""
