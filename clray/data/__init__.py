"""Images, labels and attributes: from files to batches of random views."""
