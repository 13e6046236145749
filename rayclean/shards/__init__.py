"""Tars to samples to pixels, random access by offset, and writing tars."""
