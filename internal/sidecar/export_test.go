package sidecar

// OnLoopback is onLoopback: no resolver of a test says that localhost is elsewhere.
var OnLoopback = onLoopback
