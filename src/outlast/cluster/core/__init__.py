"""Rules of the cluster's client and administration, without I/O."""
