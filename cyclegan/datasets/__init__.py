"""Domains: cards, fetching, reading, augmenting and pairing A with B."""
