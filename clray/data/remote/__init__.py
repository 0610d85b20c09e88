"""Data that lie far away, in S3, Google's storage, a hub or a web server, seen as files of a cache on this machine."""
