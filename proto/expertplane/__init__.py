"""The wire contract of Expertplane."""
