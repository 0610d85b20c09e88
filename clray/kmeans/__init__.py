"""Lloyd's k-means with FAISS inside, over shards that may be local or Ray actors."""
