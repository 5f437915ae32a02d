"""The tables between the assets: their contracts, how they are written, the ledger of all rows, and the profile."""
