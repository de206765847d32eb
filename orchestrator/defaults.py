"""Where things are when nobody says otherwise. Nothing is imported here: a command that is typed in an emergency should start fast."""

DEFAULT_CONFIG = "/etc/lockstep"
DEFAULT_SOCKET = "/run/lockstep/hactld.sock"
