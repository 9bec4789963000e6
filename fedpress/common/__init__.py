"""Modules that every package may use: exceptions, settings, files, random generators, units, diagnostics.

Functions take and return plain values; nothing here imports another package of fedpress. Each module has one subject;
add a new module for a new subject.
"""
