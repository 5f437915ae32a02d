"""The tables between the assets, the ledger and the profile."""
