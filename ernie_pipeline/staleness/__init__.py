"""What is stale, and why: stages, their code, fingerprints, the plan."""
