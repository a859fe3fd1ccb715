"""Know how good it is: metrics, the protocol, the report."""
