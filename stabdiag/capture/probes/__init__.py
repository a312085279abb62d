"""The probes, one file each: whatever module lies here and declares one is part of the recorder."""
