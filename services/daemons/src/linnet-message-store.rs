//! The message-store service as a process of its own.

use std::process::ExitCode;

use linnet_cluster::Service;

fn main() -> ExitCode {
    linnet::service_main(Service::MessageStore)
}
