//! The gateway against fakes of the other services, over real sockets.

mod fakes;
mod hostile;
mod live;
mod messages;
mod raw;
mod sessions;
mod tls;
