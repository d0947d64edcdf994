"""Makes the weights of the embedded bundle: procedural clips, losses, loops, evaluation."""
