"""Proof that the platform endures: real servers, killed, frozen and filled up. Run by `pytest tests/endurance`."""
