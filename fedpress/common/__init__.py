"""What every package may use: exceptions, settings, files, random generators, units, diagnostics.

In go plain values, out come plain values; nothing here imports another package of fedpress. One module holds one
subject, and a new one goes beside them.
"""
