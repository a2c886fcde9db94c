//! The wire formats of Linnet: gRPC between services, frames between owner and gateway, the client protocol, stored rows.
//!
//! Everything here is generated from `linnet/**/*.proto`, plus conversions to `linnet-types`. Packages are versioned;
//! fields are only added.

mod json;

/// Generated code, one module per package.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
mod generated {
    pub mod linnet {
        pub mod account {
            pub mod v1 {
                tonic::include_proto!("linnet.account.v1");
            }
        }
        pub mod callback {
            pub mod v1 {
                tonic::include_proto!("linnet.callback.v1");
            }
        }
        pub mod client {
            pub mod v1 {
                tonic::include_proto!("linnet.client.v1");
            }
        }
        pub mod cluster {
            pub mod v1 {
                tonic::include_proto!("linnet.cluster.v1");
            }
        }
        pub mod delivery {
            pub mod v1 {
                tonic::include_proto!("linnet.delivery.v1");
            }
        }
        pub mod gateway {
            pub mod v1 {
                tonic::include_proto!("linnet.gateway.v1");
            }
        }
        pub mod group {
            pub mod v1 {
                tonic::include_proto!("linnet.group.v1");
            }
        }
        pub mod messages {
            pub mod v1 {
                tonic::include_proto!("linnet.messages.v1");
            }
        }
        pub mod msg {
            pub mod v1 {
                tonic::include_proto!("linnet.msg.v1");
            }
        }
        pub mod push {
            pub mod v1 {
                tonic::include_proto!("linnet.push.v1");
            }
        }
        pub mod session {
            pub mod v1 {
                tonic::include_proto!("linnet.session.v1");
            }
        }
        pub mod store {
            pub mod v1 {
                tonic::include_proto!("linnet.store.v1");
            }
        }
    }
}

pub use generated::linnet::account::v1 as account;
pub use generated::linnet::callback::v1 as callback;
pub use generated::linnet::client::v1 as client;
pub use generated::linnet::cluster::v1 as cluster;
pub use generated::linnet::delivery::v1 as delivery;
pub use generated::linnet::gateway::v1 as gateway;
pub use generated::linnet::group::v1 as group;
pub use generated::linnet::messages::v1 as messages;
pub use generated::linnet::msg::v1 as msg;
pub use generated::linnet::push::v1 as push;
pub use generated::linnet::session::v1 as session;
pub use generated::linnet::store::v1 as store;

#[allow(clippy::all, clippy::pedantic)]
mod client_json {
    use crate::client;
    include!(concat!(env!("OUT_DIR"), "/client_json.rs"));
}

include!(concat!(env!("OUT_DIR"), "/streaming.rs"));
