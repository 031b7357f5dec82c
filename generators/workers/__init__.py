"""How a model is run outside its worker's process: on a leash, and as a child that speaks lines of JSON."""
