"""Images decoded, encoded, or left in their files."""
