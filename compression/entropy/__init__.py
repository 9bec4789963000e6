"""Entropy coding in exact integers: arrays of integers in, bytes out, the same bits on every machine.

`tokens.py` splits integers into tokens and raw bits, `frequency_tables.py` holds the tokens' frequencies, `rans.py`
codes tokens under a table, `bit_io.py` packs bits, `integer_coder.py` chooses among the coders. A better model of the
tokens is a new module, and leaves the coder unchanged.
"""
