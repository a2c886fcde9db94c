//! The REST surface against scripted services in one process.

mod bodies;
mod edge;
mod fuzz;
mod golden;
mod inner;
mod rig;
