"""Entropy coding in exact integers: arrays of integers in, bytes out, the same bits on every machine.

`tokens.py` splits integers into tokens and raw bits, `table.py` holds the tokens' frequencies, `rans.py` codes tokens
under a table, `bits.py` packs bits, `integers.py` puts them together. Coder and model are apart: a better model of
the tokens goes beside `table.py` and leaves the coder alone.
"""
