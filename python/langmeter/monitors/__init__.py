"""Observers that poll a recorder: changes of level (`anomalies`) and stalled streams (`stalls`)."""
