"""Who may speak to whom: certificates of one mesh, tokens to join it, TLS on channels and servers."""
