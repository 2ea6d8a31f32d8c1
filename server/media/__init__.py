"""Media in: roots, magic check, probing in a confined child process, intake and labelled thumbnails."""
