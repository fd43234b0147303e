"""Local tables that are kept equal to topics: a view can be deleted at any time, it is made anew from the log."""
