"""Which model lies where: on this machine, on the mesh; putting it there and taking it off."""
