"""The places where people train: one file a host, which imports that host when it is imported itself."""
