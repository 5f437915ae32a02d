"""Rows that ask what another row asks: exact.py (filters), and near_duplicates.py with the pairs of similarity.py."""
