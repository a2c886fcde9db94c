//! Who may speak on the bus, and how servers and nodes know each other, with real servers.
