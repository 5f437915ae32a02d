"""From maths rows to an evaluated, registered QLoRA adapter, rebuilding only what is stale."""
