"""The gRPC face: bytes in, events or domain calls, bytes out. Thin on purpose."""
