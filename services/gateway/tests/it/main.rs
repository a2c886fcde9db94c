//! The gateway against fakes of the other services, over real sockets.

mod fakes;
mod hostile;
mod live;
mod messages;
mod sessions;
mod tls;
