//! The commands as a person or a script meets them: the real binary against a real `linnet dev`.

mod help;
mod live;
mod offline;
mod online;
mod sandbox;
