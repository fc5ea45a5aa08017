"""A blog platform that needs nothing but an SQL database."""
