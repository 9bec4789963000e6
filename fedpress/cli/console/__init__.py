"""Output and prompts of commands on the terminal.

`progress.py` shows a run, `server_table.py` a deployed server, `codec_table.py` measurements of codecs; `passphrase.py`
asks for a passphrase. Add a module here for a command whose output is more than a line.
"""
