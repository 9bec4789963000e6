"""Groups of nodes with models of different sizes in one federation.

`server` holds the extension. The groups' models are parts of the server's: widths of one model (`widths`), or separate
models (`architectures`). To divide the model in another way, add a subclass of `NodeGroups`.
"""
