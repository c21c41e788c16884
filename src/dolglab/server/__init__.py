"""A library in the browser and over HTTP: web pages, a REST API, and their limits."""
