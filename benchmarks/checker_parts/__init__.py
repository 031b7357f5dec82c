"""What `checker.py` is made of."""
