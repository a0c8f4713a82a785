"""Exporters of a source: Prometheus, OpenTelemetry, data frames and files.

Rooms: `semconv` (names) · `families` (a snapshot as metrics) · `buckets` (HDR in other forms) ·
`prometheus` (`metrics`, `native`, `pages`) · `otlp` (pushed) · `rows` (tables and files).
"""
