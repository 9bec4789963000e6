"""`fedpress compare`: codecs side by side, everything else equal, and what they cost on a link."""
