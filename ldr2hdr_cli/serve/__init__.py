"""`ldr2hdr serve`: convert over HTTP, with a queue and a page."""
