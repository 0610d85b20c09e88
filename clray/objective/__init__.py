"""Contrastive objectives over embeddings and cluster ids."""
