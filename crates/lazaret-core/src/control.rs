//! The messages between `lazaretd` and those who talk to it on the control socket.
