"""Figures that mean something: how near translated images are to the target domain."""
