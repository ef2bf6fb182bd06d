"""Implementations of ``protocols.Source``: live venues, recordings, and a venue's files of trades and bars."""
