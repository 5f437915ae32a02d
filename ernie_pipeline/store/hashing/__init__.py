"""The SHA-256 of files: read now, or remembered for as long as a file is not touched."""
