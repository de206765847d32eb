"""What watches a module beside its own services: one file for each kind of checker. A checker looks and says what it saw; what follows
from that the core decides, by the module's rules."""
