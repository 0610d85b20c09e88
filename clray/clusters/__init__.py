"""Cluster assignments and what they tell about the labels."""
