"""MLflow runs and the pictures that go into them."""
