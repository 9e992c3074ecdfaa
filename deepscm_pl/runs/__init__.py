"""Lightning runs that survive interruptions, full disks and values that are not finite."""
