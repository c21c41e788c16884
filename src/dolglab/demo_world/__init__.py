"""A small world of drawn landmarks, written to disk in the formats of GLDv2 and Revisited Oxford/Paris."""
