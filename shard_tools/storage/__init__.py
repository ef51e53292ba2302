"""Files, local and remote: written whole, downloaded, cached, and read as untrusted data."""
