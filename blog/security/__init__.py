"""Passwords, tokens and cursors. Knows no web."""
