"""Rows that ask what another row asks."""
