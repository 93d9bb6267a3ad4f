"""Who holds what: cluster map -> hash ring -> nodes.  Pure values, no I/O."""
