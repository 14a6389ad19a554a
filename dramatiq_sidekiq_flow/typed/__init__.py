"""Jobs with a known shape."""
