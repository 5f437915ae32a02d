"""What was built, addressed by what it was built from: stages, fingerprints, artifacts, and the reuse of them."""
