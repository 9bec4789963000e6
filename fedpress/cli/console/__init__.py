"""What commands print on the terminal, and what they ask there.

`progress.py` shows a run, `server_table.py` a deployed server, `codec_table.py` measurements of codecs; `passphrase.py`
asks for a passphrase. A command that shows more than a line gets a module here.
"""
