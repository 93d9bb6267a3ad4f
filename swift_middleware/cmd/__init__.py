"""The sheep-swift command."""
