"""What `builtin.py` is made of."""
