"""The layers: `base.py` has the protocol, each other file one method."""
