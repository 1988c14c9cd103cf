"""The training program, read from top to bottom: settings, clips, annotator, rollout, losses, train."""
