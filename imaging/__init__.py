"""IMAGE and MASK tensors to and from bytes and URIs, and the canvas an edit is cut from and put back onto."""
