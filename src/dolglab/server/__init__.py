"""A library in the browser and over HTTP: a page, a REST API, and the limits of both."""
