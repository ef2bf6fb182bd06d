"""Implementations of ``protocols.Store``: DuckDB embedded in the data folder, and PostgreSQL; their migrations."""
