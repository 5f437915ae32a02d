"""Jobs on a Ray cluster. Ray is imported only where it is chosen."""
