"""Images for the real node, and how they are built."""
