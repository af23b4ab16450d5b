"""How far each element of an output reads into the input, followed operator by operator (see `mode.py`)."""
