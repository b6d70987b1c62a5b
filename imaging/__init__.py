"""IMAGE and MASK tensors to and from bytes and URIs; canvas; keeping what was not edited. No network.

errors.py        what it raises
cores.py         one picture at a time on each core
pixels.py        IMAGE and MASK tensors, checked, and their 8-bit pixels
masks.py         a MASK in a service's own colours
formats.py       the file formats that pictures are written in
limits.py        how large a picture from outside may be
orientation.py   which way up a picture belongs
jpeg.py          a JPEG's structure, walked and mended
scans.py         the scans of a JPEG that has several
containers.py    what a picture file says of itself
decoders.py      pixels from the parts of a file
deflate.py       a fast zlib stream
png.py           a fast PNG
codec.py         pictures to bytes and back
stack.py         pictures that come one by one, as one IMAGE
uri.py           data URIs
exif.py          Exif and XMP made true of another picture
metadata.py      what a file says beside its pixels, carried over to another
geometry.py      boxes, and masks that fade out
canvas.py        the picture that an edit is cut from and put back onto
keep/            an edit laid back onto its source so that only what was edited differs
"""
