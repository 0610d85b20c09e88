"""What a frozen representation is worth: linear probe and nearest neighbours, on arrays."""
