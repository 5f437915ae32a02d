"""The assets, one file each, in the order of the chain. They ask the store, call the rooms, and report."""
