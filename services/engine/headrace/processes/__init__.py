"""Child processes of a process of headrace: how they are started, and how what they log comes to their parent."""
