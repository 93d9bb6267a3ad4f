"""How an object is made to survive the loss of nodes.  Pure values, no I/O."""
