"""Third parties that help to tell a dead peer from an unreachable one. `ping.py` is a hint only; it never grants anything."""
