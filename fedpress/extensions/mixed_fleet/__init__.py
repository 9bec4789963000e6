"""Groups of nodes with models of different sizes in one federation.

`server` holds the extension. The groups' models are parts of the server's: widths of one model (`widths`), or whole
models next to each other (`architectures`). Another way is another `NodeGroups`.
"""
