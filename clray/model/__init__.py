"""Encoder and projection head, and their outputs for a whole data set."""
